"""The runner: stages are done once, a kill or a failure loses none, other settings are refused."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from unimo.errors import ConfigError, UnimoError
from unimo.studies import runner
from unimo.studies.catalogue import STUDIES
from unimo.studies.results import write_table
from unimo.studies.runner import collect, estimate_minutes, make_jobs, run_jobs, waiting_stages
from unimo.studies.study import Column, Evaluate, Finetune, Pretrain, Row, Steps, Study, Table

# A stand-in of all three tools: it notes each start, trains by writing a folder, and scores from its words.
TOOL = """import json, os, pathlib, signal, sys, time, zlib
tool, words = pathlib.Path(sys.argv[0]).stem, sys.argv[1:]
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([tool, *words, os.getpid()]) + "\\n")
print("heard", words, file=sys.stderr)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append("SIGTERM"))
if (here / "fail").exists() and (here / "fail").read_text() in " ".join(words):
    sys.exit(2)
if tool == "evaluate":
    model = pathlib.Path(words[words.index("--model") + 1])
    score = (zlib.crc32((model / "weights").read_bytes() + words[1].encode()) % 1000) / 10
    metrics = {"score": score, "ir_r1": score / 2, "threads": int(os.environ["OMP_NUM_THREADS"])}
    print(json.dumps({"metrics": metrics, "split": "val", "selection": "clean"}))
else:
    if (here / "sleep").exists() and (here / "sleep").read_text() in " ".join(words):
        for _ in range(1200):
            if not stopped:
                time.sleep(0.05)
    output = next(w.partition("=")[2] for w in words if w.startswith("output_dir="))
    model = pathlib.Path(output, "model")
    model.mkdir(parents=True, exist_ok=True)
    pathlib.Path(output, "summary.json").write_text(json.dumps({"stopped_by": "".join(stopped)}))
    (model / "weights").write_text(" ".join(w for w in words if w.startswith(("seed", "train", "model."))))
    sys.exit(75 if stopped else 0)
"""
STAGES = (
    Pretrain(),
    Evaluate("zero_shot", of="pretrain", task="retrieval", options=("--zero-shot",)),
    Finetune("vqa", "tune", "vqa", ("optim.lr=1",)),
    Evaluate("questions", of="vqa", task="vqa"),
)
STUDY = Study(
    name="toy",
    question="Does it?",
    paper="none",
    steps=(
        Steps("pretrain", 10, "pre-training", minutes=100),
        Steps("tune", 5, "tuning", least=0, minutes=20),
    ),
    rows=(
        Row("w/o a & b", "toy_tiny", STAGES, ("model.a=0",)),
        Row("all", "toy_tiny", STAGES),
        Row("scratch", "toy_tiny", STAGES[2:]),
    ),
    tables=(Table(("row",), (Column("questions.score", "questions"),)),),
    seeds=(0, 1),
    next_command="look {row}",
)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins of the tools."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("pretrain", "finetune", "evaluate"):
        (folder / f"{name}.py").write_text(TOOL)
    monkeypatch.setattr(runner, "TOOLS", folder)
    return folder


def calls(tools: Path) -> list[list]:
    path = tools / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def without_minutes(results: list[dict]) -> list[dict]:
    return [{key: value for key, value in each.items() if "minutes" not in key} for each in results]


def test_a_row_is_its_commands() -> None:
    job = make_jobs(STUDY, ["w/o a & b"], [3], {"tune": 7}, ["data.x=1"])[0]
    common = ["seed=3", "data.num_workers=1", "data.x=1"]
    folder = "out/wo_a_b_3"
    assert job.commands(Path("out")) == {
        "pretrain": [
            "pretrain.py", "toy_tiny", f"output_dir={folder}/pretrain", "train.max_steps=10", *common,
            "model.a=0",
        ],
        "zero_shot": [
            "evaluate.py", "--task", "retrieval", "--model", f"{folder}/pretrain/model", "--split", "val",
            "--zero-shot",
        ],
        "vqa": [
            "finetune.py", "--task", "vqa", "--model", "toy_tiny", "--init", f"{folder}/pretrain/model",
            f"output_dir={folder}/vqa", "train.max_steps=7", *common, "optim.lr=1",
        ],
        "questions": ["evaluate.py", "--task", "vqa", "--model", f"{folder}/vqa/model", "--split", "val"],
    }  # fmt: skip


def test_a_row_without_pre_training_starts_from_scratch() -> None:
    words = make_jobs(STUDY, ["scratch"], [0])[0].commands()["vqa"]
    assert words[words.index("--init") + 1] == "none"


def test_jobs_are_all_rows_seed_by_seed() -> None:
    found = [(job.row.name, job.seed) for job in make_jobs(STUDY)]
    assert found == [(row, seed) for seed in (0, 1) for row in ("w/o a & b", "all", "scratch")]


def test_results_come_in_declared_order_with_all_scores(tools: Path, tmp_path: Path) -> None:
    output, jobs = tmp_path / "out", make_jobs(STUDY, ["all", "scratch"], [1, 0])
    run_jobs(jobs, output, workers=2)
    results = collect(STUDY, jobs, output)
    assert [(each["row"], each["seed"]) for each in results] == [
        ("all", 0), ("all", 1), ("scratch", 0), ("scratch", 1),
    ]  # fmt: skip
    assert {"zero_shot.score", "questions.score", "minutes", "training_minutes"} <= results[0].keys()
    assert "zero_shot.score" not in results[2]
    assert results[0]["questions.threads"] == max(1, runner.available_cores() // 2)
    assert "heard ['toy_tiny'" in (output / "all_0" / "log.txt").read_text()


def test_finished_stages_are_not_run_again(tools: Path, tmp_path: Path) -> None:
    jobs = make_jobs(STUDY, seeds=[0])
    run_jobs(jobs, tmp_path / "out", workers=1)
    first = collect(STUDY, jobs, tmp_path / "out")
    (tools / "evaluate.py").unlink()
    run_jobs(jobs, tmp_path / "out", workers=1)
    assert collect(STUDY, jobs, tmp_path / "out") == first


def test_a_failed_command_ends_the_study_and_keeps_what_is_finished(tools: Path, tmp_path: Path) -> None:
    output, jobs = tmp_path / "out", make_jobs(STUDY, ["all", "scratch"], [0])
    (tools / "fail").write_text("scratch_0/vqa")
    with pytest.raises(UnimoError, match=r"finetune.py ended with code 2; see .*scratch_0/log.txt"):
        run_jobs(jobs, output, workers=1)
    assert [each["row"] for each in collect(STUDY, jobs, output)] == ["all"]
    assert [stage.name for stage in waiting_stages(jobs[1], output)] == ["vqa", "questions"]
    (tools / "fail").unlink()
    before = len(calls(tools))
    run_jobs(jobs, output, workers=1)
    assert len(calls(tools)) == before + 2
    assert [each["row"] for each in collect(STUDY, jobs, output)] == ["all", "scratch"]


def test_a_failure_stops_rows_that_run(tools: Path, tmp_path: Path) -> None:
    (tools / "fail").write_text("scratch_0/vqa")
    (tools / "sleep").write_text("all_0/pretrain")
    started, jobs = time.monotonic(), make_jobs(STUDY, ["all", "scratch"], [0])
    with pytest.raises(UnimoError, match="scratch_0/log.txt"):
        run_jobs(jobs, tmp_path / "out", workers=2)
    assert time.monotonic() - started < 30
    # The training that was stopped has saved itself, and is not finished.
    assert json.loads((tmp_path / "out/all_0/pretrain/summary.json").read_text())["stopped_by"] == "SIGTERM"
    assert len(waiting_stages(jobs[0], tmp_path / "out")) == 4


def test_rows_of_other_settings_are_refused(tools: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_jobs(make_jobs(STUDY, ["all"], [0]), output, workers=1)
    changed = make_jobs(STUDY, ["all", "scratch"], [0], {"pretrain": 11})
    with pytest.raises(
        ConfigError,
        match=r"all_0: pretrain was made with train.max_steps=10, and is train.max_steps=11 now; give",
    ):
        run_jobs(changed, output, workers=1)
    run_jobs(changed[1:], output, workers=1)  # has no pre-training
    assert [each["row"] for each in collect(STUDY, changed[1:], output)] == ["scratch"]


def test_a_broken_record_is_named(tools: Path, tmp_path: Path) -> None:
    jobs = make_jobs(STUDY, ["all"], [0])
    run_jobs(jobs, tmp_path / "out", workers=1)
    (tmp_path / "out" / "all_0" / "row.json").write_text("{")
    with pytest.raises(ConfigError, match=r"all_0/row.json: not valid JSON"):
        run_jobs(jobs, tmp_path / "out", workers=1)


def test_zero_steps_leave_out_a_training_and_its_evaluations(tools: Path, tmp_path: Path) -> None:
    output, short = tmp_path / "out", make_jobs(STUDY, ["all"], [0], {"tune": 0})
    assert list(short[0].stages) == ["pretrain", "zero_shot"]
    run_jobs(short, output, workers=1)
    assert "questions.score" not in collect(STUDY, short, output)[0]
    longer = make_jobs(STUDY, ["all"], [0])
    run_jobs(longer, output, workers=1)
    assert [call[0] for call in calls(tools)] == ["pretrain", "evaluate", "finetune", "evaluate"]
    assert "questions.score" in collect(STUDY, longer, output)[0]
    with pytest.raises(ConfigError, match="--pretrain-steps is 0, expected 1 or more"):
        make_jobs(STUDY, steps={"pretrain": 0})


def test_time_is_estimated_from_steps_and_then_from_finished_rows(tools: Path, tmp_path: Path) -> None:
    jobs = make_jobs(STUDY, ["all"], [0, 1])
    declared = 2 * (10 * 100 + 5 * 20) / 1000
    assert estimate_minutes(STUDY, jobs, [], tmp_path) == pytest.approx(declared)
    finished = [{"row": "all", "minutes": 3.0}, {"row": "all", "minutes": 5.0}]
    assert estimate_minutes(STUDY, jobs, finished, tmp_path) == pytest.approx(8.0)
    unknown = replace(STUDY, steps=(replace(STUDY.steps[0], minutes=None), STUDY.steps[1]))
    assert estimate_minutes(unknown, jobs, [], tmp_path) is None
    assert estimate_minutes(replace(STUDY, default_rows=("scratch",)), jobs, [], tmp_path) is None


KILLED = """import pathlib, runpy, sys
from unimo.studies import runner
runner.TOOLS = pathlib.Path(sys.argv[1])
sys.argv = ["study.py", *sys.argv[2:]]
runpy.run_path({tool!r}, run_name="__main__")
"""


def start(tools: Path, output: Path, root: Path) -> subprocess.Popen[str]:
    """Start `tools/study.py` with the stand-ins."""
    code = KILLED.format(tool=str(root / "tools" / "study.py"))
    rows = ("--rows", "w/o GD", "1-to-1 map", "--seeds", "0", "1", "--jobs", "1")
    words = [sys.executable, "-c", code, str(tools), "unimo2", *rows, "--output", str(output)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_killed_and_run_again_gives_the_same_table(tools: Path, tmp_path: Path, root: Path) -> None:
    unbroken = start(tools, tmp_path / "unbroken", root)
    assert unbroken.communicate(timeout=120) and unbroken.returncode == 0
    (tools / "calls").unlink()
    (tools / "sleep").write_text("wo_GD_1/pretrain")
    killed = start(tools, tmp_path / "killed", root)
    deadline = time.monotonic() + 120
    while "wo_GD_1/pretrain" not in str(calls(tools)[-1:]):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    training = calls(tools)[-1][-1]
    assert is_alive(training)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    while is_alive(training):  # it must not go on beside the next call
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len((tmp_path / "killed" / "table.csv").read_text().splitlines()) == 1 + 2
    (tools / "sleep").unlink()
    again = start(tools, tmp_path / "killed", root)
    printed, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert "finished: 2 of 4 rows and seeds" in printed
    started = [" ".join(map(str, call[:-1])) for call in calls(tools)]
    assert len(started) == 8 + 1 and len(set(started)) == 8  # only what was killed started twice
    tables = [(tmp_path / name / "table.md").read_text() for name in ("unbroken", "killed")]
    assert tables[0] == tables[1]
    rows = [
        without_minutes(list(csv.DictReader((tmp_path / name / "table.csv").open())))
        for name in ("unbroken", "killed")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 4
    assert STUDIES["unimo2"].question in tables[0] and "| w/o GD | **" in tables[0]


def test_rows_of_a_table_are_finished_without_their_folders(tools: Path, tmp_path: Path) -> None:
    jobs, output, moved = make_jobs(STUDY, ["all", "scratch"], [0]), tmp_path / "out", tmp_path / "moved"
    written = []
    run_jobs(jobs, output, 1, lambda: written.append(collect(STUDY, jobs, output)))
    assert [len(each) for each in written] == [1, 2]
    moved.mkdir()
    write_table(written[0], moved)
    assert [bool(waiting_stages(job, moved)) for job in jobs] == [False, True]
    started = len(calls(tools))
    run_jobs(jobs, moved, 1)
    assert len(calls(tools)) - started == len(jobs[1].stages)
    assert without_minutes(collect(STUDY, jobs, moved)) == without_minutes(written[1])


def test_rows_of_a_table_with_other_settings_are_left_out(
    tools: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs, moved = make_jobs(STUDY, ["scratch"], [0]), tmp_path / "moved"
    run_jobs(jobs, tmp_path / "out", 1)
    moved.mkdir()
    write_table(collect(STUDY, jobs, tmp_path / "out"), moved)
    other = make_jobs(STUDY, ["scratch"], [0], {"tune": 6})
    assert collect(STUDY, other, moved) == [] and "other settings" in caplog.text
    assert waiting_stages(other[0], moved)
    run_jobs(other, moved, 1)
    write_table(collect(STUDY, other, moved), moved)
    assert all(len(collect(STUDY, each, moved)) == 1 for each in (jobs, other))


@pytest.mark.parametrize("content", ["row,seed\nall,one\n", "a,b\n1,2\n"])
def test_a_broken_table_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(ConfigError, match=r"table.csv is no table of results .*remove it"):
        collect(STUDY, make_jobs(STUDY), tmp_path)


def test_a_stage_starts_from_the_one_before() -> None:
    stages = (Pretrain("first", overrides=("task.stage=a",)), Pretrain(after="first"))
    study = replace(STUDY, rows=(Row("chained", "toy_tiny", stages, ("model.b=1",)),))
    commands = make_jobs(study, seeds=[0])[0].commands(Path("out"))
    assert commands["first"][-2:] == ["task.stage=a", "model.b=1"]
    assert commands["pretrain"][-2:] == ["init_from=out/chained_0/first/model", "model.b=1"]
