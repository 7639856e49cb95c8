"""Files that Windows programs save begin with a byte order mark; UTF-16 is refused by name."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from picture_files import write_pictures
from test_tar import shard

from ppdet_features.config import read_names
from unimo.augment.corpus import _likely_kind
from unimo.config import read_yaml
from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.readers.open import open_answers, open_corpus
from unimo.data.readers.open_glue import open_glue
from unimo.data.regions.tsv import TsvRegions
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import UnimoError
from unimo.files import located_lines, read_lines
from unimo.inference.labels import read_labels
from unimo.settings import CorpusConfig, DataConfig
from unimo.tasks.caption.tags import read_tags
from unimo.tasks.seq2seq.data import open_generation

MARK = codecs.BOM_UTF8
Reading = Callable[[Path, Callable[[str, str], Path]], object]
"""Function of a folder and of one that saves a file there; returns what is read of it."""


def texts(folder: Path, kind: str = "pairs") -> list:
    return [record.text for record in open_corpus(CorpusConfig(str(folder)), "train", kind, DataConfig())]


def jsonl(folder: Path, save: Callable[[str, str], Path]) -> object:
    rows = [json.dumps({"image": "1.jpg", "text": text}) for text in ("one", "two")]
    save("train.jsonl", "\n".join(rows))
    return texts(folder)


def json_list(folder: Path, save: Callable[[str, str], Path]) -> object:
    return texts(save("train.json", json.dumps([{"image": "1.jpg", "caption": "one"}])))


def lines(folder: Path, save: Callable[[str, str], Path]) -> object:
    save("a.txt", "one\ntwo\n")
    return texts(folder, "texts")


def prepared(folder: Path, save: Callable[[str, str], Path]) -> object:
    jsonl(folder, save)
    return prepare_jsonl(folder, folder / "out")["splits"]["train"]["samples"]


def karpathy(folder: Path, save: Callable[[str, str], Path]) -> object:
    images = [{"filename": "1.jpg", "split": "train", "sentences": [{"raw": "one"}]}]
    path = save("k.json", json.dumps({"images": images}))
    return prepare_karpathy(path, folder, folder / "out")["splits"]["train"]["captions"]


def snli_ve(folder: Path, save: Callable[[str, str], Path]) -> object:
    row = {"Flickr30K_ID": "1", "gold_label": "neutral", "sentence1": "p", "sentence2": "h"}
    save("snli_ve_train.jsonl", json.dumps(row))
    return prepare_snli_ve(folder, folder, folder / "out")["splits"]["train"]["sentences"]


def answers(folder: Path, save: Callable[[str, str], Path]) -> object:
    save("answers.json", '["yes", "no"]')
    return open_answers(CorpusConfig(str(folder)), DataConfig())


def glue(header: str, text: str, task: str) -> Reading:
    def read(folder: Path, save: Callable[[str, str], Path]) -> object:
        save("train.tsv", header + text)
        return [record.text for record in open_glue(CorpusConfig(str(folder)), "train", DataConfig(), task)]

    return read


def generation(*files: tuple[str, str]) -> Reading:
    def read(folder: Path, save: Callable[[str, str], Path]) -> object:
        for name, content in files:
            save(name, content)
        task = SimpleNamespace(format="auto", tokenized_input=False, dialog=False)
        run = SimpleNamespace(data=DataConfig(), task=task)
        return [
            (record.sources, record.references)
            for record in open_generation(CorpusConfig(str(folder)), "train", run)
        ]

    return read


def regions(folder: Path, save: Callable[[str, str], Path]) -> object:
    table = base64.b64encode(np.ones((1, 4), "<f4").tobytes()).decode()
    return TsvRegions(save("r.tsv", "\t".join(["1", "9", "9", "1", table, table, table]))).names()


def tokenizer(folder: Path, save: Callable[[str, str], Path]) -> object:
    names = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "ab", "<mask>"]
    save("vocab.json", json.dumps({name: number for number, name in enumerate(names)}))
    save("merges.txt", "#version: 0.2\na b\n")
    first = load_tokenizer(folder)
    for path in folder.iterdir():
        path.unlink()
    ids = {"a": 0, "b": 1, "ab": 2}
    save("en.encoder.json", json.dumps(ids))
    save("en.vocab.bpe", "#version: 0.2\na b\n")
    save("en.vocab.txt", "\n".join(["<s>", "<pad>", "</s>", "<unk>", "0", "1", "2", "<mask>"]))
    second = load_tokenizer(folder)
    return [one.encode("ab", 9) for one in (first, second)]


def tokenizer_json(folder: Path, save: Callable[[str, str], Path]) -> object:
    load_tokenizer("scenes").save(folder)
    save("tokenizer.json", (folder / "tokenizer.json").read_text())
    return load_tokenizer(folder).vocab_size


READINGS: dict[str, Reading] = {
    "jsonl": jsonl,
    "json list": json_list,
    "txt": lines,
    "prepare jsonl": prepared,
    "prepare karpathy": karpathy,
    "prepare snli-ve": snli_ve,
    "answers.json": answers,
    "glue": glue("sentence\tlabel\n", "a film\t1\n", "sst2"),
    "glue, label first": glue("label\tsentence\n", "1\ta film\n", "sst2"),
    "glue without header": glue("", "a film\t1\n", "sst2"),
    "lines": generation(("train.src", "one\n"), ("train.tgt", "eins\n")),
    "tsv": generation(("train.tsv", "tgt\tsrc\na\tb\n")),
    "generation jsonl": generation(("train.jsonl", '{"source": "a", "target": "b"}')),
    "squad": generation(("train.json", '{"data": [{"paragraphs": []}]}')),
    "regions": regions,
    "tokenizer": tokenizer,
    "tokenizer.json": tokenizer_json,
    "labels": lambda folder, save: read_labels(save("labels", "cat\ndog\n")),
    "names": lambda folder, save: read_names(save("names", "cat,feline\ndog\n")),
    "tags": lambda folder, save: list(read_tags(save("tags", "1.jpg;4;0;0\n"), 9, 9, 9)),
    "yaml": lambda folder, save: read_yaml(save("a.yaml", "model: {name: x}\n")),
    "guess of the kind": lambda folder, save: _likely_kind(str(save("a.jsonl", '{"text": "one"}'))),
}


def run(folder: Path, name: str, save_bytes: Callable[[str], bytes]) -> object:
    folder.mkdir()
    write_pictures(folder, ["1.jpg"])

    def save(file: str, content: str) -> Path:
        (folder / file).write_bytes(save_bytes(content))
        return folder / file

    return READINGS[name](folder, save)


@pytest.mark.parametrize("name", [name for name in READINGS if name != "squad"])
def test_a_byte_order_mark_is_none_of_the_text(tmp_path: Path, name: str) -> None:
    plain = run(tmp_path / "plain", name, lambda content: content.encode())
    assert plain
    assert run(tmp_path / "mark", name, lambda content: MARK + content.encode()) == plain


@pytest.mark.parametrize("name", [name for name in READINGS if "guess" not in name])
@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, name: str, coding: str) -> None:
    mark = codecs.BOM_UTF16_LE if coding == "utf-16-le" else codecs.BOM_UTF16_BE
    with pytest.raises(UnimoError, match="it is UTF-16, expected UTF-8; convert it: iconv"):
        run(tmp_path / "a", name, lambda content: mark + content.encode(coding))


def test_members_of_shards(tmp_path: Path) -> None:
    members = {"1.jpg": b"1", "1.txt": MARK + b"one", "2.jpg": b"2", "2.json": MARK + b'{"text": "two"}'}
    shard(tmp_path / "0.tar", members)
    assert texts(tmp_path) == ["one", "two"]


def test_joined_files_have_marks_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(MARK + b"one\n" + MARK + b"two\r\nthree")
    assert texts(path, "texts") == ["one", "two", "three"]
    assert list(located_lines(path)) == [(3, b"one\n"), (10, b"two\r\n"), (15, b"three")]
    assert list(read_lines(path)) == [b"one\n", b"two\r\n", b"three"]
