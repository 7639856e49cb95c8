"""Tar shards: captions from txt and json, questions, broken samples, broken shards."""

import gzip
import io
import json
import tarfile

import pytest

from unimo.data.readers.tar import TarDataset
from unimo.errors import DataError, RecordError


def shard(path, members: dict[str, bytes]):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_captions_of_txt_and_json(tmp_path):
    path = shard(
        tmp_path / "train-0.tar",
        {
            "a/0.jpg": b"zero",
            "a/0.txt": b"A dog\n on grass.\n",
            "a/0.json": json.dumps({"caption": "bookkeeping of img2dataset"}).encode(),
            "a/1.PNG": b"one",
            "a/1.json": json.dumps({"texts": ["first", "second"]}).encode(),
            "a/2.webp": b"two",
            "a/2.json": json.dumps([{"text": "third"}, {"text": "fourth"}]).encode(),
        },
    )
    data = TarDataset(path, "pairs", "web")
    assert [(r.image, r.text, r.sample_id) for r in data] == [
        (b"zero", "A dog on grass.", "train-0:a/0#0"),
        (b"one", "first", "train-0:a/1#0"),
        (b"one", "second", "train-0:a/1#1"),
        (b"two", "third", "train-0:a/2#0"),
        (b"two", "fourth", "train-0:a/2#1"),
    ]
    assert data[1].image_id == data[2].image_id != data[0].image_id
    assert data.image_source(4) == b"two"


def test_questions(tmp_path):
    asked = [
        {"question": "How many?", "answers": ["2"] * 3 + ["3"] + ["two"] * 6, "question_id": 5},
        {"question": "What?", "answer": "dog"},
    ]
    path = shard(
        tmp_path / "val-0.tar", {"0.jpg": b"x", "0.json": json.dumps(asked).encode(), "0.txt": b"caption"}
    )
    first, second = TarDataset(path, "vqa")
    assert first.answer_scores == {"2": 0.9, "3": 0.3, "two": 1.0} and first.question_id == 5
    assert second.answer_scores == {"dog": 1.0} and second.question_id == second.sample_id == "val-0:0#1"


def test_broken_samples_are_counted_and_leave_the_others(tmp_path):
    path = shard(
        tmp_path / "t.tar",
        {
            "0.jpg": b"no text",
            "1.txt": b"no image",
            "2.jpg": b"latin",
            "2.txt": b"caf\xe9",
            "3.jpg": b"bad json",
            "3.json": b'{"texts": [',
            "4.jpg": b"",
            "4.txt": b"zero bytes",
            "5.jpg": b"fine",
            "5.txt": b"fine",
            "6.jpg": b"empty",
            "6.txt": b" \n",
        },
    )
    data = TarDataset(path, "pairs")
    assert len(data) == 7 and data[5].text == "fine"
    expected = {
        0: "no text",
        1: "no image",
        2: "UTF-8 at byte 3",
        3: "not valid JSON",
        4: "0 bytes",
        6: "empty",
    }
    for index, message in expected.items():
        with pytest.raises(RecordError, match=message):
            data[index]


def test_long_names_and_folders(tmp_path):
    name = "folder/" + "x" * 150
    data = TarDataset(shard(tmp_path / "t.tar", {f"{name}.jpg": b"i", f"{name}.txt": b"t"}), "pairs")
    assert data[0].sample_id == f"t:{name}#0"


def test_broken_shards_name_themselves(tmp_path):
    path = shard(tmp_path / "t.tar", {"0.jpg": b"x" * 5000, "0.txt": b"caption", "1.jpg": b"y" * 5000})
    whole = path.read_bytes()
    for keep in (3000, 512 + 5120 + 512 + 100, 12_000):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError, match=r"t\.tar is (truncated|not a complete)"):
            TarDataset(path, "pairs")
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match="not a complete, uncompressed tar"):
        TarDataset(path, "pairs")
    with pytest.raises(DataError, match="no tar shard"):
        TarDataset(tmp_path / "none.tar", "pairs")
