"""Related images: labels of an image, lookup by names, and exclusion of the image itself."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unimo.augment.corpus import CaptionCorpus
from unimo.augment.output import Job
from unimo.augment.retrieval_job import RetrievalSettings, retrieve_images
from unimo.jobs import Shard


class Silent:
    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> SimpleNamespace:
        return SimpleNamespace(update=lambda n: None)

    def __exit__(self, *_: object) -> None: ...


def corpus_of(folder: Path, *pairs: tuple[str, str]) -> CaptionCorpus:
    for image, _ in pairs:
        (folder / image).parent.mkdir(exist_ok=True)
        (folder / image).write_bytes(b"picture" * 50)
    lines = [json.dumps({"image": image, "text": text}) for image, text in pairs]
    (folder / "train.jsonl").write_text("\n".join(lines))
    return CaptionCorpus(str(folder / "train.jsonl"))


def retrieve(
    captions: CaptionCorpus, folder: Path, *labels: tuple[str, list[str]], **settings: Any
) -> list[dict]:
    """Run the job; images are searched by these labels, or by the captions without labels."""
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps({"image_id": i, "labels": found}) + "\n" for i, found in labels))
    out, collection = folder / "out.jsonl", path if labels else captions
    chosen = RetrievalSettings(**settings)
    retrieve_images(Job(captions, out, folder / "work", Shard(), Silent), collection, chosen)
    return [json.loads(line) for line in out.read_text().splitlines()]


def ids(line: dict) -> list[str]:
    return [row["image_id"] for row in line["images"]]


@pytest.mark.parametrize(
    ("own", "there"),
    [("images/0.jpg", "0.jpg"), ("0.jpg", "images/0.jpg"), ("images/0.jpg", "0"), ("0.jpg", "x/0.png")],
)
def test_an_image_has_its_detected_labels_under_other_names_too(
    tmp_path: Path, own: str, there: str, caplog: pytest.LogCaptureFixture
):
    captions = corpus_of(tmp_path, (own, "A dog ."), ("sub/1.jpg", "A cat ."))
    line, other = retrieve(captions, tmp_path, (there, ["sofa", "lamp"]), ("x1", ["lamp"]), ("x2", ["dog"]))
    assert line["image_id"] == own and line["labels"] == ["lamp", "sofa"] and ids(line) == ["x1"]
    assert other["labels"] == ["cat"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_collection_of_other_images_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    captions = corpus_of(tmp_path, ("0.jpg", "A dog ."), ("1.jpg", "A cat ."))
    assert ids(retrieve(captions, tmp_path, ("7.jpg", ["dog"]))[0]) == ["7.jpg"]
    assert "has no image of the first 2 captions, e.g. 0.jpg" in caplog.text


def test_where_nothing_was_detected_the_caption_tells(tmp_path: Path):
    captions = corpus_of(tmp_path, ("0.jpg", "A dog on a hill ."))
    line = retrieve(captions, tmp_path, ("0.jpg", []), ("1.jpg", ["dog"]), ("2.jpg", [""]))[0]
    assert line["labels"] == ["dog", "hill"] and ids(line) == ["1.jpg"]


def test_each_image_is_there_once(tmp_path: Path):
    """Captions may come in any order; the first of several lines of labels counts."""
    pairs = [
        ("0.jpg", "A dog ."),
        ("1.jpg", "A dog on a hill ."),
        ("2.jpg", "A boat ."),
        ("1.jpg", "A cat ."),
    ]
    by_captions = tmp_path / "a"
    by_captions.mkdir()
    lines = retrieve(corpus_of(by_captions, *pairs), by_captions)
    assert ids(lines[0]) == ["1.jpg"] and lines[1]["labels"] == lines[3]["labels"] == ["cat", "dog", "hill"]
    captions = corpus_of(tmp_path, *pairs)
    found = retrieve(captions, tmp_path, ("x", ["dog"]), ("y", ["dog"]), ("x", ["dog", "cat"]))
    assert ids(found[0]) == ["x", "y"] and ids(found[3]) == []


def test_memory_decides_nothing(tmp_path: Path):
    captions = corpus_of(tmp_path, ("0.jpg", "A dog ."), ("1.jpg", "A dog ."))
    assert retrieve(captions, tmp_path, memory_mb=10) == retrieve(captions, tmp_path, memory_mb=500)
