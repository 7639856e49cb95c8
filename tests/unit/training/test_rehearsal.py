"""`--dry-run` checks what a run names, says it, and writes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from micro import Tool, saved, words

from unimo.config import read_yaml

RUN = ["unimo3_tiny", *words(), "--dry-run"]
UNIMO = ["unimo_tiny", "--dry-run"]
VQA = ["--task", "vqa", *words(), "--dry-run", "--init", "none"]
RETRIEVAL = ["--task", "retrieval", *VQA[2:]]
SHAPES = ["--task", "image_classification", *VQA[2:]]
CLASSES = {"new": ("train/cat", "train/dog", "val/cat", "val/fox"), "void": ("train/cat", "val/cat")}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_image: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, text in {"photos": "a red circle", "odd": "un chien court"}.items():
        Path(folder).mkdir()
        (Path(folder) / "p.png").write_bytes(make_image())
        (Path(folder) / "train.jsonl").write_text(json.dumps({"image": "p.png", "text": text}))
    for folder, classes in CLASSES.items():
        for name in classes:
            (Path(folder) / name).mkdir(parents=True)
            (Path(folder) / name / "p.png").write_bytes(make_image())
    Path("void/train/dog").mkdir()
    Path("file").write_text("")


def test_all_that_is_there_is_said(tool: Tool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="unimo"):
        code, out, err = tool("pretrain", *RUN)
    assert code == 0, err
    assert "max_steps: 3" in out
    for said in (
        "output_dir output/unimo3_tiny_pretrain, starting from scratch",
        "tokenizer of 67 tokens",
        "train of scenes 48 samples",
        "val of 12 samples",
    ):
        assert f"checked: {said}" in caplog.text
    assert not Path("output").exists()


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("pretrain", [*RUN, "data.pairs=nowhere"], ["no data at"]),
        ("pretrain", [*RUN, "data.pairs=[nowhere, elsewhere]"], ["nowhere;", "elsewhere;"]),
        ("pretrain", [*RUN, "data.pairs=photos", "data.root=below"], ["below/photos"]),
        ("pretrain", [*RUN, "data.pairs=odd"], ["of the words are unknown to the tokenizer"]),
        ("pretrain", [*RUN, "data.train_split=part9"], ["has no split 'part9'"]),
        (
            "pretrain",
            [*RUN, "data.tokenizer=nope", "data.pairs=gone"],
            ["no tokenizer in nope", "no data at"],
        ),
        ("pretrain", [*RUN, "model.text.init=x", "model.vision.init=y"], ["text.init=x", "vision.init=y"]),
        ("pretrain", [*RUN, "init_from=nowhere"], ["no model directory at nowhere"]),
        ("pretrain", [*RUN, "resume=nowhere"], ["resume=nowhere"]),
        ("pretrain", [*RUN, "output_dir=file"], ["output_dir file is a file"]),
        ("pretrain", [*UNIMO, "data.regions=nowhere"], ["no region features at"]),
        ("pretrain", [*UNIMO, "task.augment.rewrites=gone.jsonl"], ["no file gone.jsonl"]),
        ("finetune", [*VQA, "data.path=nowhere"], ["no data at"]),
        ("finetune", [*VQA[:-1], "nowhere"], ["no model directory at nowhere"]),
        ("finetune", [*SHAPES, "data.path=new"], ["classes that train does not have: fox"]),
        ("finetune", [*SHAPES, "data.path=void"], ["no pictures in 1 of 2 folders of classes: dog"]),
        ("finetune", [*RETRIEVAL, "data.path=photos", "train.select_metric=rsum"], ["no split 'val'"]),
    ],
)
def test_what_is_missing_is_named(tool: Tool, name: str, line: list[str], said: list[str]) -> None:
    code, _, err = tool(name, *line)
    message = err.splitlines()[-1]
    assert code == 2 and message.startswith("error: ") and all(part in message for part in said), err
    assert not Path("output").exists()


def test_the_config_is_printed_before_the_problem(tool: Tool) -> None:
    _, out, _ = tool("pretrain", *RUN, "data.pairs=nowhere")
    Path("printed.yaml").write_text(out)
    assert read_yaml("printed.yaml")["data"]["pairs"][0]["path"] == "nowhere"


def test_no_validation_split_is_said(tool: Tool, caplog: pytest.LogCaptureFixture) -> None:
    code, _, err = tool("pretrain", *RUN, "data.pairs=photos")
    assert code == 0 and "no evaluation during this run: " in caplog.text, err


def test_the_folder_of_another_run_is_refused(tool: Tool) -> None:
    saved("vqa", Path("output/unimo3_tiny_pretrain"))
    config = "model: {name: unimo3_tiny}\ntask: {name: vqa}\n"
    Path("output/unimo3_tiny_pretrain/config.yaml").write_text(config)
    code, _, err = tool("pretrain", *RUN)
    assert code == 2 and "is the output folder of another run: its task is 'vqa'" in err
