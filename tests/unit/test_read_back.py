"""Files that jobs read back, and answers of programs: of any size and content, they are ours or refused."""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from unimo.augment import stanford
from unimo.augment.corpus import CaptionCorpus
from unimo.augment.parsers import open_parser
from unimo.augment.statistics import CorpusStatistics
from unimo.errors import CapabilityError, DataError
from unimo.training import launch
from unimo.training.callbacks.metrics_file import cut_after


@pytest.mark.parametrize(
    "line",
    [
        *('{"step": "3"}', '{"step": null}', '{"step": [1]}', '{"step": NaN}', '{"step": 3.5}', "[1]", "3"),
        *("{", "", "\0", "[" * 100_000, '{"step": 1' + "0" * 5000 + "}", '{"step": 9}', "\ud83d", '{"a": 1}'),
    ],
)
def test_what_is_no_line_of_metrics_is_left_out(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n'.encode("utf8", "surrogatepass") + b"\xff\xfe")
    assert cut_after(path, 5) == [{"step": 1}, {"step": 2}]
    assert [json.loads(row) for row in path.read_text().splitlines()] == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("kind", ["sparse", "pipe", "folder", "device"])
def test_metrics_and_logs_that_are_none(tmp_path: Path, kind: str) -> None:
    for name in ("metrics.jsonl", "workerlog.0"):
        path = tmp_path / name
        if kind == "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 40)
                file.seek((1 << 40) - 20)
                file.write(b"\nerror: no data\n")
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"cannot read .*metrics.jsonl: .*; move it away"):
        cut_after(tmp_path / "metrics.jsonl", 5)
    assert launch.user_errors(tmp_path) == (["error: no data"] if kind == "sparse" else [])


@pytest.fixture
def corpus(tmp_path: Path) -> CaptionCorpus:
    (tmp_path / "train.txt").write_text("A red dog sits on a hill .\nA blue cat sits on a boat .\n" * 3)
    return CaptionCorpus(str(tmp_path / "train.txt"))


def count(corpus: CaptionCorpus, folder: Path) -> CorpusStatistics:
    statistics = CorpusStatistics(1)
    statistics.collect(corpus, open_parser(), folder / "counts.npz", {}, lambda n: None)
    statistics.entries(1, 2, 0, folder / "vocabulary.npz", {})
    return statistics


def rewrite(path: Path, change: str) -> None:
    """Write a file of counts again, without an array or with another one in its place."""
    with np.load(path) as saved:
        arrays = dict(saved)
    note = json.loads(arrays["note"].tobytes())
    if change == "note":
        arrays["note"] = np.frombuffer(b"[" * 5000, np.uint8)
    elif change == "no note":
        del arrays["note"]
    elif change == "list":
        arrays["note"] = np.frombuffer(b"[1]", np.uint8)
    elif change == "empty":
        arrays = {"note": arrays["note"]}
    elif change == "objects":
        arrays |= {name: np.array([{}], object) for name in arrays if name != "note"}
    elif change == "numbers":
        arrays["numbers"] = np.array([10**9])
    elif change == "entries":
        note |= {"entries": 5, "words": None}
        arrays["note"] = np.frombuffer(json.dumps(note).encode(), np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize("name", ["counts.npz", "vocabulary.npz"])
@pytest.mark.parametrize("change", ["note", "no note", "list", "empty", "objects", "numbers", "entries"])
def test_damaged_counts(corpus: CaptionCorpus, tmp_path: Path, name: str, change: str) -> None:
    count(corpus, tmp_path)
    rewrite(tmp_path / name, change)
    if (name, change) in (("counts.npz", "numbers"), ("vocabulary.npz", "entries")):
        count(corpus, tmp_path)  # has none of these, or is counted anew
        return
    with pytest.raises(DataError, match=rf"{name}.*(remove it|remove both)"):
        count(corpus, tmp_path)


@pytest.mark.parametrize("kind", ["bomb", "sparse", "no zip"])
def test_counts_of_enormous_size(corpus: CaptionCorpus, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "counts.npz"
    if kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("note.npy", bytes(200_000_000))
        assert path.stat().st_size < 1_000_000
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        np.save(path.open("wb"), np.zeros(3))
    start = time.monotonic()
    with pytest.raises(DataError, match=r"counts.npz cannot be read .*; remove it to count again"):
        count(corpus, tmp_path)
    assert time.monotonic() - start < 5


PROGRAMS = {
    "one endless line": "while True: print('a' * 4096, end='')",
    "endless lines": "while True: print('a-1')",
    "drips": "import time\nwhile True: print('a-1', flush=True); time.sleep(0.05)",
    "huge numbers": "print('dog-' + '9' * 5000, flush=True)\nprint('-' * 20, flush=True)\ninput()",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_answers_of_a_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(stanford, "ANSWER_BYTES", 100_000)
    (tmp_path / "program.py").write_text(PROGRAMS[program])
    script = tmp_path / "java"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path}/program.py\n")
    script.chmod(0o755)
    parse = stanford.StanfordParser(str(tmp_path), java=str(script), timeout=1.0)
    start = time.monotonic()
    if program == "huge numbers":
        assert parse("A dog runs .").objects == ()
    else:
        with pytest.raises(CapabilityError, match="does not run"):
            parse("A dog runs .")
    parse.close()
    assert time.monotonic() - start < 20
