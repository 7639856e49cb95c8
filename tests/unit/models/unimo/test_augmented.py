"""The files of `augment_corpus.py` as training reads them: look-up, broken lines, and files of other jobs."""

from __future__ import annotations

import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unimo.augment.corpus import caption_of
from unimo.data.record import Record
from unimo.errors import DataError, RecordError
from unimo.models.unimo.augmented import Extras, LineTable, open_augmentations


def told(*texts: str) -> list[dict]:
    return [{"text": text} for text in texts]


def line_of(number: int) -> dict[str, Any]:
    """A line of each job at once, under keys of its own."""
    name = f"c{number}"
    levels = {
        "sentence": told(f"{name} s1", f"{name} s2"),
        "phrase": told(f"{name} p1"),
        "word": told(f"{name} w1"),
    }
    return {
        "id": f"a:{number}#0", "positives": told(f"{name} fr", f"{name} es"), "negatives": levels,
        "texts": told(f"{name} t1", f"{name} s2"), "images": [{"image_id": f"i{number}", "score": 1.0}],
    }  # fmt: skip


def record(number: int | str) -> Record:
    return Record(f"a:{number}#0", "a", text="a caption")


def write(path: Path, lines: list[Any]) -> str:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def test_extras_of_a_record(tmp_path: Path):
    path = write(tmp_path / "all.jsonl", [line_of(number) for number in range(300)])
    found = open_augmentations(path, path, path)
    for number in random.Random(0).sample(range(300), 300):
        name, extras = f"c{number}", found.of(record(number))
        assert extras.positives == (f"{name} fr", f"{name} es")
        assert extras.negatives == (f"{name} s1", f"{name} p1", f"{name} w1", f"{name} s2")
        assert extras.texts == (f"{name} t1",)  # s2 is a hard negative
        assert [image.image_id for image in extras.images] == [f"i{number}"] and extras.images[
            0
        ].image is None
    assert found.of(record(300)) == Extras() == found.of(record(-1))
    only_texts = open_augmentations(texts=path).of(record(7))
    assert only_texts == Extras(texts=("c7 t1", "c7 s2"))


def test_several_shards_and_odd_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    odd = [
        '{"text": "no id"}',
        "",
        "nonsense",
        '{"id": "#4", "skipped": "no readable text"}',
        "[1]",
        '{"id": 7}',
    ]
    late = '{"note": "key not in front", "id": "späť \\"x\\"", "texts": [{"text": "found"}]}'
    write(tmp_path / "x-0.jsonl", [*odd, line_of(0), line_of(0) | {"texts": told("second of its id")}])
    write(tmp_path / "x-1.jsonl", [late, line_of(1), '{"id": "a:9#0", "skipped": "no readable text"}'])
    found = open_augmentations(texts=str(tmp_path / "x-*.jsonl"))
    assert found.of(record(0)).texts == ("c0 t1", "c0 s2") and found.of(record(1)).texts == ("c1 t1", "c1 s2")
    assert found.of(Record('späť "x"', "a")).texts == ("found",)
    assert found.of(record(9)) == Extras()
    assert "the first is line 1" in caplog.text


@pytest.mark.parametrize(
    "line",
    ['{"id": "a:1#0", "texts": [', '{"id": "a:1#0"}', '{"id": "a:1#0", "texts": [{"words": 1}]}',
     '{"id": "a:1#0", "texts": 3}', '{"id": "a:1#0", "texts": [{"text": " "}]}',
     '{"id": "a:1#0", "texts": ["x"]}'],
)  # fmt: skip
def test_a_broken_line_spoils_its_record_alone(tmp_path: Path, line: str):
    found = open_augmentations(texts=write(tmp_path / "t.jsonl", [line_of(0), line, line_of(2)]))
    with pytest.raises(RecordError, match=r"t.jsonl, line of a:1#0"):
        found.of(record(1))
    assert found.of(record(0)).texts and found.of(record(2)).texts


@pytest.mark.parametrize(
    "value", [None, 5, 0.5, True, ["x"], {"a": 1}, "", " ", "\u200b", "a\0b", "half \ud83d"]
)
@pytest.mark.parametrize("place", ["positives", "sentence", "phrase", "word", "texts"])
def test_a_value_that_is_no_text_spoils_its_record_alone(tmp_path: Path, place: str, value: object):
    line = line_of(1)
    (line if place in line else line["negatives"])[place] = [{"text": value}]
    path = write(tmp_path / "all.jsonl", [line_of(0), line, line_of(2)])
    found = open_augmentations(path, path, path)
    with pytest.raises(RecordError, match=r"all.jsonl, line of a:1#0"):
        found.of(record(1))
    assert found.of(record(0)).texts and found.of(record(2)).texts


@pytest.mark.parametrize("value", [None, 0.5, True, ["x"], "", "a\0b", "half \ud83d", float("nan")])
def test_an_id_that_is_none_spoils_its_record_alone(tmp_path: Path, value: object):
    line = line_of(1) | {"images": [{"image_id": value}]}
    found = open_augmentations(images=write(tmp_path / "i.jsonl", [line_of(0), line]))
    with pytest.raises(RecordError, match=r"i.jsonl, line of a:1#0"):
        found.of(record(1))
    assert found.of(record(0)).images[0].image_id == "i0"


def test_wrong_files_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no file .*augment_corpus.py writes it"):
        open_augmentations(str(tmp_path / "none*.jsonl"))
    path = write(tmp_path / "t.jsonl", [{"id": "a", "text": "x", "texts": []}])
    with pytest.raises(DataError, match="no 'negatives', so it is of another job"):
        open_augmentations(rewrites=path)
    with pytest.raises(DataError, match='no line with an "id"'):
        open_augmentations(texts=write(tmp_path / "u.jsonl", ["hello", "{}"]))


def test_a_file_of_other_data_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = open_augmentations(texts=write(tmp_path / "t.jsonl", [line_of(0)]))
    for number in range(2000):
        found.of(record(f"b{number}"))
    assert caplog.text.count("has no line for any of the first 1000 samples") == 1


@pytest.mark.parametrize("place", [0, 1, 7, 8, 40, 127, 128, 136, 144, 152, 200, 300, -1])
def test_a_flipped_bit_in_the_index_changes_nothing(tmp_path: Path, place: int):
    path = write(tmp_path / "t.jsonl", [line_of(number) for number in range(20)])
    wanted = [LineTable(path).find(f"a:{number}#0") for number in range(20)]
    kept = tmp_path / ".t.jsonl.index.npy"
    content = bytearray(kept.read_bytes())
    content[place] ^= 64
    kept.write_bytes(content)
    assert [LineTable(path).find(f"a:{number}#0") for number in range(20)] == wanted != [None] * 20


@pytest.mark.parametrize("header", [b"(((", b"{'descr': '<u8'", b"{'descr': [('a', 5)]}", b'"""', b"[" * 99])
def test_headers_that_numpy_trips_over(tmp_path: Path, header: bytes):
    path = write(tmp_path / "t.jsonl", [line_of(number) for number in range(3)])
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    (tmp_path / ".t.jsonl.index.npy").write_bytes(start + header)
    assert LineTable(path).find("a:2#0")


def test_the_index_is_kept_and_made_anew_for_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = Path(write(tmp_path / "t.jsonl", [line_of(number) for number in range(50)]))
    LineTable(path)
    kept = tmp_path / ".t.jsonl.index.npy"
    assert np.load(kept).shape == (3, 51) and sorted(tmp_path.iterdir()) == [kept, path]
    with monkeypatch.context() as patch:
        patch.setattr(LineTable, "_scan", lambda self: pytest.fail("scanned again"))
        assert LineTable(path).find("a:7#0")["id"] == "a:7#0"
    write(path, [line_of(number) for number in range(40, 140)])
    assert LineTable(path).find("a:139#0") and LineTable(path).find("a:7#0") is None
    kept.write_bytes(b"no index")
    assert len(LineTable(path)) == 100
    os.utime(path, ns=(1, 1))
    assert len(LineTable(path)) == 100 and int(np.load(kept)[1, 0]) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "save", refuse)
    table = LineTable(write(tmp_path / "t.jsonl", [line_of(number) for number in range(50)]))
    assert table.find("a:30#0")["texts"] and not (tmp_path / ".t.jsonl.index.npy").exists()


def test_equal_hashes_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unimo.models.unimo.augmented._hash", lambda key: len(key) % 2)
    table = LineTable(write(tmp_path / "t.jsonl", [line_of(number) for number in range(30)]))
    assert all(table.find(f"a:{number}#0")["id"] == f"a:{number}#0" for number in range(30))
    assert table.find("a:77#0") is None


def test_threads_share_a_table(tmp_path: Path):
    path = write(tmp_path / "all.jsonl", [line_of(number) for number in range(200)])
    found, wrong = open_augmentations(path), []

    def ask(seed: int) -> None:
        for number in random.Random(seed).sample(range(200), 200):
            if found.of(record(number)).positives != (f"c{number} fr", f"c{number} es"):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_large_file_costs_no_memory(tmp_path: Path):
    path = tmp_path / "big.jsonl"
    with open(path, "w") as file:
        for number in range(100_000):
            file.write(f'{{"id": "a:{number}#0", "texts": [{{"text": "t{number}"}}]}}\n')
    found = open_augmentations(texts=str(path))
    table = LineTable(path)
    assert found.of(record(99_999)).texts == ("t99999",) and found.of(record(0)).texts == ("t0",)
    assert isinstance(table._hashes.base.base, np.memmap) or isinstance(table._hashes.base, np.memmap)


def test_corpora_that_share_ids_get_extras_of_their_own(tmp_path: Path):
    """`coco/train.jsonl` and `sbu/train.jsonl` both have `train:1#0`; in one file or two."""
    coco = {"id": "train:1#0", "text": "A dog .", "image_id": "1.jpg"}
    sbu, other = coco | {"text": "Sunset ."}, coco | {"image_id": "2.jpg"}
    lines = [line | {"texts": told(name)} for line, name in ((coco, "c"), (sbu, "s"), (other, "o"))]
    write(tmp_path / "t-0.jsonl", lines[:1])
    write(tmp_path / "t-1.jsonl", lines[1:])
    found = open_augmentations(texts=str(tmp_path / "t-*.jsonl"))

    def texts(text: str, image: str) -> tuple[str, ...]:
        return found.of(Record("train:1#0", "x", text=text, image_id=image)).texts

    assert texts("A  dog .", "1.jpg") == ("c",) and texts("Sunset .", "1.jpg") == ("s",)
    assert texts("A dog .", "2.jpg") == ("o",) and texts("A cat .", "1.jpg") == ()


def test_long_and_odd_texts_are_found_as_the_jobs_write_them(tmp_path: Path):
    long, odd = Record("1", "x", text="a red dog " * 900), Record("\ud83d", "x", text="smile \ud83d")
    lines = [
        {"id": one.sample_id, "text": one.text, "image_id": one.image_id}
        for one in map(caption_of, (long, odd))
    ]
    path = write(tmp_path / "t.jsonl", [line | {"texts": told("found")} for line in lines])
    found = open_augmentations(texts=path)
    assert found.of(long).texts == found.of(odd).texts == ("found",)
    assert lines[1]["text"] == "smile ?" and len(lines[0]["text"]) <= 2000
