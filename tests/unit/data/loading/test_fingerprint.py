"""The fingerprint of a corpus follows its content, whichever reader opens it, and not where it lies."""

import dataclasses
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from unimo.data.loading.fingerprint import fingerprint
from unimo.data.readers.open import open_corpus, open_labeled_images
from unimo.errors import RecordError
from unimo.settings import CorpusConfig, DataConfig

TEXTS = [f"a picture of thing {number}" for number in range(9)]


def jsonl(folder: Path, texts, pictures):
    for number, picture in enumerate(pictures):
        (folder / f"{number}.png").write_bytes(picture)
    rows = [{"image": f"{number}.png", "text": text} for number, text in enumerate(texts)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "pairs"


def arrow(folder: Path, texts, pictures):
    table = pa.table(
        {
            "image": pa.array(pictures, pa.binary()),
            "caption": [[text] for text in texts],
            "image_id": [str(number) for number in range(len(texts))],
        }
    )
    with (
        pa.OSFile(str(folder / "a_train.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    return "pairs"


def tar(folder: Path, texts, pictures):
    with tarfile.open(folder / "train-000.tar", "w") as file:
        for number, (text, picture) in enumerate(zip(texts, pictures, strict=True)):
            for suffix, content in ((".png", picture), (".txt", text.encode())):
                path = folder / f"{number}{suffix}"
                path.write_bytes(content)
                file.add(path, path.name)
                path.unlink()
    return "pairs"


def lines(folder: Path, texts, pictures):
    (folder / "train.txt").write_text("\n".join(texts) + "\n")
    return "texts"


def pictures_alone(folder: Path, texts, pictures):
    for number, picture in enumerate(pictures):
        (folder / f"{number}.png").write_bytes(picture)
    return "images"


def classes(folder: Path, texts, pictures):
    for number, picture in enumerate(pictures):
        path = folder / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    return "labels"


WRITERS = [jsonl, arrow, tar, lines, pictures_alone, classes]


def taken(folder: Path, kind: str) -> str:
    corpus, data = CorpusConfig(str(folder), name="mine"), DataConfig()
    if kind == "labels":
        return fingerprint(open_labeled_images(corpus, "train", data))
    return fingerprint(open_corpus(corpus, "train", kind, data))


@pytest.mark.parametrize("write", WRITERS)
def test_replaced_data_of_the_same_count_is_noticed_and_a_move_is_not(tmp_path, make_image, write):
    def at(name, texts=TEXTS, first=0):
        pictures = [make_image((first + 20 * number, 90, 200)) for number in range(len(texts))]
        (tmp_path / name).mkdir()
        return taken(tmp_path / name, write(tmp_path / name, texts, pictures))

    before = at("a")
    assert at("again") == before
    assert write is not jsonl or taken(shutil.copytree(tmp_path / "a", tmp_path / "b"), "pairs") == before
    changed = [at("fewer", TEXTS[:-1])]
    if write not in (pictures_alone, classes):
        changed += [at("other", [*TEXTS[:4], "another text", *TEXTS[5:]]), at("order", TEXTS[::-1])]
    if write is not lines:
        changed.append(at("pictures", first=1))
    assert before not in changed and len(set(changed)) == len(changed)


def test_one_replaced_shard_of_many_is_noticed():
    whole = [f"text {number}" for number in range(100_000)]
    other = [*whole[:90_000], *(text.upper() for text in whole[90_000:91_000]), *whole[91_000:]]
    assert fingerprint(whole) == fingerprint(list(whole)) != fingerprint(other)


def test_broken_samples_and_odd_values_have_a_place(tmp_path):
    class Odd(list):
        def __getitem__(self, index):
            if index == 1:
                raise RecordError("broken")
            return super().__getitem__(index)

    # The representation of the second value has an address, which must not count.
    odd, again = ([{"a": object(), "b": [1.5, None]}, "", tmp_path / "missing"] for _ in range(2))
    assert fingerprint(Odd(odd)) == fingerprint(Odd(again)) != fingerprint(odd[:1] + odd)


@pytest.mark.parametrize("empty", [None, "", 0, ()])
def test_a_field_that_a_later_release_adds_to_records_changes_nothing_until_it_is_used(empty) -> None:
    older = dataclasses.make_dataclass("Record", [("text", str)])
    newer = dataclasses.make_dataclass("Record", [("text", str), ("more", object, empty)])
    before = fingerprint([older(text) for text in TEXTS])
    assert fingerprint([newer(text) for text in TEXTS]) == before
    assert fingerprint([newer(text, "used") for text in TEXTS]) != before
