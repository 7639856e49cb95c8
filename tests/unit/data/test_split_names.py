"""Names of splits: every reader and job keeps held-out sets out of training, however they are spelled."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from picture_files import jpeg, write_pictures

from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter
from unimo.data.readers.open import open_all_splits, open_corpus, open_labeled_images
from unimo.data.readers.open_glue import open_glue
from unimo.data.splits import read_split, select, splits_of
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig
from unimo.tasks.seq2seq.data import open_generation

NAMES = {
    "validation": "val",
    "valid": "val",
    "Val": "val",
    "VALIDATION": "val",
    "val2014": "val",
    "val2017-00000-of-00001": "val",
    "eval": "val",
    "dev_3": "val",
    "development.part2": "val",
    "valset": "val",
    "val1": "val",
    "Test": "test",
    "test2015": "test",
    "testing-00003-of-00012": "test",
    "test-dev2015": "test-dev",
    "testdev": "test-dev",
    "test_std": "test-std",
    "test2": "test2",
    "testA": "testA",
    "minival2014": "rest_val",
    "rest-val": "rest_val",
    "RestVal": "rest_val",
    "TrainableVal": "trainable_val",
    "valminusminival2014": "trainable_val",
    "trainval": "trainval",
}
"""Made-up names of a file or folder beside `train` -> the split it is."""


def jsonl(path: Path, text: str) -> None:
    picture(path.parent / "pictures", text)
    row = {"image": f"pictures/{text}.jpg", "text": text}
    path.with_name(f"{path.name}.jsonl").write_text(json.dumps(row) + "\n")


def picture(folder: Path, text: str) -> Path:
    write_pictures(folder, [f"{text}.jpg"])
    return folder / f"{text}.jpg"


def tar(path: Path, text: str) -> None:
    (path.parent / "caption").write_text(text)
    with tarfile.open(path.with_name(f"{path.name}.tar"), "w") as archive:
        archive.add(picture(path.parent / "pictures", text), "1.jpg")
        archive.add(path.parent / "caption", "1.txt")


def arrow(path: Path, text: str) -> None:
    with ArrowWriter(path.parent, path.name, SCHEMAS["pairs"]) as writer:
        writer.write({"image": jpeg(1), "caption": [text], "image_id": text, "split": ""})


def lines(path: Path, text: str) -> None:
    path.with_name(f"{path.name}.txt").write_text(f"{text}\n")


def sources(path: Path, text: str) -> None:
    for ending in ("src", "tgt"):
        path.with_name(f"{path.name}.{ending}").write_text(f"{text}\n")


def table(path: Path, text: str) -> None:
    path.with_name(f"{path.name}.tsv").write_text(f"src\ttgt\n{text}\t{text}\n")


def glue(path: Path, text: str) -> None:
    path.with_name(f"{path.name}.tsv").write_text(f"sentence\tlabel\n{text}\t1\n")


def texts(folder: Path, split: str, kind: str = "pairs") -> list[str | None]:
    return [record.text for record in open_corpus(CorpusConfig(str(folder)), split, kind, DataConfig())]


def generated(folder: Path, split: str) -> list[str]:
    task = SimpleNamespace(format="auto", tokenized_input=False, dialog=False)
    run = SimpleNamespace(data=DataConfig(), task=task)
    return [record.references[0] for record in open_generation(CorpusConfig(str(folder)), split, run)]


def sentences(folder: Path, split: str) -> list[str | None]:
    return [record.text for record in open_glue(CorpusConfig(str(folder)), split, DataConfig(), "sst2")]


def pictures(folder: Path, split: str) -> list[str]:
    opened = open_corpus(CorpusConfig(str(folder)), split, "images", DataConfig())
    return [Path(record.image_id).stem for record in opened]


def classes(folder: Path, split: str) -> list[str]:
    opened = open_labeled_images(CorpusConfig(str(folder)), split, DataConfig())
    return [Path(record.image_id).stem for record in opened]


def prepared(folder: Path, split: str) -> list[str | None]:
    prepare_jsonl(folder, folder / "made")
    return texts(folder / "made", split)


READERS: dict[str, tuple[Callable[[Path, str], object], Callable[[Path, str], list]]] = {
    "jsonl": (jsonl, texts),
    "tar": (tar, texts),
    "arrow": (arrow, texts),
    "txt": (lines, lambda folder, split: texts(folder, split, "texts")),
    "lines": (sources, generated),
    "tsv": (table, generated),
    "glue": (glue, sentences),
    "pictures": (picture, pictures),
    "classes": (lambda path, text: picture(path / "cat", text), classes),
    "prepare jsonl": (jsonl, prepared),
}


@pytest.mark.parametrize("reader", READERS)
def test_only_train_is_trained_on_and_the_rest_is_found_by_its_split(tmp_path: Path, reader: str) -> None:
    make, read = READERS[reader]
    for number, (name, split) in enumerate(NAMES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / ("Train" if number % 3 else "train"), "learned")
        make(folder / name, "held out")
        assert read(folder, "train") == ["learned"], name
        assert read(folder, split) == ["held out"], name
        with pytest.raises(DataError, match="no split 'restval'"):
            read(folder, "restval")


@pytest.mark.parametrize("reader", ["jsonl", "tar", "arrow", "txt", "prepare jsonl"])
@pytest.mark.parametrize("name", ["holdout", "00042", "contest", "interval", "queries_3"])
def test_a_file_of_no_known_split_is_refused_beside_others(tmp_path: Path, reader: str, name: str) -> None:
    make, read = READERS[reader]
    make(tmp_path / "coco_train", "learned")
    make(tmp_path / name, "who knows")
    with pytest.raises(
        DataError, match=f"no telling to which split {name} belong.*rename them .{name}_train"
    ):
        read(tmp_path, "train")


@pytest.mark.parametrize("name", ["validation", "Dev", "val_00000_of_00001"])
def test_snli_ve_is_found_by_its_splits(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "images", "7")
    picture(tmp_path / "images", "8")
    for split, image in (("train", "7"), (name, "8")):
        row = {"Flickr30K_ID": image, "gold_label": "neutral", "sentence1": "p", "sentence2": split}
        (tmp_path / f"snli_ve_{split}.jsonl").write_text(json.dumps(row))
    (tmp_path / "._snli_ve_train.jsonl").write_bytes(b"\0")
    assert list(prepare_snli_ve(tmp_path, tmp_path / "images", tmp_path / "made")["splits"]) == [
        "train",
        "dev",
    ]
    assert texts(tmp_path / "made", "val", "entailment") == [name]


def test_names_that_say_several_splits_are_in_none_of_them(tmp_path: Path) -> None:
    assert read_split("train_and_test_captions").name == "test+train"
    assert select(splits_of(["my_train", "val_or_test_small"], ""), "val") == []
    assert read_split("test_suite_train").name == "train"  # the end decides


def test_further_words_belong_to_a_split(tmp_path: Path) -> None:
    for name in ("train", "val_matched", "val_mismatched"):
        jsonl(tmp_path / name, name)
    assert texts(tmp_path, "train") == ["train"]
    assert texts(tmp_path, "val") == ["val_matched", "val_mismatched"]
    assert texts(tmp_path, "val_matched") == ["val_matched"]


def test_of_one_split_that_is_there_twice_one_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a_val", "a_validation", "a_val_5k", "b_dev", "a_train", "b_train"):
        jsonl(tmp_path / name, name)
    assert texts(tmp_path, "train") == ["a_train", "b_train"]
    assert texts(tmp_path, "val") == ["a_val", "b_dev"]
    assert "val is read, val_5k, validation left out" in caplog.text
    assert texts(tmp_path, "validation") == ["a_validation", "b_dev"]
    assert sorted(
        record.text for record in open_all_splits(CorpusConfig(str(tmp_path)), "pairs", DataConfig())
    )


def test_years_are_not_mixed(tmp_path: Path) -> None:
    for name in ("train2014", "train2017", "val2014"):
        picture(tmp_path / name, name)
    with pytest.raises(DataError, match="no telling which of train2014, train2017 to read"):
        pictures(tmp_path, "train")
    assert pictures(tmp_path, "train2017") == ["train2017"]
    assert pictures(tmp_path, "val") == ["val2014"]


def test_files_of_macs_are_no_files(tmp_path: Path) -> None:
    for reader, (make, read) in READERS.items():
        folder = tmp_path / reader
        folder.mkdir()
        make(folder / "train", "learned")
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
            (folder / "__MACOSX").mkdir(exist_ok=True)
            (folder / "__MACOSX" / f"._{path.name}").write_bytes(b"\0\5\x16\7")
        assert read(folder, "train") == ["learned"], reader
