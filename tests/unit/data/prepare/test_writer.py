"""The Arrow writer: batches, numbered files, no files after a failure."""

import shutil

import pyarrow as pa
import pytest

from unimo.data.prepare import writer as module
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter, write_json
from unimo.errors import DataError

PAIRS = SCHEMAS["pairs"]


def row(number, size=10):
    return {"image": b"x" * size, "caption": [str(number)], "image_id": str(number), "split": "train"}


def read(path):
    return pa.ipc.open_file(pa.memory_map(str(path)))


def test_batches_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BATCH_BYTES", 1000)
    with ArrowWriter(tmp_path / "new", "a_train", PAIRS) as writer:
        for number in range(10):
            writer.write(row(number, 400))
    table = read(tmp_path / "new" / "a_train.arrow")
    assert table.num_record_batches == 4
    assert table.read_all().column("image_id").to_pylist() == [str(i) for i in range(10)]
    assert writer.rows == 10 and writer.files == [tmp_path / "new" / "a_train.arrow"]


def test_numbered_files_replace_those_of_an_earlier_run(tmp_path):
    for rows, per_file, names in (
        (7, 2, ["a_train_0", "a_train_1", "a_train_2", "a_train_3"]),
        (4, 2, ["a_train_0", "a_train_1"]),
        (4, 0, ["a_train"]),
        (0, 0, ["a_train"]),
    ):
        (tmp_path / "a_train_fix.arrow").touch()
        with ArrowWriter(tmp_path, "a_train", PAIRS, per_file) as writer:
            for number in range(rows):
                writer.write(row(number))
        assert sorted(path.stem for path in tmp_path.iterdir()) == sorted([*names, "a_train_fix"])
        assert sum(read(path).read_all().num_rows for path in writer.files) == rows


def test_a_failure_keeps_the_old_file_and_no_other(tmp_path):
    with ArrowWriter(tmp_path, "a_train", PAIRS) as writer:
        writer.write(row(1))
    with pytest.raises(KeyError), ArrowWriter(tmp_path, "a_train", PAIRS, 1) as writer:
        writer.write(row(2))
        writer.write(row(3))
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a_train.arrow"]
    assert read(tmp_path / "a_train.arrow").read_all().column("image_id").to_pylist() == ["1"]


def test_a_disk_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match="cannot write"),
        ArrowWriter(tmp_path / "file", "a", PAIRS),
    ):
        pass
    monkeypatch.setattr(ArrowWriter, "_flush", full)
    with (
        pytest.raises(DataError, match="No space left"),
        ArrowWriter(tmp_path, "a", PAIRS) as writer,
    ):
        writer.write(row(1))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(DataError, match="cannot write"):
        write_json(tmp_path / "file" / "x.json", {})


def test_files_of_a_killed_run_go_when_the_next_one_starts(tmp_path):
    for name in (".a_train_0.arrow.tmp", ".a_train_7.arrow.tmp", ".a_train_fix_0.arrow.tmp"):
        (tmp_path / name).write_bytes(b"half")
    with ArrowWriter(tmp_path, "a_train", PAIRS) as writer:
        writer.write(row(1))
    assert {path.name for path in tmp_path.iterdir()} == {"a_train.arrow", ".a_train_fix_0.arrow.tmp"}


def test_a_folder_that_goes_away_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot write"), ArrowWriter(tmp_path / "a", "b", PAIRS) as writer:
        writer.write(row(1))
        shutil.rmtree(tmp_path / "a")
