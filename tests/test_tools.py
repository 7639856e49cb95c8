"""The tools as a person uses them: pre-train, fine-tune, evaluate, predict; and what wrong input says.

They run inside this process, which has Paddle loaded already; what needs a fresh one starts one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from micro import Tool, saved, words

from unimo.inference.evaluation import evaluate


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the tests of this file share: later ones use what earlier ones made."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture
def picture(workplace: Path) -> Path:
    """A held-out scene as a file."""
    from unimo.data.scenes.dataset import ScenesDataset

    path = workplace / "picture.bmp"
    path.write_bytes(ScenesDataset("vqa", "test")[0].image)
    return path


def settings() -> list[str]:
    """Overrides of a small run; the model's are left to pre-training."""
    return [word for word in words() if not word.startswith("model.")]


@pytest.fixture
def tuned(tool: Tool, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Model directory of a VQA run that followed a pre-training run."""
    monkeypatch.chdir(workplace)
    directory = Path("output/unimo3_tiny_vqa/model")
    if not directory.is_dir():
        code, out, _ = tool("pretrain", "unimo3_tiny", *words())
        assert code == 0 and "mlm_loss" in out
        code, out, err = tool("finetune", "--task", "vqa", *settings())
        assert code == 0, err
        assert "init_from=output/unimo3_tiny_pretrain/model" in out
    return directory


def test_fine_tuning_starts_from_the_latest_pretrained_model(tuned: Path) -> None:
    summary = json.loads((tuned.parent / "summary.json").read_text())
    assert summary["step"] == 3 and summary["task"] == "vqa"
    assert {path.name for path in tuned.iterdir()} == {
        "config.yaml", "model.safetensors", "tokenizer.json", "metrics.json",
    }  # fmt: skip


def test_evaluate_prints_one_json_object(tool: Tool, tuned: Path) -> None:
    code, out, _ = tool("evaluate", "--task", "vqa", "--model", tuned, "--split", "val")
    result = json.loads(out)
    assert code == 0 and len(out.splitlines()) == 1
    protocol = {"selection": "clean", "split": "val", "train_split": "train"}
    assert {**result["metrics"], **protocol} == json.loads((tuned / "metrics.json").read_text())
    assert {name: result[name] for name in protocol} == protocol
    assert (result["samples"], result["data"], result["split"]) == (18, ["scenes"], "val")


def test_evaluate_without_seeing_and_with_predictions(tool: Tool, tuned: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.json"
    code, out, _ = tool("evaluate", "--blank-images", "--predictions", file, "data.scenes.val_images=2")
    assert code == 0 and json.loads(out)["blank_images"] is True
    assert [row["question_id"] for row in json.loads(file.read_text())] == list(range(12))


def test_predict_prints_ranked_answers_and_saves_a_picture(tool: Tool, tuned: Path, picture: Path) -> None:
    question = "what color is the circle ?"
    options = ("--image", picture, "--question", question, "--top-k", 3, "--save", "o.png")
    code, out, _ = tool("predict", "--model", tuned, *options)
    lines = out.splitlines()
    assert code == 0 and lines[0] == question and len(lines) == 4
    assert len({line.index("%") for line in lines[1:]}) == 1
    chances = [float(line.split()[-1].rstrip("%")) for line in lines[1:]]
    assert chances == sorted(chances, reverse=True)
    assert Path("o.png").read_bytes()[1:4] == b"PNG"


def test_predict_as_json_for_several_questions(tool: Tool, tuned: Path, picture: Path) -> None:
    asked = ["how many objects are there ?", "what color is the circle ?"]
    options = [word for question in asked for word in ("--question", question)]
    code, out, _ = tool("predict", "--model", tuned, "--image", picture, "--json", *options)
    answers = json.loads(out)["answers"]
    assert code == 0 and list(answers) == asked
    assert all(len(rows) == 5 and 0 < rows[0]["probability"] < 1 for rows in answers.values())


@pytest.mark.parametrize("task", ["entailment", "retrieval"])
def test_other_tasks_from_the_same_pretraining(tool: Tool, tuned: Path, picture: Path, task: str) -> None:
    init = tuned.parent.parent / "unimo3_tiny_pretrain"
    code, out, err = tool("finetune", "--task", task, "--init", init, *settings(), "train.max_steps=1")
    assert code == 0, err
    code, out, _ = tool("evaluate", "--task", task)
    metrics = json.loads(out)["metrics"]
    assert code == 0 and ("rsum" if task == "retrieval" else "accuracy") in metrics
    about = ("--model", f"output/unimo3_tiny_{task}", "--image", picture)
    code, out, _ = tool("predict", *about, "--text", "there is a red circle .")
    assert code == 0 and "%" in out
    code, _, err = tool("predict", *about, "--question", "x")
    assert code == 2 and "--task vqa" in err
    code, _, err = tool("predict", *about)
    assert code == 2 and "nothing was asked" in err and "--text" in err
    code, _, err = tool("predict", *about[:2], "--text", "there is a red circle .")
    assert code == 2 and "--image FILE" in err


def test_from_scratch_with_a_warning_when_nothing_is_pretrained(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = tool("finetune", "--task", "vqa", "--dry-run", *words())
    assert code == 0 and "no pre-trained unimo3_tiny in output/: starting from scratch" in caplog.text
    assert "name: unimo3_tiny" in out and "hidden_size: 16" in out
    code, out, _ = tool("finetune", "--task", "seq2seq", "--model", "unimo_base_coqa", "--dry-run")
    assert code == 0 and "name: unimo_base\n" in out and "- coqa\n" in out
    code, out, _ = tool("finetune", "--task", "retrieval", "--model", "meter_tiny", "--dry-run")
    assert code == 0 and "name: meter_tiny" in out and "link_range: none" in out


@pytest.mark.parametrize("task", [pytest.param("vqa", marks=pytest.mark.slow), "retrieval"])
def test_two_ranks_give_the_figures_of_one(root: Path, tmp_path: Path, task: str) -> None:
    directory = saved(task, tmp_path)
    whole = evaluate(directory, "val")
    command = [sys.executable, "-m", "unimo.training.launch", root / "tools/evaluate.py"]
    command += ["--model", directory, "--predictions", tmp_path / "rows.json"]
    environ = {**os.environ, "NPROC_PER_NODE": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert result["metrics"] == pytest.approx(whole.metrics)
    assert result["samples"] == whole.samples
    assert json.loads((tmp_path / "rows.json").read_text()) == whole.records


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("finetune", ["--task", "vqaa"], "nearest: vqa"),
        ("finetune", ["--task", "vqa", "--model", "unimo3_tinny"], "nearest: unimo3_tiny"),
        ("finetune", ["--task", "vqa", "--init", "nowhere"], "no model directory at nowhere"),
        ("finetune", ["--task", "vqa", "train.max_stepz=1"], "nearest: max_steps"),
        ("finetune", ["--task", "vqa", "train.max_steps"], "key=value"),
        ("evaluate", ["--task", "captoin"], "unknown task"),
        ("evaluate", ["--task", "vqa", "--model", "nowhere"], "no model directory at nowhere"),
        ("evaluate", ["--task", "vqa"], "no vqa model in output/"),
        ("predict", ["--model", "nowhere", "--image", "x.png", "--question", "x"], "no model directory"),
        ("predict", ["--model", "nowhere", "--image", "x.png"], "no model directory"),
        ("predict", ["--model", "nowhere", "--image", "x", "--text", "x", "--top-k", "0"], "--top-k 0"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = tool(name, *arguments)
    assert code == 2 and out == ""
    assert message in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("image", "message"),
    [(b"", "empty"), (b"not an image", "cannot be opened"), (None, "No such file")],
)
def test_unreadable_image(tool: Tool, tuned: Path, tmp_path: Path, image: bytes | None, message: str) -> None:
    path = tmp_path / "image.jpg"
    if image is not None:
        path.write_bytes(image)
    code, _, err = tool("predict", "--model", tuned, "--image", path, "--question", "what is it ?")
    assert code == 2 and message in err and "image.jpg" in err


@pytest.mark.parametrize("name", ["finetune", "evaluate", "predict"])
def test_help_has_an_example_and_does_not_wait_for_paddle(root: Path, name: str) -> None:
    code = (
        "import runpy, sys, contextlib\n"
        f"sys.argv = ['{name}', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    runpy.run_path('tools/{name}.py', run_name='__main__')\n"
        "assert 'paddle' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"example:\n  python tools/{name}.py" in done.stdout
