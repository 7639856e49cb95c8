"""Typed configuration: dataclasses, YAML files over `_base_` files, dotted overrides.

    merge_into(schema_instance, mapping, where)   fill a dataclass from plain data, checking names and types
    read_yaml(path)                               one YAML file, its `_base_` files merged underneath
    read_recipe("unimo3_base", "vqa")             one entry of configs/unimo3/vqa.yaml, by its name
    parse_overrides(["train.max_steps=50"])       command-line words to a nested mapping
    to_plain(config) / dump(config)               back to plain data / YAML text

Every error names the key, what was found there, and what was expected.
"""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import yaml

from unimo.errors import ConfigError, nearest, shown
from unimo.files import read_text
from unimo.limits import CONFIG_DEPTH, CONFIG_FILES, YAML_BYTES
from unimo.plain_yaml import Loader, parse_yaml
from unimo.ranges import Range, check_number, read_number

T = TypeVar("T")
CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"
YAML_ENDINGS = (".yaml", ".yml")
BROKEN = re.compile("[\0\ud800-\udfff]")
SWITCH_WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


def read_yaml(
    source: str | Path,
    base_key: str = "_base_",
    loader: type[Loader] = Loader,
    including: tuple[str, ...] = (),
    opened: list[str] | None = None,
) -> dict[str, Any]:
    """Read a YAML mapping, merged over the files that it builds on.

    `_base_` names one or several files, relative to the file it stands in; later ones win. A recipe file
    also has a block `sizes:`, of which `FILE.yaml:SIZE` selects one entry. An entry is merged over the rest
    of its file, unless it has a `_base_` of its own: another entry of the block, or another file, such as
    `../_base_/tiny.yaml:vqa`.

    Args:
        source: a file, or `FILE.yaml:SIZE`.
        base_key: another name for `_base_`, accepted in addition.
        loader: a safe loader that knows further tags.
        including: the files that are being read, each of which includes the next.
        opened: all files that were read for the same config.

    Raises:
        ConfigError: missing file, bad YAML, not a mapping, `_base_` files that include each other or are too
            many, no such size, or a file of several sizes of which none is selected.
    """
    path, size = _split_source(str(source))
    try:
        here = f"{path.resolve()}:{size}"
    except (ValueError, RuntimeError, OSError) as error:  # a NUL; links that lead to themselves
        raise ConfigError(f"{shown(source, 200)} cannot name a config: {error}") from error
    if here in including:
        raise ConfigError(f"{source}: its _base_ files include it again")
    opened = [] if opened is None else opened
    opened.append(here)
    if len(opened) > CONFIG_FILES:
        raise ConfigError(f"{source}: its config is made of more than {CONFIG_FILES} files, the limit")
    top, sizes = _load_yaml(path, loader)
    layers = [top]
    if size or sizes:
        entry = _select(sizes, size, path)
        layers = [entry] if {"_base_", base_key} & entry.keys() else [top, entry]
    merged: dict[str, Any] = {}
    for layer in layers:
        for bases in [layer.pop(key) for key in dict.fromkeys(("_base_", base_key)) if key in layer]:
            bases = [bases] if isinstance(bases, str) else bases
            if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
                raise ConfigError(
                    f"{source}: expected files under _base_, found {shown(bases)}; e.g. _base_: tiny.yaml"
                )
            for base in bases:
                under = f"{path}:{base}" if base in sizes else str(path.parent / base)
                merged = merge_plain(merged, read_yaml(under, base_key, loader, (*including, here), opened))
        merged = merge_plain(merged, layer)
    return merged


def _split_source(source: str) -> tuple[Path, str]:
    """Split `FILE.yaml:SIZE`; the size is empty when none is selected."""
    file, _, size = source.rpartition(":")
    return (Path(file), size) if file.endswith(YAML_ENDINGS) else (Path(source), "")


def _load_yaml(path: Path, loader: type[Loader]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the top of one file as it stands, and its `sizes:` block."""
    content = parse_yaml(read_text(path, YAML_BYTES, ConfigError, "config"), str(path), loader)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, found {type(content).__name__}")
    sizes = content.pop("sizes", {})
    if not isinstance(sizes, dict) or not all(isinstance(entry, dict) for entry in sizes.values()):
        raise ConfigError(f"{path}: expected a mapping of mappings under sizes")
    return content, sizes


def _select(sizes: Mapping[str, Any], size: str, path: Path) -> dict[str, Any]:
    """Return the entry `size` of the `sizes:` block of a file."""
    if not size:
        raise ConfigError(
            f"{path} holds several recipes, {', '.join(sizes)}: name one, e.g. {path}:{next(iter(sizes))}"
        )
    if size not in sizes:
        known = nearest(size, sizes) if sizes else "it has no block sizes"
        raise ConfigError(f"{path} has no recipe {shown(size)}; {known}")
    return sizes[size]


def merge_plain(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two nested mappings; `over` wins. A mapping that changes `name` replaces the old one."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            replaces = "name" in value and old.get("name") not in (None, value["name"])
            merged[key] = dict(value) if replaces else merge_plain(old, value)
        else:
            merged[key] = value
    return merged


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Turn `a.b=1` words into `{"a": {"b": 1}}`; values are read as YAML.

    Raises:
        ConfigError: a word without `=`, or a value that is not YAML.
    """
    merged: dict[str, Any] = {}
    for word in words:
        key, found, text = word.partition("=")
        if not found or not key.strip():
            raise ConfigError(f"override {shown(word)} is not of the form key=value, e.g. train.max_steps=50")
        value: Any = parse_yaml(text, f"override {shown(word)}: the value") if text else ""
        parts = key.strip().lstrip("-").split(".")
        if len(parts) > CONFIG_DEPTH:
            raise ConfigError(
                f"override {shown(word)}: a key of {len(parts)} parts; the limit is {CONFIG_DEPTH}"
            )
        for part in reversed(parts):
            value = {part: value}
        merged = merge_plain(merged, value)
    return merged


def spell_out(schema: type, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write out the switches of a section, fields that stand for several others.

    A class attribute `SWITCHES = {"field": {value: fields}}` of the dataclass `schema` says which. What the
    section itself says of these fields wins, so a switch is as good as its fields, written in its place.
    """
    for key, meanings in getattr(schema, "SWITCHES", {}).items():
        if isinstance(values, Mapping) and isinstance(values.get(key), str):
            values = merge_plain(meanings.get(values[key], {}), values)
    return values


def merge_into(schema: T, values: Mapping[str, Any], where: str = "config") -> T:
    """Return a copy of the dataclass instance `schema` with `values`, checked by its annotations.

    A class attribute `RESOLVE = {"field": function}` may read a field's plain value itself, such as the
    list of transforms of a detector; `REMOVED = {"key": advice}` names keys of older versions. Switches are
    written out (`spell_out`).

    Raises:
        ConfigError: unknown key (nearest known ones are named) or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping, found {shown(values)}")
    values = spell_out(type(schema), values)
    hints = typing.get_type_hints(type(schema), include_extras=True)
    fields = {field.name for field in dataclasses.fields(schema) if field.init}
    resolvers, removed = getattr(type(schema), "RESOLVE", {}), getattr(type(schema), "REMOVED", {})
    gone = [f"{where}.{key} no longer exists: {removed[key]}" for key in values if key in removed]
    if gone:
        raise ConfigError("; ".join(gone))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            there = [full for full in list_keys(type(schema)) if full.endswith(f".{key}")]
            hint = f"there is {', '.join(there[:3])}" if there else nearest(str(key), fields)
            raise ConfigError(f"unknown key {where}.{key}; {hint}")
        name = f"{where}.{key}"
        if key in resolvers:
            changes[key] = resolvers[key](value, name, getattr(schema, key))
        else:
            changes[key] = coerce(value, hints[key], name, getattr(schema, key))
    try:
        return dataclasses.replace(schema, **changes)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def coerce(value: Any, kind: Any, where: str, current: Any = None) -> Any:
    """Check a value against the annotation `kind`, and convert it where nothing is lost.

    Raises:
        ConfigError: another type, a number outside its range, or one of the errors of `merge_into`.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        number, allowed = coerce(value, arguments[0], where, current), arguments[1]
        check_number(number, allowed, where, current)
        return number
    if origin in (Union, types.UnionType):
        return _coerce_union(value, arguments, where, current)
    if origin is Literal:
        return _coerce_choice(value, arguments, where)
    if dataclasses.is_dataclass(kind):
        if isinstance(value, kind):
            return value
        if hasattr(kind, "from_short") and not isinstance(value, Mapping):
            return kind.from_short(value, where)
        try:
            schema = current if isinstance(current, kind) else kind()
        except TypeError as error:
            raise ConfigError(f"{where}: {kind.__name__} needs all of its fields; {error}") from error
        return merge_into(schema, value, where)
    if origin in (list, tuple, dict):
        return _coerce_container(value, origin, arguments, where)
    return _coerce_scalar(value, kind, where)


def _coerce_choice(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    for one in choices:
        if one == value and isinstance(one, bool) == isinstance(value, bool):  # True == 1
            return one
    raise ConfigError(f"{where}: {shown(value)} is not one of {', '.join(map(str, choices))}")


def _coerce_container(value: Any, origin: type, arguments: tuple[Any, ...], where: str) -> Any:
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, found {shown(value)}")
        return {key: coerce(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    items = [value] if isinstance(value, (str, Mapping)) else value
    if not isinstance(items, (list, tuple)):
        raise ConfigError(f"{where}: expected a list, found {shown(value)}")
    return origin(coerce(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(items))


def _coerce_union(value: Any, kinds: tuple[Any, ...], where: str, current: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    failures = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return coerce(value, kind, where, current)
        except ConfigError as error:
            failures.append(str(error))
    raise ConfigError(failures[0])


def _coerce_scalar(value: Any, kind: type, where: str) -> Any:
    if kind is bool:
        value = SWITCH_WORDS.get(value.lower(), value) if isinstance(value, str) else value
        if isinstance(value, bool):
            return value
    if kind in (int, float) and (number := read_number(value, kind)) is not None:
        check_number(number, Range(), where)
        return number
    if kind is str and isinstance(value, (str, int)) and not isinstance(value, bool):
        if BROKEN.search(str(value)):
            raise ConfigError(f"{where}: {shown(value)} has a NUL or half a character; take it out")
        return str(value)
    # Whoever wrote 1.10 or true meant these letters, which are lost.
    hint = "; put it in quotes" if kind is str and isinstance(value, (bool, float)) else ""
    raise ConfigError(f"{where}: expected {kind.__name__}, found {shown(value)}{hint}")


def check_fields(config: Any, where: str = "") -> None:
    """Check the values of a config that was not made by `merge_into`, and of its sections.

    Raises:
        ConfigError: a value of the wrong type, or a number outside its range.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for each in dataclasses.fields(config):
        value, name = getattr(config, each.name), f"{where}.{each.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            check_fields(value, name)
        else:
            coerce(value, hints[each.name], name, each.default)


def list_keys(schema: type) -> dict[str, Any]:
    """Return the dotted names of all fields of a dataclass and of the sections in it, with their types."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(schema).items():
        if dataclasses.is_dataclass(kind):
            found |= {f"{name}.{key}": value for key, value in list_keys(kind).items()}
        elif name in schema.__dataclass_fields__:
            found[name] = kind
    return found


def to_plain(config: Any) -> Any:
    """Convert nested dataclasses to dicts and lists that YAML and JSON can write."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(item) for item in config]
    return config


def dump(config: Any) -> str:
    """Return the YAML text of a config, in field order."""
    return yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=100)


def read_recipe(name: str, task: str) -> dict[str, Any]:
    """Read a recipe of a task: `unimo3_base` and `vqa` mean the entry `base` of `configs/unimo3/vqa.yaml`.

    Args:
        name: recipe, or a YAML file, with `:SIZE` if it holds several (`configs/unimo3/vqa.yaml:base`).
        task: task or `pretrain`.

    Raises:
        ConfigError: no such recipe (the nearest ones are named) or file, or what `read_yaml` raises.
    """
    recipes = list_recipes(task)
    path, _ = _split_source(name)
    if path.suffix in YAML_ENDINGS or os.sep in name:
        if not os.path.isfile(path):  # False also for a name that is too long
            raise ConfigError(f"no config file {path}; recipes: {', '.join(recipes)}")
        return read_yaml(name)
    if name not in recipes:
        raise ConfigError(f"no {task} recipe {shown(name)}; {nearest(name, recipes)}")
    return read_yaml(recipes[name])


def list_recipes(task: str) -> dict[str, str]:
    """Return the recipes of a task: name -> `FILE.yaml:SIZE`."""
    found = {}
    for path in sorted(CONFIG_ROOT.glob(f"[!_]*/{task}.yaml")):
        _, sizes = _load_yaml(path, Loader)
        found |= {f"{path.parent.name}_{size}": f"{path}:{size}" for size in sizes}
    return found
