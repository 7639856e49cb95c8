"""One door a paper, one door a task: a sixth paper and a task of its own go through every command.

Both lie in `tests/support/` (`toy_paper/`, `toy_task.py`); the library knows them by one line of its registry
each.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from micro import Tool
from paddle_launch import run_ranks
from PIL import Image

import unimo
from unimo import registry
from unimo.inference.loading import load_task
from unimo.weights.files import read_safetensors

RECIPE = Path(__file__).resolve().parent / "support" / "toy_recipe.yaml"


@pytest.fixture(autouse=True)
def one_line_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(registry.PAPERS, "toy", "toy_paper")
    monkeypatch.setitem(registry.TASKS, "length", "toy_task")
    monkeypatch.chdir(tmp_path)


def losses(folder: str, name: str = "loss") -> list[float]:
    rows = map(json.loads, Path(folder, "metrics.jsonl").read_text(encoding="utf8").splitlines())
    return [row[name] for row in rows if name in row]


def pretrain(tool: Tool, *words: str) -> None:
    code, _, err = tool("pretrain", RECIPE, "task.name=pretrain", *words)
    assert code == 0, err


def finetune(tool: Tool, task: str, recipe: object, init: str, *words: str) -> None:
    code, _, err = tool("finetune", "--task", task, "--model", recipe, "--init", init, *words)
    assert code == 0, err


def test_a_sixth_paper_and_a_new_task_from_pretraining_to_an_answer(tool: Tool) -> None:
    assert "toy_tiny" in unimo.list_models()
    pretrain(tool, "output_dir=pre")
    assert len(losses("pre", "mlm")) == len(losses("pre", "itm")) == 6
    code, out, err = tool("evaluate", "--task", "pretrain", "--model", "pre")
    assert code == 0, err
    assert {"mlm_accuracy", "itm_accuracy"} <= set(json.loads(out)["metrics"])

    code, _, err = tool(
        "finetune", "--task", "length", "--model", RECIPE, "--init", "pre", "output_dir=tuned"
    )
    assert code == 0, err
    before, after = (read_safetensors(Path(name, "model/model.safetensors")) for name in ("pre", "tuned"))
    assert {name for name in after if name.startswith("model.")} <= set(before)
    assert losses("tuned", "length")[-1] < losses("tuned", "length")[0]

    code, out, err = tool("evaluate", "--task", "length", "--model", "tuned", "--predictions", "rows.json")
    assert code == 0, err
    assert 0 <= json.loads(out)["metrics"]["accuracy"] <= 100 and json.loads(out)["samples"] == 24
    assert {row["length"] for row in json.loads(Path("rows.json").read_text())} <= {"short", "long"}

    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("p.png")
    ask = ("predict", "--model", "tuned", "--image", "p.png")
    code, out, err = tool(*ask, "--text", "a red circle .", "--json")
    assert code == 0, err
    answers = json.loads(out)["answers"]["a red circle ."]
    assert sum(row["probability"] for row in answers) == pytest.approx(1, abs=1e-5)
    assert tool(*ask, "--question", "what ?")[0] == 2


def test_papers_and_tasks_that_are_there_take_the_new_ones(tool: Tool) -> None:
    """The task runs on a paper of the library, tasks of the library on the new paper."""
    finetune(tool, "vqa", RECIPE, "none", "train.max_steps=1", "output_dir=vqa")
    assert type(load_task("vqa")[0].model).__name__ == "Bags"
    small = RECIPE.read_text(encoding="utf8").replace("toy_tiny", "unimo3_tiny")
    Path("length.yaml").write_text(small.replace("image_size: 32", "image_size: 64"), encoding="utf8")
    finetune(tool, "length", "length.yaml", "none", "train.max_steps=1", "output_dir=length")
    assert type(load_task("length")[0].model).__name__ == "Unimo3"
    code, _, err = tool("finetune", "--task", "caption", "--model", RECIPE, "--init", "none")
    assert code == 2 and "needs generation" in err and "toy_tiny" in err


def test_saved_and_resumed_equals_unbroken(tool: Tool) -> None:
    pretrain(tool, "output_dir=whole")
    pretrain(tool, "output_dir=part", "train.max_minutes=0")
    assert len(losses("part")) < 6
    pretrain(tool, "output_dir=part")
    assert losses("part") == losses("whole")
    saved = [read_safetensors(Path(name, "model/model.safetensors")) for name in ("whole", "part")]
    assert all(np.array_equal(saved[0][name], saved[1][name]) for name in saved[0])


def test_two_ranks_pretrain_finetune_and_evaluate_as_one(tool: Tool, tmp_path: Path) -> None:
    def on_two(folder: str, *words: str) -> None:
        code = run_ranks(2, tmp_path / folder, words, script="toy_tool.py")
        assert code == 0, (tmp_path / folder / "launcher.log").read_text()[-3000:]

    on_two("pre", "pretrain", str(RECIPE), "task.name=pretrain")
    assert json.loads(Path("pre/summary.json").read_text())["ranks"] == 2 and len(losses("pre")) == 6
    start = ("finetune", "--task", "length", "--model", str(RECIPE), "--init", str(tmp_path / "pre"))
    on_two("tuned", *start)
    about = ("evaluate", "--task", "length", "--model", str(tmp_path / "tuned"), "--predictions")
    on_two("score", *about, str(tmp_path / "two.json"))
    code, _, err = tool(*about, "one.json")
    assert code == 0, err
    assert json.loads(Path("two.json").read_text()) == json.loads(Path("one.json").read_text())
