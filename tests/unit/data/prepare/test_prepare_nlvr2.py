"""Preparation of NLVR2: tables of ViLT's layout, from files as they are distributed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from picture_files import jpeg, write_pictures

from unimo.data.prepare.nlvr2 import prepare_nlvr2
from unimo.data.readers.open import open_corpus
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig

TRAIN = [("train-10171-0-0", "True"), ("train-10171-0-2", "False"), ("train-7-3-0", "False")]
DEV = [("dev-850-0-1", "False"), ("dev-850-1-1", "True")]
PICTURES = [
    *(f"train/{folder}-img{side}.png" for folder in ("62/train-10171-0", "5/train-7-3") for side in (0, 1)),
    *(f"dev/dev-850-{pair}-img{side}.png" for pair in (0, 1) for side in (0, 1)),
    *(f"test1/test1-3-0-img{side}.png" for side in (0, 1)),
]


def line(identifier: str, label: Any, **more: Any) -> str:
    item = {"identifier": identifier, "sentence": f"Sentence {identifier[-1]}.", "label": label, **more}
    if identifier.startswith("train"):
        item["directory"] = {"10171": 62, "7": "5"}[identifier.split("-")[1]]
    return json.dumps(item)


def sources(folder: Path, inner: str = "", **more: list[str]) -> tuple[Path, Path]:
    """Folders of lists and of pictures."""
    lists = {"train": TRAIN, "dev": DEV, "test1": [("test1-3-0-0", "True")]}
    (folder / "data/balanced").mkdir(parents=True)
    for name, samples in lists.items():
        text = [line(*sample) for sample in samples] + more.get(name, [])
        (folder / f"data/{name}.json").write_text("\n".join(text) + "\n")
    (folder / "data/balanced/balanced_dev.json").write_text(line(*DEV[1]))
    write_pictures(folder / "pictures" / inner, PICTURES)
    return folder / "data", folder / "pictures"


@pytest.mark.parametrize("inner", ["", "images"])
def test_rows_are_pairs(tmp_path: Path, inner: str) -> None:
    summary = prepare_nlvr2(*sources(tmp_path, inner), tmp_path / "out")
    table = pa.ipc.open_file(str(tmp_path / "out/nlvr2_train.arrow")).read_all()
    assert table.to_pylist() == [
        {
            "image_0": jpeg(0),
            "image_1": jpeg(1),
            "questions": ["Sentence 0.", "Sentence 2."],
            "answers": ["True", "False"],
            "identifier": "train-10171-0",
            "question_id": ["train-10171-0-0", "train-10171-0-2"],
        },
        {
            "image_0": jpeg(2),
            "image_1": jpeg(3),
            "questions": ["Sentence 0."],
            "answers": ["False"],
            "identifier": "train-7-3",
            "question_id": ["train-7-3-0"],
        },
    ]
    assert summary["splits"]["train"] == {"pairs": 2, "sentences": 3, "files": ["nlvr2_train.arrow"]}
    assert list(summary["splits"]) == ["train", "dev", "test1", "balanced_dev"]
    assert (summary["images_missing"], summary["images_in_two_splits"]) == (0, 0)
    held_out = {"dev": DEV, "val": DEV, "balanced_dev": DEV[1:], "test1": [("test1-3-0-0", "True")]}
    for split, names in held_out.items():
        data = open_corpus(CorpusConfig(str(tmp_path / "out")), split, "nlvr2", DataConfig())
        assert [(r.question_id, str(bool(r.label))) for r in data] == names


def test_a_missing_picture_takes_its_pair_along(tmp_path: Path) -> None:
    lists, pictures = sources(tmp_path)
    (pictures / PICTURES[3]).unlink()
    (pictures / PICTURES[5]).write_bytes(b"broken")
    with pytest.raises(DataError, match="missing from.*train-7-3-img1.png"):
        prepare_nlvr2(lists, pictures, tmp_path / "out")
    summary = prepare_nlvr2(lists, pictures, tmp_path / "out", max_missing_rate=0.5)
    assert [found["pairs"] for found in summary["splits"].values()] == [1, 1, 1, 1]
    assert (summary["images_missing"], summary["images_broken"]) == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        line("dev-850-0-1", "True"),
        line("train-10171-0-0", "True"),
        line("dev-850-1", "True"),
        line("dev-850-../1-1", "True"),
        line("dev-850-1-3", "maybe"),
        line("dev-850-1-3", None),
        json.dumps({"identifier": "dev-850-1-3", "label": "True"}),
        json.dumps(["dev"]),
        "{",
        line("dev-850-1-3", "True", sentence=""),
    ],
)
def test_broken_lines_are_counted(tmp_path: Path, wrong: str) -> None:
    lists, pictures = sources(tmp_path, dev=[wrong])
    with pytest.raises(DataError, match="1 of 8 samples of .* are broken.*dev.json, line 3"):
        prepare_nlvr2(lists, pictures, tmp_path / "out")
    summary = prepare_nlvr2(lists, pictures, tmp_path / "out", max_missing_rate=0.2)
    assert summary["broken"] == 1 and summary["splits"]["dev"]["sentences"] == 2


def test_without_lists(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="no train.json, dev.json, test1.json in"):
        prepare_nlvr2(tmp_path / "data", tmp_path, tmp_path / "out")
