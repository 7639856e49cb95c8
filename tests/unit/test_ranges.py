"""unimo/ranges.py and the ranges of all configs: no number of a setting is without one."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from unimo import registry
from unimo.config import check_fields, coerce, merge_into, parse_overrides
from unimo.errors import ConfigError
from unimo.ranges import Count, Dropout, Number, Positive, Range, Seed, Share, read_number


def config_classes() -> list[type]:
    """All dataclasses of the repository that are named as a config."""
    root, found = Path(__file__).resolve().parents[2], {}
    for path in sorted([*root.glob("unimo/**/*.py"), *root.glob("ppdet_features/*.py")]):
        if re.search(r"^class \w*(Config|Settings)\b", path.read_text(encoding="utf8"), re.M):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            for one in vars(importlib.import_module(name)).values():
                if isinstance(one, type) and one.__name__.endswith(("Config", "Settings")):
                    found[one] = one if dataclasses.is_dataclass(one) else None
    return [one for one in found.values() if one]


def bare_numbers(kind: Any) -> Iterator[Any]:
    """The int and float in an annotation that no range belongs to."""
    if kind in (int, float):
        yield kind
    elif typing.get_origin(kind) is not Annotated:
        for part in typing.get_args(kind):
            yield from bare_numbers(part)


def test_every_number_of_every_config_has_a_range():
    classes = config_classes()
    assert len(classes) > 50
    hints = {one: typing.get_type_hints(one, include_extras=True) for one in classes}
    bare = [
        f"{one.__module__}.{one.__name__}.{field.name}: {hints[one][field.name]}"
        for one in classes
        for field in dataclasses.fields(one)
        if any(bare_numbers(hints[one][field.name]))
    ]
    assert not bare, "\n".join(bare)


def test_defaults_and_all_registered_sizes_are_in_their_ranges():
    for one in config_classes():
        if all(field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
               for field in dataclasses.fields(one)):  # fmt: skip
            check_fields(one(), one.__name__)
    for name in registry.list_models():
        check_fields(registry.model_config(name), name)
        for task in registry.TASKS:
            check_fields(registry.task_config(task, name), task)


def numeric_fields() -> list[Any]:
    """Each number of each config, with a value below, above and besides its range."""
    cases = []
    for one in config_classes():
        for name, kind in typing.get_type_hints(one, include_extras=True).items():
            for part in (kind, *typing.get_args(kind)):
                if typing.get_origin(part) is Annotated:
                    cases.append(pytest.param(part, f"{one.__name__}.{name}", id=f"{one.__name__}.{name}"))
    return cases


@pytest.mark.parametrize(("kind", "name"), numeric_fields())
def test_no_number_is_nan_infinite_or_outside(kind: Any, name: str):
    allowed = typing.get_args(kind)[1]
    outside = [
        math.nan,
        math.inf,
        -math.inf,
        "nan",
        "inf",
        "1e400",
        "010",
        "1_000",
        "12:30",
        "0x10",
        "yes",
        True,
    ]
    outside += [allowed.least - 1 if allowed.least > -1e9 else -4e38, allowed.most * 2]
    for value in outside:
        with pytest.raises(ConfigError, match=re.escape(name)):
            coerce(value, kind, name)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("1e-5", float, 1e-5), ("1.0e-12", float, 1e-12), ("+5", int, 5), ("2e3", int, 2000),
        (".5", float, 0.5), ("5.", float, 5.0), ("-0", int, 0), ("010", int, None), ("010", float, None),
        ("1_000", int, None), ("12:30", int, None), ("0x10", int, None), ("0o17", int, None),
        ("²", int, None), ("", float, None), (".", float, None), ("e5", float, None), ("1.5", int, None),
        ("9" * 41, float, None), ("1e400", int, None), (True, int, None), (None, float, None),
        ([1], int, None), (10**400, float, None), (math.nan, int, None),
    ],
)  # fmt: skip
def test_read_number(text: Any, kind: type, expected: float | None):
    assert read_number(text, kind) == expected


@pytest.mark.parametrize(
    ("kind", "number", "said"),
    [
        (Share, 1.5, "x 1.5: expected 0 to 1; try 0.5"),
        (Dropout, 1, "x 1: expected 0 to below 1; try 0.5"),
        (Positive, 0, "x 0: expected a number above 0; try 0.5"),
        (Count, -3, "x -3: expected 0 or more"),
        (Number, math.nan, "x nan: expected a finite number"),
        (Seed, 2**32, "x 4294967296: expected 0 to 4294967295"),
    ],
)
def test_messages_say_what_was_given_and_expected(kind: Any, number: float, said: str):
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        coerce(number, kind, "x", 0.5)


@dataclasses.dataclass(frozen=True)
class Text:
    text: str = ""
    texts: list[str] = dataclasses.field(default_factory=list)
    flag: bool = False
    number: Annotated[int, Range(0, 99)] = 7
    share: Share | None = None


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("text=010", "010"), ("text=1_000", "1_000"), ("text=12:30", "12:30"), ("text=no", "no"),
        ("text=2024-01-01", "2024-01-01"), ("text=0x10", "0x10"), ("text=10", "10"), ("text=1e3", "1e3"),
        ("texts=[yes, no, on]", ["yes", "no", "on"]), ("flag=yes", True), ("flag=Off", False),
        ("flag=true", True), ("number=+5", 5), ("share=1e-3", 1e-3), ("share=null", None),
    ],
)  # fmt: skip
def test_words_are_read_by_what_the_field_is(word: str, found: Any):
    values = parse_overrides([word])
    assert getattr(merge_into(Text(), values), next(iter(values))) == found


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("number=010", "config.number: expected int, found '010'"),
        ("number=1_000", "found '1_000'"),
        ("number=12:30", "found '12:30'"),
        ("number=no", "found 'no'"),
        ("number=" + "9" * 5000, "expected int"),
        ("share=.nan", "config.share nan: expected a finite number"),
        ("share=-.inf", "config.share -inf: expected a finite number"),
        ("share=1e999", "config.share inf: expected"),
        ("text=1.10", "expected str, found 1.1; put it in quotes"),
        ("text=true", "put it in quotes"),
        ('text="a\\0b"', "NUL"),
        ('text="\\ud800"', "half a character"),
        ("flag=1", "expected bool, found 1"),
        ("text=!!int x", "not valid YAML"),
        ("text=!!timestamp x", "not valid YAML"),
        ("text=!!bool x", "not valid YAML"),
        ("text=" + "[" * 5000, "YAML|nested"),
    ],
)
def test_words_that_are_none_are_refused(word: str, said: str):
    with pytest.raises(ConfigError, match=said):
        merge_into(Text(), parse_overrides([word]))
