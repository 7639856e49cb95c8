"""`model.behaviour`: one switch for all settings in which paper and release differ, and the table of them."""

import ast
import functools
import re
from pathlib import Path

import pytest
from micro import make_run, saved
from micro_unimo2 import MODEL
from released_folder import random_release

import unimo
from unimo.config import list_recipes, merge_into, to_plain
from unimo.errors import ConfigError
from unimo.inference.loading import model_section, read_model_config
from unimo.models.unimo2 import SIZES
from unimo.models.unimo2.config import PAPER, RELEASE
from unimo.models.unimo2.convert import from_release
from unimo.registry import TASKS
from unimo.settings import build_run_config, load_run_config

ROOT = Path(unimo.__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "papers" / "unimo2.md"
FIELDS = {(part, field) for part, fields in RELEASE.items() for field in fields}


def settings(config):
    """The fields of the switch in a config or a plain section, by their places."""
    plain = config if isinstance(config, dict) else to_plain(config)
    return {(part, field): plain[part][field] for part, field in FIELDS}


def written(behaviour):
    return {(part, field): value for part, fields in behaviour.items() for field, value in fields.items()}


@pytest.mark.parametrize("name", SIZES)
def test_the_defaults_are_the_papers_and_the_switch_sets_the_releases(name):
    assert written(PAPER).keys() == FIELDS and settings(SIZES[name]) == written(PAPER)
    assert SIZES[name].behaviour == "paper"
    changed = merge_into(SIZES[name], {"behaviour": "release"})
    assert settings(changed) == written(RELEASE) and changed.behaviour == "release"
    assert settings(merge_into(changed, {"behaviour": "paper"})) == written(PAPER)


def test_converted_weights_have_what_the_switch_sets():
    config = from_release(random_release(40)).config
    assert settings(config) == written(RELEASE) and config.behaviour == "release"
    config = from_release(random_release(40), given={"behaviour": "paper"}).config
    assert settings(config) == written(PAPER) and config.behaviour == "paper"


@pytest.mark.parametrize("task", [task for task in TASKS if "unimo2_tiny" in list_recipes(task)])
def test_every_recipe_takes_the_switch(task):
    for name in (recipe for recipe in list_recipes(task) if recipe.startswith("unimo2_")):
        run = load_run_config(name, task, ["model.behaviour=release"])
        assert settings(run.model) == written(RELEASE)
        assert settings(load_run_config(name, task).model) == written(PAPER)


def test_fields_beside_the_switch_and_later_ones_win_and_earlier_ones_lose():
    kept = {"grounding": {"mask_padding": True}}
    beside = load_run_config(
        "unimo2_tiny", "pretrain", ["model.behaviour=release", "model.grounding.mask_padding=true"]
    ).model
    assert settings(beside) == written(RELEASE) | {("grounding", "mask_padding"): True}
    base = {"model": {"name": "unimo2_tiny", **kept}, "task": "pretrain"}
    earlier = build_run_config(base, {"model": {"behaviour": "release"}}).model
    assert settings(earlier) == written(RELEASE)
    later = build_run_config({**base, "model": {**MODEL, "behaviour": "release"}}, {"model": kept}).model
    assert settings(later) == settings(beside)
    assert settings(unimo.create_model("unimo2_tiny", behaviour="release", **kept).config) == settings(beside)


def test_saved_models_change_when_they_are_opened_or_fine_tuned(tmp_path):
    directory = saved("pretrain", tmp_path, model=MODEL, task={"masking": "span"})
    assert settings(unimo.load(directory)[0].config) == written(PAPER)
    assert settings(unimo.load(directory, behaviour="release")[0].config) == written(RELEASE)
    plain = read_model_config(directory)["model"]
    section = model_section("unimo2_tiny", plain, {"name": "unimo2_tiny", "behaviour": "release"})
    assert settings(section) == written(RELEASE)
    run = make_run("vqa", model={**section, "fusion": {**section["fusion"], "pooler": "tanh"}})
    assert settings(run.model) == written(RELEASE) | {("fusion", "pooler"): "tanh"}
    again = saved("pretrain", tmp_path / "again", model={**MODEL, "behaviour": "release"})
    opened = unimo.load(again)[0].config
    assert settings(opened) == written(RELEASE) and opened.behaviour == "release"
    assert settings(unimo.load(again, behaviour="paper")[0].config) == written(PAPER)


def test_an_unknown_behaviour_is_refused():
    with pytest.raises(ConfigError, match="behaviour: 'released' is not one of paper, release"):
        load_run_config("unimo2_tiny", "pretrain", ["model.behaviour=released"])


def _rows():
    lines = PAGE.read_text(encoding="utf8").splitlines()
    start = lines.index("| question | default | alternatives | tests |")
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


ROWS = _rows()


@functools.cache
def _tests():
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        names = (
            node.name for node in ast.parse(path.read_text(encoding="utf8")).body if hasattr(node, "name")
        )
        found |= {f"{path.stem}::{name}" for name in names}
    return found


def _options(text):
    return re.findall(r"`([\w.]+)=([\w.]+)`", text)


def _place(option):
    """`mask_padding` -> `model.grounding.mask_padding`; others are written in full."""
    if "." in option:
        return option
    plain = to_plain(SIZES["unimo2_tiny"])
    (part,) = [name for name in ("grounding", "fusion", "objective", "vision") if option in plain[name]]
    return f"model.{part}.{option}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_of_the_table_names_options_that_exist_and_tests_that_exist(row):
    _, default, alternatives, tests = row
    for option, value in _options(f"{default} {alternatives}"):
        place = _place(option)
        task = {"task": "caption" if "tags" in place else "retrieval"}.get(
            place.partition(".")[0], "pretrain"
        )
        value = {"FILE": "tags.ids"}.get(value, value)
        run = to_plain(load_run_config("unimo2_base", task, [f"{place}={value}"]))
        for key in place.split("."):
            run = run[key]
        assert str(run).lower() == value.lower() or float(run) == float(value)
    assert _options(alternatives) or alternatives.startswith("none")
    names = re.findall(r"`(test_\w+::test_\w+)`", tests)
    assert names and set(names) <= _tests()


def test_the_table_has_all_that_the_switch_sets():
    """Changed settings are bold; those that are the same in both stand there too."""
    named = {_place(option) for row in ROWS for option, _ in _options(f"{row[1]} {row[2]}")}
    assert named >= {f"model.{part}.{field}" for part, field in FIELDS}
    bold = _options(" ".join(cell for row in ROWS for cell in re.findall(r"\*\*(.*?)\*\*", row[2])))
    release, paper = written(RELEASE), written(PAPER)
    changed = {key: str(release[key]).lower() for key in FIELDS if release[key] != paper[key]}
    expected = {f"model.{part}.{field}": value for (part, field), value in changed.items()}
    assert {_place(option): value for option, value in bold} == expected
