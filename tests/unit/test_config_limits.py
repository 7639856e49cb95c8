"""Configs of few bytes and endless values: one error that names the file, in no time."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest

from unimo.config import merge_into, parse_overrides, read_yaml
from unimo.errors import ConfigError


def laughs(levels: int, width: int = 10) -> str:
    """Lists of aliases of lists of aliases."""
    lines = [f"a0: &a0 [{', '.join(['lol'] * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int, width: int = 10) -> str:
    """Mappings that are merged from the one before, again and again."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(9), "aliases stand for more than 500,000 values"),
        (laughs(30), "aliases stand for more"),
        (merges(30), "aliases stand for more"),
        (laughs(100), "aliases stand for more|nested too deeply"),
        ("a: &a [*a]", "for themselves"),
        ("a: &a {b: {c: *a}}", "for themselves"),
        ("a: &a\n  <<: *a", "for themselves"),
        ("a: " + "[" * 100 + "]" * 100, "nested too deeply"),
        ("a: " + "[" * 50_000, "nested too deeply|not valid YAML"),
        ("a: " + "{b: " * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ("\n".join(" " * n + "a:" for n in range(200)), "nested too deeply"),
        ("a:\n  " + "- " * 500 + "1", "nested too deeply"),
    ],
    ids=range(12),
)
def test_yaml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert "a.yaml" in str(caught.value) and len(str(caught.value)) < 800


@pytest.mark.parametrize("value", ["[" * 100 + "]" * 100, "{a: " * 5000 + "}" * 5000, "&a [*a]"])
def test_overrides(value: str) -> None:
    with pytest.raises(ConfigError, match="override .* the value") as caught:
        parse_overrides([f"a={value}"])
    assert len(str(caught.value)) < 800


@dataclass(frozen=True)
class Inner:
    number: int = 1


@dataclass(frozen=True)
class OneOfEach:
    number: int = 1
    share: float = 1.0
    flag: bool = False
    word: str = ""
    choice: Literal["a", "b"] = "a"
    names: list[str] = field(default_factory=list)
    table: dict[str, int] = field(default_factory=dict)
    maybe: int | None = None
    section: Inner = field(default_factory=Inner)


@pytest.mark.parametrize("key", [each.name for each in fields(OneOfEach)])
def test_messages_about_large_values_are_short(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.yaml").write_text(f"{laughs(5)}\n{key}: *a4")
    many = read_yaml(tmp_path / "a.yaml")[key]
    refused = 0
    for value in (many, {"x": many}, "w" * 10**6, [[{"x": many}]], [{"x" * 10**5: many}]):
        try:
            merge_into(OneOfEach(), {key: value})
        except ConfigError as error:
            assert len(str(error)) < 500
            refused += 1
    assert refused >= 3
    with contextlib.suppress(ConfigError):
        parse_overrides([f"{key}={'x' * 10**6}"])


def test_a_config_of_too_many_files(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.yaml").write_text(f"_base_: [{number + 1}.yaml, {number + 1}.yaml]\na: 1")
    (tmp_path / "30.yaml").write_text("b: 1")
    with pytest.raises(ConfigError, match="made of more than 100 files"):
        read_yaml(tmp_path / "0.yaml")
    assert read_yaml(tmp_path / "26.yaml") == {"a": 1, "b": 1}


def test_keys_of_many_parts() -> None:
    for word in (".".join("a" * 100_000) + "=1", "a" + "." * 1000 + "=1"):
        with pytest.raises(ConfigError, match="parts; the limit is 32"):
            parse_overrides([word, word])
