"""Lines of broken samples in the files of augmentation say where the samples stand, in every format."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from picture_files import jpeg, write_pictures

from unimo.augment.corpus import CaptionCorpus
from unimo.augment.output import Job
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter
from unimo.jobs import Shard


class NoBar:
    """Progress that shows nothing."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, _: int) -> None: ...


TEXTS = ["a dog", " ", "a cat", "\0"]


def jsonl(folder: Path) -> Path:
    write_pictures(folder, [f"{number}.jpg" for number in range(4)])
    rows = [json.dumps({"image": f"{number}.jpg", "text": text}) for number, text in enumerate(TEXTS)]
    rows[3] = "{"
    (folder / "train.jsonl").write_text("\n".join(rows))
    return folder / "train.jsonl"


def arrow(folder: Path) -> Path:
    with ArrowWriter(folder, "train", SCHEMAS["pairs"]) as writer:
        for text in TEXTS:
            writer.write({"image": jpeg(1), "caption": [text], "image_id": "1"})
    return folder / "train.arrow"


def tar(folder: Path) -> Path:
    write_pictures(folder, ["1.jpg"])
    with tarfile.open(folder / "train.tar", "w") as archive:
        for number, text in enumerate(TEXTS):
            archive.add(folder / "1.jpg", f"{number}.jpg")
            (folder / "text").write_text(text)
            archive.add(folder / "text", f"{number}.txt")
    return folder / "train.tar"


def lines(folder: Path) -> Path:
    (folder / "train.txt").write_bytes(b"a dog\n\xff\xfe bad\na cat\n\0\n")
    return folder / "train.txt"


def joined(folder: Path) -> Path:
    path = jsonl(folder)
    for number in (0, 1):
        (folder / f"train-0000{number}-of-00002.jsonl").write_text(path.read_text())
    path.unlink()
    return folder


PLACES = {
    jsonl: {"train:2#0": "train.jsonl, line 2: ", "train:4#0": "train.jsonl, line 4: not valid JSON"},
    arrow: {"train:1#0": "train.arrow, row 1, text 0: ", "train:3#0": "train.arrow, row 3, text 0: "},
    tar: {"train:1#0": "train.tar, 1: ", "train:3#0": "train.tar, 3: "},
    lines: {"train:2": "train.txt, line 2: ", "train:4": "train.txt, line 4: "},
    joined: {
        f"train-0000{number}-of-00002:{line}#0": f"train-0000{number}-of-00002.jsonl, line {line}: "
        for number in (0, 1)
        for line in (2, 4)
    },
}


@pytest.mark.parametrize("write", PLACES)
@pytest.mark.parametrize("shards", [1, 2])
def test_places(tmp_path: Path, write: Callable[[Path], Path], shards: int) -> None:
    corpus, found, whole = CaptionCorpus(str(write(tmp_path))), {}, []
    for rank in range(shards):
        out = tmp_path / "out" / f"{rank}.jsonl"
        job = Job(corpus, out, tmp_path / "work", Shard(rank, shards), NoBar)
        out.parent.mkdir(exist_ok=True)
        job.write({}, "", lambda captions: [{"id": caption.sample_id} for caption in captions], together=3)
        for line in map(json.loads, out.read_text().splitlines()):
            if "skipped" in line:
                assert line["skipped"] == "no readable text" and line["id"] not in found
                found[line["id"]] = line["reason"]
            else:
                whole.append(line["id"])
    assert found.keys() == PLACES[write].keys() and len(whole) == len(found)
    for key, reason in PLACES[write].items():
        assert reason in found[key], found[key]
