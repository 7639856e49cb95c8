"""The grid on GLUE: its commands, the choice of the best, what a failure costs, and files for the server."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import pytest
from micro import Tool
from test_bad_input import assert_refused

from unimo.inference import evaluation
from unimo.settings import load_run_config
from unimo.studies import runner
from unimo.studies.glue.choice import Cell, by_model, choose, short, table
from unimo.studies.glue.data import SCORES
from unimo.studies.study import Study

# A stand-in of both tools: a training leaves a plan or the folders of a run, and its words make its score.
STAND_IN = """import json, pathlib, sys, zlib
tool, words = pathlib.Path(sys.argv[0]).stem, sys.argv[1:]
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([tool, *words]) + "\\n")
said = " ".join(words)
if (here / "fail").exists() and (here / "fail").read_text() in said:
    sys.exit(2)
if tool == "finetune":
    output = pathlib.Path(next(w.partition("=")[2] for w in words if w.startswith("output_dir=")))
    if "--plan" in words:
        output.mkdir(parents=True, exist_ok=True)
        (output / "plan.json").write_text(json.dumps({"time": {"run_seconds": 600.0}}))
        sys.exit()
    for part in ("best", "model", "checkpoints"):
        (output / part).mkdir(parents=True, exist_ok=True)
        (output / part / "model.safetensors").write_text(said)
else:
    weights = pathlib.Path(words[words.index("--model") + 1], "model.safetensors").read_text()
    score = zlib.crc32(weights.partition(" train.max_steps")[2].encode()) % 1000 / 10
    names = ("accuracy", "accuracy/mean", "f1", "spearman", "matthews")
    print(json.dumps({"metrics": dict.fromkeys(names, score), "split": "val", "selection": "clean"}))
"""
PAIRS = "a\tb\t{}\n"
FILES = {
    "MNLI/train.tsv": "sentence1\tsentence2\tgold_label\n" + PAIRS.format("neutral") * 70,
    "MNLI/dev_matched.tsv": "sentence1\tsentence2\tgold_label\n" + PAIRS.format("neutral"),
    "MNLI/dev_mismatched.tsv": "sentence1\tsentence2\tgold_label\n" + PAIRS.format("entailment") * 2,
    "MNLI/test_matched.tsv": "index\tsentence1\tsentence2\n0\ta\tb\n",
    "MNLI/test_mismatched.tsv": "index\tsentence1\tsentence2\n0\ta\tb\n",
    "RTE/train.tsv": "sentence1\tsentence2\tlabel\n" + PAIRS.format("entailment") * 40,
    "RTE/dev.tsv": "sentence1\tsentence2\tlabel\n" + PAIRS.format("entailment") * 3,
    "MRPC/train.tsv": "#1 String\t#2 String\tQuality\n" + PAIRS.format("1") * 50,
    "MRPC/dev.tsv": "#1 String\t#2 String\tQuality\n" + PAIRS.format("1") + PAIRS.format("0"),
    "STS-B/train.tsv": "sentence1\tsentence2\tscore\n" + PAIRS.format("1.5") * 45,
    "STS-B/dev.tsv": "sentence1\tsentence2\tscore\n" + PAIRS.format("1.5"),
    "WNLI/train.tsv": "sentence1\tsentence2\tlabel\n" + PAIRS.format("1") * 2 + PAIRS.format("0"),
    "WNLI/test.tsv": "index\tsentence1\tsentence2\n0\ta\tb\n1\ta\tb\n",
}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data in `glue`, and stand-ins of the tools."""
    for name, content in FILES.items():
        path = tmp_path / "glue" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("finetune", "evaluate"):
        (folder / f"{name}.py").write_text(STAND_IN)
    monkeypatch.setattr(runner, "TOOLS", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def calls(tools: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tools / "calls").read_text().splitlines()]


def trained(tools: Path) -> list[str]:
    """Folders of the trainings that were started, plans left out."""
    found = [words for words in calls(tools) if words[0] == "finetune" and "--plan" not in words]
    return [word.split("/")[-2] for words in found for word in words if word.startswith("output_dir=")]


def test_the_protocol_as_commands(tool: Tool, tools: Path) -> None:
    code, out, err = tool("study", "glue", "--glue", "glue", "--dry-run", "--model", "unimo3_base")
    assert code == 0, err
    assert "models: unimo3_base (from scratch)" in out
    assert "MNLI 70, STS-B 45, MRPC 50, RTE 40; left out: QQP, QNLI, SST-2, CoLA, WNLI" in out
    assert "48 trainings and 48 evaluations" in out and "up to 10 epochs, ended 3 after the best" in out
    lines = [line.split() for line in out.splitlines() if "finetune.py" in line]
    assert [line[-9].partition("=")[2] for line in lines[:16:4]] == ["rte", "stsb", "mrpc", "mnli"]
    seen = set()
    for line in lines:
        run = load_run_config("unimo3_base", "text_classification", [word for word in line if "=" in word])
        size = {"rte": 40, "stsb": 45, "mrpc": 50, "mnli": 70}[run.task.dataset]
        train, optim = run.train, run.optim
        assert train.max_steps == max(1, round(10 * size / train.batch_size))
        assert train.eval_every == train.save_every == max(1, round(size / train.batch_size))
        assert (train.select_metric, train.patience) == (SCORES[run.task.dataset], 3)
        assert (optim.warmup, optim.weight_decay, optim.betas, optim.eps) == (0.06, 0.1, [0.9, 0.98], 1e-6)
        assert (optim.schedule, run.data.max_text_len, run.task.head) == ("linear", 512, "dense")
        seen.add((run.task.dataset, optim.lr, train.batch_size, run.seed))
    assert len(seen) == len(lines) == 4 * 2 * 2 * 3
    assert {(lr, batch, seed) for _, lr, batch, seed in seen} == {
        (lr, batch, seed) for lr in (1e-5, 2e-5) for batch in (16, 32) for seed in (0, 1, 2)
    }


GRID = ("--glue", "glue", "--tasks", "rte", "mrpc", "--batches", "32", "--seeds", "0", "1", "--output", "out")


def test_a_failure_costs_no_finished_training(tool: Tool, tools: Path) -> None:
    (tools / "fail").write_text("mrpc_1e-05_x_32_1/train")
    code, out, err = tool("study", "glue", *GRID)
    assert code == 2 and "log.txt" in err and "time: at most about 80 minutes" in out
    before = trained(tools)
    (tools / "fail").unlink()
    code, out, err = tool("study", "glue", *GRID)
    assert code == 0, err
    assert "finished: 6 of 8 rows and seeds" in out
    resumed = ["unimo3_tiny_mrpc_1e-05_x_32_1", "unimo3_tiny_mrpc_2e-05_x_32_1"]
    assert trained(tools)[len(before) :] == resumed
    plans = [words for words in calls(tools) if "--plan" in words]
    assert len(plans) == 2  # one for each task, made once
    code, out, _ = tool("study", "glue", *GRID)
    assert code == 0 and "finished: 8 of 8" in out and len(trained(tools)) == len(before) + 2

    with open("out/table.csv", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    means = {}
    for row in rows:
        score = row["dev.accuracy" if " rte " in row["row"] else "dev.f1"]
        means.setdefault(row["row"], []).append(float(score))
    best = {
        task: max((row for row in means if f" {task} " in row), key=lambda row: sum(means[row]))
        for task in ("rte", "mrpc")
    }
    with open("out/best.csv", encoding="utf8") as file:
        chosen = list(csv.DictReader(file))
    assert [float(row["rte.accuracy"]) for row in chosen] == means[best["rte"]]
    assert [f"unimo3_tiny mrpc {row['mrpc.setting']}" for row in chosen] == [best["mrpc"]] * 2
    for row in chosen:
        mean = (float(row["rte.accuracy"]) + float(row["mrpc.f1"])) / 2
        assert float(row["average"]) == pytest.approx(mean)
    text = Path("out/table.md").read_text(encoding="utf8")
    assert "| model | MRPC 50 | RTE 40 | average |" in text
    assert "Chance: MRPC 50 66.6667; RTE 40 100." in text and Path("out/table.png").is_file()
    # Of each task the model with the best score is left, and no checkpoint.
    tops = {
        task: max(v for row, found in means.items() if f" {task} " in row for v in found) for task in best
    }
    left = [path.parent.parent.name for path in Path("out").glob("*/train/best")]
    assert len(left) == 2 and not list(Path("out").glob("*/train/checkpoints"))
    for row in rows:
        score = float(row["dev.accuracy" if " rte " in row["row"] else "dev.f1"])
        folder = f"{row['row'].replace(' ', '_')}_{row['seed']}"
        assert (folder in left) == (score in tops.values())


def test_the_best_cell_is_that_of_the_best_mean_among_whole_ones() -> None:
    cells = [Cell("m", "rte", "accuracy", rate, 16) for rate in (1e-5, 2e-5, 3e-5)]
    scores = {(1e-5, 0): 80.0, (1e-5, 1): 60.0, (2e-5, 0): 72.0, (2e-5, 1): 71.0, (3e-5, 0): 99.0}
    results = [
        {
            "row": f"m rte {rate:g} x 16",
            "seed": seed,
            "split": "val",
            "selection": "clean",
            "dev.accuracy": score,
        }
        for (rate, seed), score in scores.items()
    ]
    chosen = choose(cells, results)
    cell, own = chosen["m", "rte"]
    assert cell.rate == 2e-5 and [result["seed"] for result in own] == [0, 1]
    study = Study("glue", "?", "-", (), (), (table({"rte": "accuracy"}, {"rte": 2490}, {"rte": 50.0}),), "")
    shown, lines = by_model(study, chosen)
    assert [row.name for row in shown.rows] == ["m"]
    assert [line["rte.accuracy"] for line in lines] == [72.0, 71.0] and "average" not in lines[0]
    assert shown.columns["rte.accuracy"].title == "RTE 2.5k"


@pytest.mark.parametrize(("count", "shown"), [(392_702, "392k"), (8_551, "8.6k"), (999, "999")])
def test_sizes_as_in_table_3(count: int, shown: str) -> None:
    assert short(count) == shown


def test_files_for_the_server(tool: Tool, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def write(path: Path, found: tuple[str, str, str]) -> None:
        asked.append((path.name, *found[1:]))
        path.write_text("index\tprediction\n0\t1\n")

    monkeypatch.setattr(
        evaluation, "evaluate", lambda model, split, overrides: (str(model), split, *overrides)
    )
    monkeypatch.setattr(evaluation, "write_predictions", write)
    grid = ("--glue", "glue", "--tasks", "rte", "mnli", "--rates", "1e-5", "--batches", "32", "--seeds", "0")
    code, out, err = tool("study", "glue", *grid, "--output", "out", "--server")
    assert code == 0, err
    assert asked == [
        ("MNLI-m.tsv", "test_matched", "task.dataset=mnli"),
        ("MNLI-mm.tsv", "test_mismatched", "task.dataset=mnli"),
    ]
    absent = "CoLA.tsv, SST-2.tsv, MRPC.tsv, STS-B.tsv, QQP.tsv, QNLI.tsv, RTE.tsv, AX.tsv, WNLI.tsv (--wnli-"
    assert f"it wants these too: {absent}" in out
    code, out, err = tool("study", "glue", *grid, "--output", "out", "--server", "--wnli-majority")
    assert code == 0 and len(asked) == 2, err  # nothing is computed twice
    with zipfile.ZipFile("out/server/unimo3_tiny.zip") as archive:
        assert archive.namelist() == ["MNLI-m.tsv", "MNLI-mm.tsv", "WNLI.tsv"]
        assert archive.read("WNLI.tsv") == b"index\tprediction\n0\t1\n1\t1\n"


def test_mistakes_train_nothing(tool: Tool, tools: Path) -> None:
    def refused(*words: str) -> tuple[int, str, str]:
        result = tool("study", "glue", *words)
        assert not (tools / "calls").exists() and not Path("output").exists()
        return result

    assert_refused(refused("--glue", "nowhere"), "--glue nowhere: no folder of a task; expected some of MNLI")
    assert_refused(refused("--glue", "nowhere", "--tasks", "rte"), "no folder", "nowhere")
    assert_refused(refused("--glue", "glue", "--model", "unimo9_base"), "no model directory at unimo9_base")
    assert_refused(refused("--model", "semvlp_tiny"), "no text_classification recipe 'semvlp_tiny'")
    assert_refused(refused("--server"), "--server answers GLUE's own test files", "--glue DIR")
    assert_refused(refused("--wnli-majority"), "give both")
    code, _, err = refused("--tasks", "wnli")
    assert code == 2 and "invalid choice: 'wnli'" in err
    Path("glue/RTE/dev.tsv").unlink()
    assert_refused(refused("--glue", "glue"), "RTE has no split 'val' of GLUE files; found: train.tsv")
    Path("glue/RTE/train.tsv").write_text("sentence1\tsentence2\tlabel\na\tb\tyes\n")
    assert_refused(refused("--glue", "glue"), "RTE/train.tsv, line 2: unknown label 'yes'")
    Path("glue/RTE/train.tsv").write_text("sentence1\tsentence2\tlabel\n")
    assert_refused(refused("--glue", "glue"), "RTE/train.tsv has no samples")
