"""Splits that records say themselves: no reader and no job trains on what says that it is held out."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from picture_files import jpeg, write_pictures

from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.prepare.vqa import prepare_vqa
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter
from unimo.data.readers.base import Dataset, Kind
from unimo.data.readers.generation import JsonlFile, TsvFile
from unimo.data.readers.open import find_splits, open_corpus
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig, DataConfig

HELD_OUT = {
    "val": "val",
    "Val": "val",
    "VALIDATION": "val",
    "val2014": "val",
    "coco-val2017": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "test-00000-of-00002": "test",
    "testing": "test",
    "test-dev2015": "test-dev",
    "rest_val": "rest_val",
}
"""Field `split` of a record -> split of the record."""
NO_SPLIT = ("pretrain", "held-out", 1, 0.5, ["train"], {"train": 1}, True, "  ", "tr\u00e1in")
"""Names of no split."""


def jsonl(folder: Path, stem: str, said: list[Any]) -> Path:
    write_pictures(folder, [f"{number}.jpg" for number in range(len(said))])
    rows = [{"image": f"{n}.jpg", "texts": [str(n), f"{n}b"], "split": word} for n, word in enumerate(said)]
    path = folder / f"{stem}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def escaped(folder: Path, stem: str, said: list[Any]) -> Path:
    path = jsonl(folder, stem, said)
    path.write_text(path.read_text().replace('"split"', r'"\u0073pl\u0069t"'))
    return path


def json_list(folder: Path, stem: str, said: list[Any]) -> Path:
    rows = list(map(json.loads, jsonl(folder, stem, said).read_text().splitlines()))
    (folder / f"{stem}.jsonl").unlink()
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(rows))
    return path


def arrow(folder: Path, stem: str, said: list[Any]) -> Path:
    with ArrowWriter(folder, stem, SCHEMAS["pairs"]) as writer:
        for n, word in enumerate(said):
            caption = [str(n), f"{n}b"]
            word = word if word is None or isinstance(word, str) else "odd"  # a column of texts
            writer.write({"image": jpeg(n), "caption": caption, "image_id": str(n), "split": word})
    return folder / f"{stem}.arrow"


def tar(folder: Path, stem: str, said: list[Any], captions: bool = False, as_list: bool = False) -> Path:
    jsonl(folder, stem, said).unlink()
    with tarfile.open(folder / f"{stem}.tar", "w") as archive:
        for n, word in enumerate(said):
            archive.add(folder / f"{n}.jpg", f"{n}.jpg")
            item = [{"text": f"{n}{part}", "split": word} for part in ("", "b")]
            both = {"texts": [str(n), f"{n}b"], "split": word}
            (folder / "item").write_text(json.dumps(item if as_list else both))
            archive.add(folder / "item", f"{n}.json")
            if captions:
                (folder / "item").write_text(str(n))
                archive.add(folder / "item", f"{n}.txt")
    return folder / f"{stem}.tar"


def tar_of_lists(folder: Path, stem: str, said: list[Any]) -> Path:
    return tar(folder, stem, said, as_list=True)


def tar_with_captions(folder: Path, stem: str, said: list[Any]) -> Path:
    return tar(folder, stem, said, captions=True)


DIVIDED = [jsonl, escaped, json_list, arrow]
FORMATS = [*DIVIDED, tar, tar_of_lists, tar_with_captions]
KINDS: list[Kind] = ["pairs", "texts", "images"]
Writer = Callable[[Path, str, list[Any]], Path]


def opened(path: Path, split: str = "train", kind: Kind = "pairs") -> Dataset:
    return open_corpus(CorpusConfig(str(path)), split, kind, DataConfig())


def sound(dataset: Dataset) -> tuple[set[str], list[str]]:
    """Return the numbers of the rows that can be read, and why others cannot."""
    found, reasons = set(), []
    for index in range(len(dataset)):
        try:
            record = dataset[index]
        except RecordError as error:
            reasons.append(str(error))
            continue
        name = record.text or record.image_id.rpartition(":")[2].removesuffix(".jpg")
        found.add(name.rstrip("b"))
    return found, reasons


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stem", ["mine_train", "mine"])
def test_what_says_that_it_is_held_out_is_not_trained_on(
    tmp_path: Path, write: Writer, kind: Kind, stem: str
) -> None:
    said = ["train", *HELD_OUT, "Training", None, *NO_SPLIT, "restval", "train2014"]
    found, reasons = sound(opened(write(tmp_path, stem, said), kind=kind))
    silent = {str(said.index(None))} if stem == "mine_train" or "tar" in write.__name__ else set()
    words = ("train", "Training", "restval", "train2014")
    assert found == {str(said.index(word)) for word in words} | silent
    assert len(reasons) >= len(NO_SPLIT) and any(
        "split 'pretrain' is none of train, val" in r for r in reasons
    )
    if stem == "mine_train":
        assert any("of split 'dev', and its file is of train" in reason for reason in reasons)


@pytest.mark.parametrize("write", DIVIDED)
@pytest.mark.parametrize(("word", "split"), HELD_OUT.items())
def test_files_without_a_split_are_divided_by_their_records(
    tmp_path: Path, write: Writer, word: str, split: str
) -> None:
    path = write(tmp_path, "mine", ["train", word, "TRAIN", word])
    assert sound(opened(path)) == ({"0", "2"}, [])
    assert sound(opened(path, split)) == ({"1", "3"}, [])
    assert set(find_splits(CorpusConfig(str(path)), "pairs", DataConfig())) == {"train", split}
    with pytest.raises(DataError, match=r"no split 'testA'; found: .*train"):
        opened(path, "testA")


def test_files_of_one_corpus_are_divided_together(tmp_path: Path) -> None:
    arrow(tmp_path, "sbu_0", ["train", "val"])
    arrow(tmp_path, "sbu_1", ["test", "val"])
    assert len(opened(tmp_path, "val")) == 4 and len(opened(tmp_path, "train+val")) == 6
    arrow(tmp_path, "sbu_2", [None, ""])
    with pytest.raises(DataError, match=r"sbu_2.arrow: neither its name nor its records say a split"):
        opened(tmp_path)


@pytest.mark.parametrize("write", DIVIDED)
@pytest.mark.parametrize("said", [None, ""])
def test_records_that_say_nothing_are_read_as_before(tmp_path: Path, write: Writer, said: str | None) -> None:
    path = write(tmp_path, "mine", [said] * 30)
    assert sound(opened(path, kind="texts")) == (set(map(str, range(30))), [])
    hashed = {split: sound(opened(path, split))[0] for split in ("train", "val")} if write != arrow else {}
    assert not hashed or (len(hashed["train"]) > 20 and hashed["val"] and not hashed["train"] & hashed["val"])


def test_training_records_in_other_files_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unimo.data.splits._warned", set())
    assert sound(opened(arrow(tmp_path, "mine_val", ["train"] * 3), "val"))[0] == {"0", "1", "2"}
    assert caplog.text.count("it says that it is of train, in a file of val") == 1


@pytest.mark.parametrize("kind", ["timestamp[s]", "timestamp[ns]", "duration[s]"])
@pytest.mark.parametrize("column", ["split", "image_id", "caption"])
def test_times_beyond_pythons_are_broken_records(tmp_path: Path, kind: str, column: str) -> None:
    types = {"timestamp[s]": pa.timestamp("s"), "timestamp[ns]": pa.timestamp("ns")}
    types |= {"duration[s]": pa.duration("s")}
    times = pa.array([2**62, 1]).view(types[kind])
    columns = {"image": pa.array([jpeg(1), jpeg(2)]), "caption": pa.array([["a"], ["b"]])}
    is_list = column == "caption"
    columns[column] = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), times) if is_list else times
    table = pa.table(columns)
    with (
        pa.OSFile(str(tmp_path / "train.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    data = opened(tmp_path)
    for index in range(2):
        with pytest.raises(RecordError, match=f"train.arrow, row {index}"):
            data[index]


def test_own_lines_become_tables_of_what_they_say(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "in", "mine", ["train", "Val", "train", "held-out", "test2015"])
    summary = prepare_jsonl(path, tmp_path / "out", max_missing_rate=0.5)
    assert {split: found["samples"] for split, found in summary["splits"].items()} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }
    assert summary["broken"] == 2 and "split 'held-out' is none of train, val" in summary["examples"][0]
    path = jsonl(tmp_path / "named", "train", ["train", "dev", "train"])
    assert prepare_jsonl(path, tmp_path / "named", max_missing_rate=0.5)["broken"] == 2


@pytest.mark.parametrize(("word", "split"), {"Train": "train", "validation": "val", "dev": "val"}.items())
def test_karpathys_splits_are_spelled_in_many_ways(tmp_path: Path, word: str, split: str) -> None:
    write_pictures(tmp_path, ["1.jpg", "2.jpg"])
    entries = [
        {"filename": f"{number}.jpg", "split": said, "sentences": [{"raw": "a dog"}]}
        for number, said in ((1, word), (2, "testA"))
    ]
    (tmp_path / "dataset_own.json").write_text(json.dumps({"images": entries}))
    source = (tmp_path / "dataset_own.json", tmp_path, tmp_path / "out")
    summary = prepare_karpathy(*source, max_missing_rate=0.5)
    assert list(summary["splits"]) == [split] and "split 'testA', not one of" in summary["examples"][0]


def test_lines_of_snli_ve(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["1.jpg"])
    line = {"gold_label": "neutral", "sentence1": "a", "sentence2": "b", "Flickr30K_ID": "1"}
    lines = [line, line | {"split": "Dev"}, line | {"split": "train"}]
    (tmp_path / "snli_ve_train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    summary = prepare_snli_ve(tmp_path, tmp_path, tmp_path / "out", max_missing_rate=0.5)
    assert summary["splits"]["train"]["sentences"] == 2 and summary["broken"] == 1


@pytest.mark.parametrize("said", [{"data_subtype": "val2014"}, {"split": "val"}])
def test_questions_of_vqa(tmp_path: Path, said: dict[str, str]) -> None:
    write_pictures(tmp_path / "train2014", ["COCO_train2014_000000000001.jpg"])
    asked = [{"question_id": n, "image_id": 1, "question": "What?"} for n in range(12)]
    answers = [{"answer": "yes"}] * 10
    given = [{"question_id": n, "multiple_choice_answer": "yes", "answers": answers} for n in range(12)]
    whole = said if "data_subtype" in said else {}
    asked[0] |= {} if whole else said
    questions = {"questions": asked, **whole}
    (tmp_path / "v2_OpenEnded_mscoco_train2014_questions.json").write_text(json.dumps(questions))
    (tmp_path / "v2_mscoco_train2014_annotations.json").write_text(json.dumps({"annotations": given}))
    source = (tmp_path, tmp_path, tmp_path / "out")
    if whole:
        with pytest.raises(DataError, match="'data_subtype': it says that it is of split 'val2014'"):
            prepare_vqa(*source)
    else:
        assert prepare_vqa(*source, max_missing_rate=0.1)["splits"]["train"]["questions"] == 11


@pytest.mark.parametrize("word", HELD_OUT)
def test_texts_to_write(tmp_path: Path, word: str) -> None:
    (tmp_path / "train.tsv").write_text(f"src\tsplit\ttgt\na\ttrain\tb\nc\t{word}\td\n")
    rows = [{"source": "a", "target": "b", "split": "train"}, {"source": "c", "target": "d", "split": word}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for data in (TsvFile(tmp_path / "train.tsv", ""), JsonlFile(tmp_path / "train.jsonl", "")):
        assert data[0].sources == ("a",)
        with pytest.raises(RecordError, match=r"line [23]: it says that it is of split"):
            data[1]
