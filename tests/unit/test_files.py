"""Files and folders that are replaced whole or not at all, and what broken JSON files say."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from unimo import files
from unimo.errors import CheckpointError, ConfigError, DataError
from unimo.files import (
    filling,
    is_at,
    make_folder,
    make_place,
    parse_json,
    publish_folder,
    published,
    read_json,
    read_json_object,
    replacing,
    write_text,
)


def test_full_disk_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    write_text(path, "old: 1\n")

    def half(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text.encode(encoding)[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new: 2\n")
    assert path.read_text() == "old: 1\n" and list(tmp_path.iterdir()) == [path]


def test_names_that_are_not_utf8_are_written_as_json_has_them(tmp_path: Path) -> None:
    rows = [{"image": "caf\udce9.jpg", "text": "half \ud83d, é"}]
    write_text(tmp_path / "rows.json", json.dumps(rows, ensure_ascii=False))
    assert json.loads((tmp_path / "rows.json").read_text(encoding="utf8")) == rows


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "a.txt", []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "é")
    (temporary, was_there), folder = synced
    assert Path(temporary).parent == tmp_path and Path(temporary).name.startswith(".a.txt.")
    assert not was_there and folder == (str(tmp_path), True)
    assert path.read_bytes() == "é".encode()


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
        assert not path.exists()
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]  # the outer block ends last
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("third")
        raise KeyError
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def fill(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(text)
    return folder


def test_a_folder_is_replaced_and_a_kill_leaves_the_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "model"
    publish_folder(fill(tmp_path / "fresh", "one"), final)
    assert (final / "file").read_text() == "one" and published(final) == final
    publish_folder(fill(tmp_path / "fresh", "two"), final)
    assert (final / "file").read_text() == "two" and list(tmp_path.iterdir()) == [final]
    fresh, rename = fill(tmp_path / "fresh", "three"), Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self == fresh:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        publish_folder(fresh, final)
    monkeypatch.undo()
    assert not final.exists() and (published(final) / "file").read_text() == "two"
    publish_folder(fresh, final)
    assert (published(final) / "file").read_text() == "three" and list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": ', "line 3: not valid JSON: Expecting value"),
        (b'{"a": "caf\xe9"}', "line 3: not valid UTF-8 at byte 10"),
        ("[" * 100_000, "line 3: not valid JSON: "),
    ],
)
def test_broken_json_is_named(content: bytes | str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_json(content, "line 3", DataError)


def test_json_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(CheckpointError, match=f"cannot read {path}: No such file"):
        read_json(path, CheckpointError)
    path.write_bytes(b"\xef\xbb\xbf[1, 2]")  # with a byte order mark
    assert read_json(path, DataError) == [1, 2]
    with pytest.raises(ConfigError, match="a.json: expected a JSON object, found list"):
        read_json_object(path, ConfigError)
    path.write_text("{")
    with pytest.raises(DataError, match=f"annotations {path}: not valid JSON"):
        read_json(path, DataError, "annotations")


def leave_behind(folder: Path) -> Path:
    """Leave the temporary file of a process that is killed while it replaces a file."""
    child = os.fork()
    if not child:
        with replacing(folder / "a") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = folder.iterdir()
    return left


def test_the_next_writer_removes_what_killed_ones_left(tmp_path: Path) -> None:
    left = leave_behind(tmp_path)
    own = tmp_path / left.name.replace(f"-{left.name.split('-')[1]}-", f"-{os.getpid()}-")
    host = left.name.split(".")[2].split("-")[0]
    other, old = (tmp_path / left.name.replace(host, name) for name in ("0" * 8, "1" * 8))
    strange = tmp_path / ".notes.tmp"
    for path in (own, other, old, strange):
        path.write_text("x")
    os.utime(old, (1, 1))
    files.remove_leftovers.cache_clear()
    write_text(tmp_path / "b", "new")
    assert {path.name for path in tmp_path.iterdir()} == {own.name, other.name, strange.name, "b"}


def test_a_folder_is_filled_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "weights"
    with pytest.raises(OSError, match="full"), filling(folder) as fresh:
        (fresh / "model").write_text("weights")
        raise OSError("full")
    assert not folder.exists() and not list(folder.parent.iterdir())
    (folder.parent / ".weights.writing").mkdir()  # of a process that was killed
    for text in ("first", "second"):
        with filling(folder) as fresh:
            (fresh / "model").write_text(text * 9)
            (fresh / "config").write_text(text)
        (folder / "notes").write_text("mine")
        assert {path.name for path in folder.iterdir()} == {"model", "config", "notes"}
        assert (folder / "config").read_text() == text
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]


def test_a_file_that_was_removed_or_moved_is_told(tmp_path: Path) -> None:
    for change in (lambda path: path.unlink(), lambda path: path.rename(tmp_path / "b")):
        path = tmp_path / "a"
        with path.open("w") as file:
            assert is_at(file, path)
            change(path)
            assert not is_at(file, path)
            path.write_text("another")
            assert not is_at(file, path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "--out .*file is a file; expected a folder, new or existing: name another"),
        ("file/below", "--out: cannot make the folder .*Not a directory.*; name another"),
        ("x" * 300, "File name too long"),
        ("/proc/mine", "--out: cannot make the folder '/proc/mine'"),
        ("/proc", "'/proc', or write into it"),
        ("a\0b", "embedded null"),
    ],
)
def test_folders_that_cannot_be_written_into(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("mine")
    for path, make in ((name, make_folder), (f"{name}/x.json", make_place)):
        with pytest.raises(ConfigError, match=message):
            make(tmp_path / path, "--out")
    with pytest.raises(ConfigError, match="is a folder; expected a file to write"):
        make_place(tmp_path, "--out")
    assert make_place(tmp_path / "new" / "deep" / "x.json").parent.is_dir()
    assert not list((tmp_path / "new" / "deep").iterdir()) and (tmp_path / "file").read_text() == "mine"
