"""Class names and prompts of a person: what is taken and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from unimo.errors import ConfigError, DataError
from unimo.inference.labels import align_labels, check_prompt, read_labels, split_labels


def labels(folder: Path, content: bytes) -> list[str]:
    file = folder / "labels.txt"
    file.write_bytes(content)
    return read_labels(file)


def test_one_name_a_line(tmp_path: Path) -> None:
    assert labels(tmp_path, "cat\r\n polar bear \nkärcher\n\n".encode()) == ["cat", "polar bear", "kärcher"]
    assert split_labels("cat, dog") == ["cat", "dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "labels.txt is empty"),
        (b"\n \n", "labels.txt is empty"),
        (b"cat\ndog\ncat\n", "labels.txt, line 3: 'cat' stands there already as line 1"),
        (b"cat\n\ndog\n", "labels.txt, line 2: no class name"),
        (b"cat\n", "has one class, 'cat'"),
        (b"caf\xe9\n", "not valid UTF-8 at byte 3"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels(tmp_path, content)


def test_missing_file_and_bad_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read labels"):
        read_labels(tmp_path / "nowhere")
    with pytest.raises(DataError, match="name 2: 'cat' stands there already"):
        split_labels("cat,cat")
    with pytest.raises(DataError, match="is empty"):
        split_labels(" , ")


def test_prompts_have_one_place_for_a_name() -> None:
    assert check_prompt("a {} .") == "a {} ."
    for prompt in ("a photo", "{} {}", "a {name}"):
        with pytest.raises(ConfigError, match="expected one {}"):
            check_prompt(prompt)


def test_labels_go_by_name_else_by_place() -> None:
    assert align_labels(["dog", "cat"], ["cat", "dog"], "f") == ["cat", "dog"]
    assert align_labels(["tench", "goldfish"], ["n01440764", "n01443537"], "f") == ["tench", "goldfish"]
    with pytest.raises(DataError, match="f has 3 names and the data set 2 classes .*not among them: ox, cow"):
        align_labels(["cat", "ox", "cow"], ["cat", "dog"], "f")
