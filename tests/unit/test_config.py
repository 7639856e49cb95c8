"""unimo/config.py: merging, overrides, types, and errors that name the key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
import yaml

from unimo import config
from unimo.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    size: int = 3
    rate: float = 0.5
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    mode: Literal["a", "b"] = "a"
    limit: float | None = None
    is_on: bool = False
    scores: dict[str, float] = field(default_factory=dict)
    parts: list[Inner] = field(default_factory=list)


def write(path, text):
    path.write_text(text, encoding="utf8")
    return path


def test_base_files_are_merged_underneath_and_later_ones_win(tmp_path):
    write(tmp_path / "one.yaml", "x: {a: 1, b: 1}\ny: 1")
    write(tmp_path / "two.yaml", "_base_: one.yaml\nx: {b: 2}")
    write(tmp_path / "three.yaml", "z: 3\nx: {c: 3}")
    top = write(tmp_path / "top.yaml", "_base_: [two.yaml, three.yaml]\nx: {c: 4}")
    assert config.read_yaml(top) == {"x": {"a": 1, "b": 2, "c": 4}, "y": 1, "z": 3}


def test_base_is_relative_to_its_own_file(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "base.yaml", "x: 1")
    assert config.read_yaml(write(tmp_path / "deep" / "top.yaml", "_base_: ../base.yaml")) == {"x": 1}


def test_empty_file_is_an_empty_mapping(tmp_path):
    assert config.read_yaml(write(tmp_path / "empty.yaml", "# nothing\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: [1", "not valid YAML"),
        ("- 1\n- 2", "expected a mapping at the top, found list"),
        ("_base_: self.yaml", "include it again"),
        ("_base_: gone.yaml", "cannot read config .*gone.yaml"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    path = write(tmp_path / "self.yaml", text)
    with pytest.raises(ConfigError, match=message):
        config.read_yaml(path)


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigError, match="not valid UTF-8 at byte 9"):
        config.read_yaml(path)


def test_merge_leaves_its_inputs_alone():
    under, over = {"x": {"a": 1}}, {"x": {"b": 2}}
    assert config.merge_plain(under, over) == {"x": {"a": 1, "b": 2}}
    assert (under, over) == ({"x": {"a": 1}}, {"x": {"b": 2}})


def test_another_name_replaces_the_section():
    under = {"model": {"name": "one", "depth": 3}}
    assert config.merge_plain(under, {"model": {"name": "two"}}) == {"model": {"name": "two"}}
    assert config.merge_plain(under, {"model": {"name": "one", "width": 2}})["model"]["depth"] == 3


def test_overrides_are_typed_and_nested():
    words = [
        "train.max_steps=50",
        "optim.lr=1e-5",
        "data.pairs=[a,b]",
        "train.recompute=true",
        "x=",
        "--a.b=null",
    ]
    assert config.parse_overrides(words) == {
        "train": {"max_steps": 50, "recompute": True},
        "optim": {"lr": "1e-5"},  # YAML 1.1 reads a string; the schema makes it a number
        "data": {"pairs": ["a", "b"]},
        "x": "",
        "a": {"b": None},
    }


def test_a_value_may_hold_an_equals_sign():
    assert config.parse_overrides(["path=/a=b"]) == {"path": "/a=b"}


@pytest.mark.parametrize("word", ["train.max_steps", "=3", "x=[1"])
def test_bad_override_is_shown(word):
    with pytest.raises(ConfigError, match="override"):
        config.parse_overrides([word])


def test_merge_into_converts_what_loses_nothing():
    values = {
        "inner": {"size": 4.0, "rate": "1e-5", "tags": "one"},
        "limit": 2,
        "is_on": True,
        "scores": {"a": 1},
        "parts": [{"size": 1}, {"rate": 2}],
    }
    merged = config.merge_into(Outer(), values)
    assert merged.inner == Inner(size=4, rate=1e-5, tags=["one"])
    assert isinstance(merged.inner.size, int)
    assert merged.limit == 2.0 and merged.is_on is True and merged.scores == {"a": 1.0}
    assert merged.parts == [Inner(size=1), Inner(rate=2.0)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"size": 1.5}}, r"config.inner.size: expected int, found 1.5"),
        ({"inner": {"size": True}}, r"config.inner.size: expected int, found True"),
        ({"inner": {"rate": "fast"}}, r"config.inner.rate: expected float, found 'fast'"),
        ({"inner": 3}, r"config.inner: expected a mapping, found 3"),
        ({"is_on": "yes please"}, r"config.is_on: expected bool"),
        ({"mode": "c"}, r"config.mode: 'c' is not one of a, b"),
        ({"limit": "x"}, r"config.limit: expected float"),
        ({"parts": [{"siez": 1}]}, r"unknown key config.parts\[0\].siez; nearest: size"),
        ({"scores": [1]}, r"config.scores: expected a mapping"),
    ],
)
def test_merge_into_names_key_value_and_expectation(values, message):
    with pytest.raises(ConfigError, match=message):
        config.merge_into(Outer(), values)


def test_dump_can_be_read_again():
    outer = Outer(parts=[Inner(tags=["ü"])])
    assert config.merge_into(Outer(), yaml.safe_load(config.dump(outer))) == outer


SIZES = """
x: {a: 1, b: 1}
sizes:
  base: {x: {b: 2}}
  base_qg: {_base_: base, x: {c: 3}}
  tiny: {_base_: tiny.yaml:vqa, x: {b: 5}}
  mixed: {_base_: [base, tiny.yaml:vqa]}
  lost: {_base_: bsae}
  loop: {_base_: loop}
"""


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("base", {"x": {"a": 1, "b": 2}}),
        ("base_qg", {"x": {"a": 1, "b": 2, "c": 3}}),
        ("tiny", {"x": {"b": 5}, "y": 2, "z": 0}),
        ("mixed", {"x": {"a": 1, "b": 2}, "y": 2, "z": 0}),
    ],
)
def test_a_size_builds_on_the_top_of_its_file_or_on_what_it_names(tmp_path, size, expected):
    write(tmp_path / "deepest.yaml", "z: 0")
    write(tmp_path / "tiny.yaml", "_base_: deepest.yaml\ny: 1\nsizes: {vqa: {y: 2}}")
    path = write(tmp_path / "recipe.yaml", SIZES)
    assert config.read_yaml(f"{path}:{size}") == expected
    mine = write(tmp_path / "mine.yaml", f"_base_: recipe.yaml:{size}\nw: 1")
    assert config.read_yaml(mine) == {**expected, "w": 1}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("recipe.yaml", "holds several recipes, base, .*: name one, e.g. .*recipe.yaml:base"),
        ("mine.yaml", "recipe.yaml holds several recipes, base"),
        ("recipe.yaml:bsae", "no recipe 'bsae'; nearest: base"),
        ("recipe.yaml:lost", "cannot read config .*bsae"),
        ("recipe.yaml:loop", "include it again"),
        ("plain.yaml:base", "no recipe 'base'; it has no block sizes"),
        ("list.yaml:base", "expected a mapping of mappings under sizes"),
    ],
)
def test_sizes_that_do_not_exist_are_refused(tmp_path, source, message):
    write(tmp_path / "recipe.yaml", SIZES)
    write(tmp_path / "mine.yaml", "_base_: recipe.yaml")
    write(tmp_path / "plain.yaml", "x: 1")
    write(tmp_path / "list.yaml", "sizes: [base]")
    with pytest.raises(ConfigError, match=message):
        config.read_yaml(tmp_path / source)


def test_read_recipe_takes_a_path(tmp_path):
    path = write(tmp_path / "mine.yaml", "x: 1")
    assert config.read_recipe(str(path), "pretrain") == {"x": 1}
    with pytest.raises(ConfigError, match="no config file .*gone.yaml; recipes: .*unimo3_base"):
        config.read_recipe(str(tmp_path / "gone.yaml"), "pretrain")


def test_a_file_of_ones_own_builds_on_a_recipe(tmp_path):
    text = f"_base_: {config.CONFIG_ROOT}/unimo3/pretrain.yaml:base\ndata: {{root: /data}}"
    values = config.read_recipe(str(write(tmp_path / "mine.yaml", text)), "pretrain")
    assert values == config.merge_plain(
        config.read_recipe("unimo3_base", "pretrain"), {"data": {"root": "/data"}}
    )


@dataclass(frozen=True)
class Switched:
    SWITCHES = {"style": {"large": {"inner": {"size": 9, "rate": 0.9}}, "plain": {}}}
    style: Literal["plain", "large"] = "plain"
    inner: Inner = field(default_factory=Inner)


def test_a_switch_is_as_good_as_its_fields_written_beside_it():
    assert config.merge_into(Switched(), {"style": "large"}).inner == Inner(9, 0.9)
    found = config.merge_into(Switched(), {"style": "large", "inner": {"size": 4}})
    assert found.inner == Inner(4, 0.9) and found.style == "large"
    assert config.spell_out(Switched, {"inner": {"size": 4}}) == {"inner": {"size": 4}}
    assert config.spell_out(Outer, {"mode": "b"}) == {"mode": "b"}
    with pytest.raises(ConfigError, match="config.style: 'small' is not one of plain, large"):
        config.merge_into(Switched(), {"style": "small"})
    with pytest.raises(ConfigError, match=r"config.style: \['large'\] is not one of"):
        config.merge_into(Switched(), {"style": ["large"]})
