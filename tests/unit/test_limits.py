"""Endless or enormous input is refused by name, in every reader, before memory is taken for it."""

from __future__ import annotations

import ast
import io
import json
import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unimo import files, limits
from unimo.augment.corpus import CaptionCorpus
from unimo.augment.retrieval_job import _file_entries
from unimo.augment.translation import FileTranslations
from unimo.config import read_yaml
from unimo.data.images.open import open_image
from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.prepare.writer import ImageFolder
from unimo.data.readers import base
from unimo.data.readers.arrow import ArrowDataset
from unimo.data.readers.generation import CoqaFile, JsonlFile, LinePairs, SquadQuestions, TsvFile
from unimo.data.readers.glue import TASKS, GlueFile
from unimo.data.readers.jsonl import JsonlDataset, TextLinesDataset
from unimo.data.readers.tar import TarDataset
from unimo.data.regions.shard import ShardReader
from unimo.data.regions.tsv import TsvRegions
from unimo.data.tables import open_table
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import DataError, RecordError, UnimoError, shown
from unimo.inference.labels import read_labels
from unimo.models.unimo.augmented import LineTable
from unimo.weights.files import read_safetensors, read_tensors
from unimo.weights.paddle_folder import open_parameter

ROOT = Path(__file__).resolve().parents[2]


def in_folder(name: str, opened: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Open the folder of a file that must have this name."""

    def call(path: Path) -> Any:
        path.rename(path.parent / name)
        return opened(path.parent)

    return call


def tokenizer_of(name: str, *others: str) -> Callable[[Path], Any]:
    def call(folder: Path) -> Any:
        for other in others:
            (folder / other).write_text("{}")
        return load_tokenizer(folder)

    return in_folder(name, call)


def snli(folder: Path) -> Any:
    return prepare_snli_ve(folder, folder, folder / "out")


READERS: dict[str, Callable[[Path], Any]] = {
    "picture": open_image,
    "jsonl": lambda path: JsonlDataset(path, "texts"),
    "txt": TextLinesDataset,
    "tar": lambda path: TarDataset(path, "pairs"),
    "arrow": lambda path: ArrowDataset(path, "pairs"),
    "table": open_table,
    "glue": lambda path: GlueFile(path, TASKS["sst2"], "x"),
    "tsv": lambda path: TsvFile(path, "x"),
    "generation": lambda path: JsonlFile(path, "x"),
    "pairs of lines": lambda path: LinePairs((path, path), "x"),
    "coqa": lambda path: CoqaFile(path, "x"),
    "squad": lambda path: SquadQuestions(path, "x"),
    "region tsv": TsvRegions,
    "region shard": ShardReader,
    "safetensors": read_safetensors,
    "pdparams": lambda path: read_tensors(path.rename(path.with_suffix(".pdparams"))),
    "pkl": lambda path: read_tensors(path.rename(path.with_suffix(".pkl"))),
    "parameter": open_parameter,
    "labels": read_labels,
    "yaml": read_yaml,
    "lines of a job": LineTable,
    "translations": lambda path: FileTranslations(path, path.parent / "work"),
    "detected labels": lambda path: list(_file_entries(path, int, 0)),
    "json": lambda path: files.read_json(path, DataError),
    "snli-ve": in_folder("snli_ve_train.jsonl", snli),
}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("kind", [pipe, device, unix_socket])
@pytest.mark.parametrize("name", READERS)
def test_only_regular_files_are_opened(tmp_path: Path, name: str, kind: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    kind(path)
    with pytest.raises(UnimoError) as caught:
        READERS[name](path)
    said = str(caught.value)
    # SNLI-VE and folders look for regular files and say what is missing.
    assert "pipe, socket or device" in said or "no snli_ve_train.jsonl" in said
    assert str(tmp_path) in said and len(said) < 600


@pytest.mark.parametrize("name", READERS)
def test_terabytes_without_a_byte_on_the_disk(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(4 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(UnimoError) as caught:
            found = READERS[name](path)
            assert len(found) == 0  # a tar shard that ends where it begins
            raise DataError(f"{path} is empty")
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert str(tmp_path) in str(caught.value) and peak < 3 * limits.LINE_BYTES


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(files, "LINE_BYTES", 1000)
    yield 1000


@pytest.mark.parametrize(
    "name",
    ["jsonl", "txt", "glue", "tsv", "generation", "pairs of lines", "region tsv", "lines of a job",
     "translations", "detected labels", "snli-ve"],
)  # fmt: skip
def test_a_line_without_an_end(tmp_path: Path, name: str, short_lines: int) -> None:
    path = tmp_path / "file"
    line = {
        "id": "a",
        "text": "a b",
        "source": "a",
        "target": "b",
        "via": "fr",
        "image_id": "a",
        "labels": [],
    }
    line |= {"gold_label": "-"}
    starts = {"glue": "sentence\tlabel", "tsv": "src\ttgt", "region tsv": "1.jpg\t1\t1\t0\t\t\t"}
    path.write_text(starts.get(name, json.dumps(line)) + "\n" + "x" * 2 * short_lines)
    with pytest.raises(DataError, match="line 2: more than 1,000 bytes, the limit"):
        READERS[name](path)


def test_lines_of_the_largest_size_are_read(tmp_path: Path, short_lines: int) -> None:
    (tmp_path / "a.txt").write_text("x" * 999 + "\n" + "y" * 1000)
    assert list(files.read_lines(tmp_path / "a.txt")) == [b"x" * 999 + b"\n", b"y" * 1000]


def test_corpora_of_unknown_kind_are_looked_at_within_the_limit(tmp_path: Path, short_lines: int) -> None:
    (tmp_path / "a.jsonl").write_text("x" * 5000)
    with pytest.raises(DataError, match="the limit"):
        CaptionCorpus(str(tmp_path / "a.jsonl"))


def test_pictures_larger_than_any(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    with open(path, "r+b") as file:
        file.truncate(limits.IMAGE_BYTES + 1)
    with pytest.raises(RecordError, match=r"a\.png: it has 536,870,913 bytes; the limit is 536,870,912"):
        open_image(path)
    folder = ImageFolder(tmp_path, "pictures", 1.0)
    assert folder.read("a.png") is None and "the limit is" in folder.broken["a.png"]


def deep(brackets: str, count: int) -> str:
    return brackets[0] * count + ("1" if brackets == "[]" else "") + brackets[1] * count


DEEP = {
    "lists": deep("[]", 100_000),
    "open lists": "[" * 100_000,
    "a hundred lists": deep("[]", 100),
    "objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "nine hundred objects": '{"a":' * 900 + "1" + "}" * 900,
    "in a key that is read": '{"text": ' + deep("[]", 900) + "}",
    "in a key that is not read": '{"text": "a", "other": ' + deep("[]", 900) + "}",
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("reader", ["coqa", "squad", "json", "translations", "detected labels", "snli-ve"])
def test_deep_json_is_one_error(tmp_path: Path, reader: str, name: str) -> None:
    path = tmp_path / "file"
    path.write_text(DEEP[name])
    with pytest.raises(UnimoError) as caught:
        READERS[reader](path)
    assert str(tmp_path) in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("kind", ["pairs", "texts", "vqa", "entailment"])
def test_deep_json_is_one_broken_record(tmp_path: Path, kind: Any, name: str) -> None:
    (tmp_path / "a.jsonl").write_text(DEEP[name] + "\n")
    data = JsonlDataset(tmp_path / "a.jsonl", kind)
    with pytest.raises(RecordError) as caught:
        data[0]
    assert "line 1" in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize(
    "load", [tokenizer_of("tokenizer.json"), tokenizer_of("vocab.json", "merges.txt")], ids=["json", "vocab"]
)
def test_deep_json_in_tokenizers(tmp_path: Path, load: Callable[[Path], Any], name: str) -> None:
    (tmp_path / "file").write_text(DEEP[name])
    with pytest.raises(DataError, match=r"tokenizer\.json|vocab\.json"):
        load(tmp_path / "file")


def test_depth_that_public_data_has(tmp_path: Path) -> None:
    text = deep("[]", limits.JSON_DEPTH)
    assert files.parse_json(text, "x", DataError) is not None
    flat = json.dumps([{"boxes": [[1, 2], [3, 4]]}] * 1000)
    assert len(files.parse_json(flat, "x", DataError)) == 1000
    with pytest.raises(DataError, match="nested more than 64 times"):
        files.parse_json(f"[{text}]", "x", DataError)


@pytest.mark.parametrize("text", ["{},", "[],", '{"a":[]},'])
def test_json_of_more_lists_and_objects_than_fit(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    whole = f"[{text * 400}1]"
    groups = whole.count("[") + whole.count("{")
    monkeypatch.setattr(files, "JSON_GROUPS", groups)
    assert len(files.parse_json(whole, "x", DataError)) == 401
    monkeypatch.setattr(files, "JSON_GROUPS", groups - 1)
    with pytest.raises(DataError, match=f"x: not valid JSON: {groups} lists and objects; the limit is"):
        files.parse_json(whole, "x", DataError)


def test_messages_show_the_beginning_of_a_value() -> None:
    bomb: Any = ["lol"] * 10
    for _ in range(30):
        bomb = [bomb] * 10
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    endless: list[Any] = []
    endless.append(endless)
    for value in (
        bomb,
        nested,
        endless,
        {"a": bomb},
        (bomb,),
        10**10_000,
        "x" * 10**7,
        b"x" * 10**7,
        {1: nested},
    ):
        assert len(shown(value)) <= 80
    assert "..." in shown("a" * 100, 20) and len(shown("a" * 100, 20)) == 20
    assert (shown("abc"), shown(None), shown([1, "b"]), shown({"a": 1})) == (
        "'abc'",
        "None",
        "[1, 'b']",
        "{'a': 1}",
    )


@pytest.mark.parametrize("answer", [bytes(io.DEFAULT_BUFFER_SIZE), b"["])
def test_positions_outside_of_a_file(tmp_path: Path, answer: bytes) -> None:
    (tmp_path / "a").write_bytes(answer)
    for offset, size in ((2**63, 4), (2**70, 4), (0, 2**62), (10**9, 4)):
        with pytest.raises(RecordError, match=str(tmp_path / "a")):
            base.read_at(tmp_path / "a", offset, size, limits.LINE_BYTES)


# Files of our own: metrics of a run, notes of a job, answers of a process that was started here.
OWN = {
    "unimo/training/callbacks/", "unimo/training/launch.py", "unimo/benchmark", "unimo/studies",
    "unimo/_runtime.py", "unimo/files.py", "unimo/augment/index.py", "unimo/augment/statistics.py",
    "unimo/training/memory.py", "unimo/doctor/", "unimo/tasks/seq2seq/batches.py",
}  # fmt: skip


def test_files_of_others_are_read_by_the_functions_that_have_limits() -> None:
    wrong = []
    for path in (
        *(ROOT / "unimo").rglob("*.py"),
        *(ROOT / "ppdet_features").rglob("*.py"),
        *(ROOT / "tools").glob("*.py"),
    ):
        name = str(path.relative_to(ROOT))
        if name.startswith(tuple(OWN)):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if (
                called in ("json.load", "yaml.safe_load", "pickle.load", "pickle.loads")
                or called.endswith((".read_text", ".read_bytes"))
                and name != "unimo/weights/files.py"
            ):
                wrong.append(f"{name}:{node.lineno} {called}")
            if called == "json.loads" and "json.dumps" not in ast.unparse(node):
                wrong.append(f"{name}:{node.lineno} {called}")
    assert not wrong, "\n".join(wrong)
