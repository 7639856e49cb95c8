"""Classification and zero-shot as a person uses them: from files to a figure, and what wrong input says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from micro import VALUES, Tool, saved, words
from micro_unimo2 import MODEL
from test_bad_input import assert_refused, jpeg

from unimo.data.scenes.dataset import SceneShapes
from unimo.weights.files import read_safetensors

SMALL = words({**VALUES, "model": MODEL})


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sst2(train: str = "red\t1\nblue\t0\n" * 8) -> str:
    """A folder of SST-2 files."""
    Path("SST-2").mkdir(exist_ok=True)
    Path("SST-2/train.tsv").write_text("sentence\tlabel\n" + train)
    Path("SST-2/dev.tsv").write_text("sentence\tlabel\nthere is red\t1\nthere is blue\t0\nblue\t0\n")
    return "SST-2"


def pictures() -> str:
    """An ImageFolder tree of two classes."""
    for split, count in (("train", 8), ("val", 2)):
        for seed, name in enumerate(("cat", "dog")):
            folder = Path("tree", split, name)
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.jpg").write_bytes(jpeg(10 * number + seed))
    return "tree"


def finetune(tool: Tool, task: str, *arguments: object) -> tuple[int, str, str]:
    start = ("--model", "unimo2_tiny", "--init", "none")
    return tool("finetune", "--task", task, *start, *SMALL, "output_dir=out", *arguments)


def evaluate(tool: Tool, task: str, model: str | Path, *arguments: object) -> dict:
    code, out, err = tool("evaluate", "--task", task, "--model", model, *arguments)
    assert code == 0, err
    return json.loads(out)


def test_sst2_from_scratch(tool: Tool) -> None:
    code, _, err = finetune(tool, "text_classification", f"data.path={sst2()}")
    assert code == 0, err
    assert json.loads(Path("out/summary.json").read_text())["model"] == "unimo2_tiny"
    result = evaluate(tool, "text_classification", "out", "--predictions", "said.json")
    assert result["samples"] == 3 and result["metrics"]["majority"] == pytest.approx(200 / 3)
    assert {row["label"] for row in json.loads(Path("said.json").read_text())} <= {"negative", "positive"}
    code, out, err = tool("predict", "--model", "out", "--text", "a fine film", "--json")
    assert code == 0, err
    ranked = json.loads(out)["answers"]["a fine film"]
    assert {row["answer"] for row in ranked} == {"negative", "positive"}
    assert sum(row["probability"] for row in ranked) == pytest.approx(1, abs=1e-5)
    code, _, err = tool("predict", "--model", "out", "--text", "a film", "--text-pair", "another")
    assert code == 2 and "sst2 has 1 text(s)" in err


def test_files_for_the_server_of_glue(tool: Tool) -> None:
    """Test files have no labels; both of MNLI, and the diagnostic set, are answered by one model."""
    Path("glue/MNLI").mkdir(parents=True)
    for name, count in (("test_matched", 3), ("test_mismatched", 2), ("diagnostic", 1)):
        rows = "".join(f'{row}\ta red "circle\t a circle\n' for row in range(count))
        Path(f"glue/MNLI/{name}.tsv").write_text(f"index\tsentence1\tsentence2\n{rows}")
    saved("text_classification", Path("out"), model=MODEL, task={"dataset": "mnli"})
    asked = ("text_classification", "out", "data.path=glue", "--predictions")
    for name, split, count in (("MNLI-m", "test_matched", 3), ("MNLI-mm", "test_mismatched", 2)):
        found = evaluate(tool, *asked, f"{name}.tsv", "--split", split)
        assert (found["samples"], found["metrics"]) == (count, {})
        lines = Path(f"{name}.tsv").read_text().splitlines()
        assert len(lines) == 1 + count and lines[0] == "index\tprediction"
    assert evaluate(tool, *asked, "AX.tsv", "--split", "test", "task.dataset=ax")["samples"] == 1
    assert Path("AX.tsv").read_text().splitlines()[1].split("\t")[1] in {
        "entailment", "neutral", "contradiction",
    }  # fmt: skip
    result = tool("evaluate", "--model", "out", *asked[2:], "both.tsv", "--split", "test")
    assert_refused(result, "5 samples have 3 indices", "--split test_matched")


def test_image_folder_then_linear_probe(tool: Tool) -> None:
    data = f"data.path={pictures()}"
    code, _, err = finetune(tool, "image_classification", data)
    assert code == 0, err
    assert evaluate(tool, "image_classification", "out")["metrics"]["majority"] == 50.0
    code, _, err = tool(
        "finetune", "--task", "image_classification", "--init", "out", data, "task.protocol=linear",
        "output_dir=probe", "train.max_steps=2", "train.batch_size=8", "train.device=cpu",
    )  # fmt: skip
    assert code == 0, err
    assert evaluate(tool, "image_classification", "probe")["samples"] == 4
    Path("p.jpg").write_bytes(jpeg(3))
    code, out, err = tool("predict", "--model", "probe", "--image", "p.jpg", "--json")
    assert code == 0, err
    ranked = json.loads(out)["answers"]["class"]
    assert len(ranked) == 2 and ranked[0]["probability"] >= ranked[1]["probability"]


def test_zero_shot_and_prediction(tool: Tool) -> None:
    model = saved("pretrain", Path("pre"), model=MODEL)
    found = evaluate(tool, "retrieval", model, "--zero-shot", "data.scenes.val_images=3")
    assert found["zero_shot"] is True and found["task"] == "retrieval" and "tr_r10" in found["metrics"]
    Path("labels.txt").write_text("a cat\na dog\n")
    options = (
        "--zero-shot",
        "--labels",
        "labels.txt",
        "--prompt",
        "there is {} .",
        f"data.path={pictures()}",
    )
    found = evaluate(tool, "image_classification", model, *options)
    assert found["samples"] == 4 and found["data"] == ["tree"]
    Path("p.bmp").write_bytes(SceneShapes("val")[0].image)
    labels = ("--labels", "circle, square ,cross", "--prompt", "a {}")
    code, out, err = tool("predict", "--model", model, "--image", "p.bmp", *labels, "--top-k", 2, "--json")
    assert code == 0, err
    ranked = json.loads(out)["answers"]["a {}"]
    assert len(ranked) == 2 and ranked[0]["probability"] >= ranked[1]["probability"] > 0


def test_glue_files_that_cannot_be_used(tool: Tool) -> None:
    data = "data.path=" + sst2("red\tperhaps\nblue\tmaybe\n")
    result = finetune(tool, "text_classification", data)
    assert_refused(result, "SST-2/train.tsv, line 2", "unknown label 'perhaps'", "expected 0, 1")
    result = finetune(tool, "text_classification", data, "task.dataset=mnli")
    assert_refused(result, "SST-2/train.tsv, line 1", "no column sentence1", "found: sentence, label")
    Path("SST-2/train.tsv").write_text("sentence\tlabel\n")
    assert_refused(finetune(tool, "text_classification", data), "SST-2/train.tsv has no samples")
    Path("SST-2/train.tsv").write_text("sentence\tlabel\nred\t1\tone\tmore\n")
    assert_refused(finetune(tool, "text_classification", data), "line 2: 4 columns, expected 2")
    Path("SST-2/train.tsv").write_text("red\t1\n")
    Path("SST-2/dev.tsv").unlink()
    chosen = ("train.select_metric=accuracy", "train.eval_every=1", "train.patience=3")
    result = finetune(tool, "text_classification", data, *chosen)
    assert_refused(result, "SST-2 has no split 'val' of GLUE files; found: train.tsv")
    result = finetune(tool, "text_classification", data, *chosen[:1], *chosen[2:])
    assert_refused(result, "train.patience=3 needs train.eval_every")
    result = finetune(tool, "text_classification", data, "task.dataset=sst3")
    assert_refused(result, "task.dataset: 'sst3' is not one of sst2, mnli, cola, stsb")


def test_labels_files_that_cannot_be_used(tool: Tool) -> None:
    model = saved("pretrain", Path("pre"))
    zero_shot = ("evaluate", "--task", "image_classification", "--zero-shot", "--model", model)
    for content, said in (("", "is empty"), ("cat\ndog\ncat\n", "line 3: 'cat' stands there already")):
        Path("labels.txt").write_text(content)
        assert_refused(tool(*zero_shot, "--labels", "labels.txt"), "labels file labels.txt", said)
    assert_refused(tool(*zero_shot, "--prompt", "a photo"), "prompt 'a photo'", "expected one {}")
    assert_refused(tool(*zero_shot[:3], "--model", model, "--labels", "l.txt"), "go with --zero-shot")
    Path("p.jpg").write_bytes(jpeg())
    ask = ("predict", "--model", model, "--image", "p.jpg")
    assert_refused(tool(*ask, "--labels", "cat,cat"), "'cat' stands there already")
    assert_refused(tool(*ask, "--labels", "cat,dog", "--text", "a cat"), "give one of", "--labels")


def test_classes_of_another_data_set(tool: Tool) -> None:
    model = saved("image_classification", Path("tuned"), model=MODEL)
    result = tool("evaluate", "--model", model, f"data.path={pictures()}")
    assert_refused(result, "tree has 2 classes that the model does not know: cat, dog")
    result = tool("evaluate", "--task", "image_classification", "--model", model, "data.path=nowhere")
    assert_refused(result, "no folder", "nowhere", "CIFAR")


def test_models_that_need_both(tool: Tool) -> None:
    result = tool("finetune", "--task", "text_classification", "--model", "semvlp_tiny", "--init", "none")
    assert_refused(result, "semvlp_tiny", "unimo_tiny")


@pytest.mark.parametrize(
    "task", ["text_classification", pytest.param("image_classification", marks=pytest.mark.slow)]
)
def test_two_ranks_train_as_one_although_a_tower_stands_still(tool: Tool, root: Path, task: str) -> None:
    steady = ("model.text.dropout=0", "model.text.attention_dropout=0", "model.fusion.dropout=0")
    steady += ("model.fusion.attention_dropout=0", "task.head_dropout=0", "optim.schedule=constant")
    assert finetune(tool, task, *steady, "output_dir=one")[0] == 0
    # Stopped after two steps and run again: the state of all that learns, and of nothing else, is there.
    assert finetune(tool, task, *steady, "train.max_steps=2", "output_dir=again")[0] == 0
    assert finetune(tool, task, *steady, "output_dir=again")[0] == 0
    words = ("--task", task, "--model", "unimo2_tiny", "--init", "none", *SMALL, *steady, "output_dir=two")
    done = subprocess.run(
        [sys.executable, "-m", "unimo.training.launch", str(root / "tools/finetune.py"), *words],
        env={**os.environ, "NPROC_PER_NODE": "2", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, again, two = (
        read_safetensors(Path(f"{run}/model/model.safetensors")) for run in ("one", "again", "two")
    )
    for name, value in one.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
        np.testing.assert_allclose(two[name], value, atol=2e-4, err_msg=name)
