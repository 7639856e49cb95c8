"""The quickstart: what `--minutes` measures and chooses, and what is printed at the end."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from unimo.errors import ConfigError, UnimoError
from unimo.studies import quickstart
from unimo.studies.budget import LEAST_STEPS, TIMED_STEPS, Pace, fit, keep_choice, kept_choice, read_pace
from unimo.studies.quickstart import Quickstart

RECIPE = {"pretrain": 1500, "vqa": 1800}


def test_pace_of_a_timed_run_leaves_out_its_slow_first_steps(tmp_path):
    rows = [{"split": "train", "step_seconds": 5.0 if step < 3 else 0.5} for step in range(9)]
    rows.append({"split": "val", "overall": 1.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_pace(25.0, tmp_path) == Pace(step=0.5, rest=7.0)


@pytest.mark.parametrize("seconds", [120, 300, 600])
def test_steps_keep_the_proportion_of_the_recipes_and_fill_the_time(seconds):
    paces = {"pretrain": Pace(0.4, 10.0), "vqa": Pace(0.2, 12.0)}
    steps = fit(paces, RECIPE, seconds)
    taken = sum(pace.rest + pace.step * steps[name] for name, pace in paces.items())
    assert seconds - 1 < taken <= seconds
    assert steps["pretrain"] / steps["vqa"] == pytest.approx(1500 / 1800, abs=0.01)


def test_steps_never_exceed_the_recipes_and_never_fall_below_a_handful():
    paces = {"pretrain": Pace(0.4, 10.0), "vqa": Pace(0.2, 12.0)}
    assert fit(paces, RECIPE, 1e6) == RECIPE
    assert fit(paces, RECIPE, 5) == dict.fromkeys(RECIPE, LEAST_STEPS)
    assert fit(paces, {"pretrain": 1500, "vqa": 4}, 5)["vqa"] == 4


def test_a_choice_is_kept_for_the_same_limit_and_others_are_refused(tmp_path):
    assert kept_choice(tmp_path, 5.0) == {}
    keep_choice(tmp_path, 5.0, {"pretrain": 100, "vqa": 120})
    assert kept_choice(tmp_path, 5.0) == {"pretrain": 100, "vqa": 120}
    with pytest.raises(ConfigError, match="begun with other --minutes; give another --output"):
        kept_choice(tmp_path, 6.0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Words of every tool that is called; trainings write what a timed run writes."""
    called: list[list[str]] = []

    def command(_: Quickstart, tool: str, *words: object, capture: bool = False) -> str:
        called.append([tool, *map(str, words)])
        folder = next((Path(str(w).partition("=")[2]) for w in words if "output_dir=" in str(w)), None)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            rows = [{"split": "train", "step_seconds": 1e-6}] * TIMED_STEPS
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return json.dumps({"metrics": {"overall": 50.0}, "split": "val", "selection": "clean"})

    monkeypatch.setattr(Quickstart, "command", command)
    return called


def steps_of(calls: list[list[str]]) -> list[list[str]]:
    return [[word for word in words if word.startswith("train.max_steps")] for words in calls]


def test_without_a_limit_the_recipes_decide(calls, tmp_path, capsys):
    Quickstart(tmp_path / "out", print, overrides=["seed=1"]).run()
    assert [words[0] for words in calls] == [
        "pretrain.py", "finetune.py", "evaluate.py", "evaluate.py", "predict.py",
    ]  # fmt: skip
    assert not any(steps_of(calls)) and (tmp_path / "out" / "picture.png").is_file()
    assert "minutes: pre-training 0.0, fine-tuning 0.0, everything 0.0" in capsys.readouterr().out


def test_with_a_limit_both_trainings_are_measured_first_and_only_once(calls, tmp_path):
    Quickstart(tmp_path / "out", print, minutes=60).run()
    trained = [words[0] for words in calls if words[0] in ("pretrain.py", "finetune.py")]
    assert trained == ["pretrain.py", "finetune.py"] * 2
    few = [f"train.max_steps={TIMED_STEPS}"]
    assert steps_of(calls)[:4] == [few, few, ["train.max_steps=1500"], ["train.max_steps=1800"]]
    assert not (tmp_path / "out" / "measured").exists()
    calls.clear()
    Quickstart(tmp_path / "out", print, minutes=60).run()
    assert steps_of(calls)[:2] == [["train.max_steps=1500"], ["train.max_steps=1800"]]


def test_a_limit_and_a_number_of_steps_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match="--minutes chooses train.max_steps; give one of the two"):
        Quickstart(tmp_path, print, minutes=5, overrides=["train.max_steps=3"]).run()


def test_what_is_printed_as_the_next_commands_can_be_typed(calls, tmp_path, capsys, root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setenv("VIRTUAL_ENV", "elsewhere")
    output = Path(os.path.relpath(tmp_path / "out"))
    Quickstart(output, print).run()
    lines = capsys.readouterr().out.rpartition("next:\n")[2].splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    if sys.prefix != sys.base_prefix:
        assert words.pop(0)[0] == "source"
    assert [line[:2] for line in words[:3]] == [
        ["python", f"tools/{name}.py"] for name in ("predict", "finetune", "prepare_data")
    ]
    assert all((root / line[1]).is_file() for line in words[:3])
    options = ("--model", "--init", "--image")
    for line in words[:2]:  # what they read is what the trainings were told to write
        named = {line[line.index(option) + 1] for option in options if option in line}
        made = {word.partition("=")[2] for call in calls for word in call if "output_dir=" in word}
        assert named <= made | {str(output / "picture.png")}


def test_a_failed_command_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "TOOLS", tmp_path)
    (tmp_path / "pretrain.py").write_text("raise SystemExit(2)")
    with pytest.raises(UnimoError, match="tools/pretrain.py ended with code 2"):
        Quickstart(tmp_path / "out", print).run()
