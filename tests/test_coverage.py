"""`docs/papers/coverage.md`: its counts are those of its rows, and what its commands name is there.

Nothing is run and no large array is allocated: commands are parsed by the parsers of their tools, recipes are
resolved, and models of every size are built without memory for their parameters.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import paddle
import pytest
import yaml

from unimo.config import list_recipes, parse_overrides
from unimo.registry import TASKS, build_model, list_models
from unimo.settings import build_run_config, load_run_config
from unimo.studies import runner
from unimo.studies.catalogue import STUDIES
from unimo.training.optional_start import without_optional

if TYPE_CHECKING:
    from micro import Tool

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "papers" / "coverage.md").read_text(encoding="utf8")
KINDS = ("results", "method", "hyper-parameters")
# The numbered tables and figures of each paper, and those that show neither results nor method.
FIGURES = {"UNIMO": 6, "UNIMO-2": 3, "UNIMO-3": 5, "VLMo": 3, "SemVLP": 4}
TABLES = {"UNIMO": 9, "UNIMO-2": 10, "UNIMO-3": 4, "VLMo": 6, "SemVLP": 5}
LEFT_OUT = {
    "UNIMO": ["Figure 1", "Table 5", "Table 7"],
    "UNIMO-2": ["Table 6", "Table 7"],
    "SemVLP": ["Figure 1"],
}


@dataclass(frozen=True)
class Row:
    """One table or figure of a paper."""

    paper: str
    item: str
    kind: str
    here: str
    commands: list[str] = field(default_factory=list)

    @property
    def is_missing(self) -> bool:
        return self.here.startswith("not yet: ")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def read_rows() -> list[Row]:
    """All rows below the headings of the papers."""
    rows = []
    for section in PAGE.split("\n## ")[1:]:
        paper = section.split("\n")[0].strip()
        for line in re.findall(r"^\| (?:Table|Figure) .*$", section, re.M):
            item, kind, shows, claim, here = cells(line)
            assert shows and claim, line
            rows.append(Row(paper, item, kind, here, re.findall(r"`((?:python|bash) [^`]+)`", here)))
    return rows


ROWS = read_rows()
COMMANDS = list(dict.fromkeys(command for row in ROWS for command in row.commands))


def test_every_table_and_figure_has_one_row() -> None:
    for paper in FIGURES:
        numbered = [f"Figure {n + 1}" for n in range(FIGURES[paper])]
        numbered += [f"Table {n + 1}" for n in range(TABLES[paper])]
        found = [row.item for row in ROWS if row.paper == paper]
        assert sorted(found) == sorted(set(numbered) - set(LEFT_OUT.get(paper, [])))
    assert {row.paper for row in ROWS} == set(FIGURES)
    assert {row.kind for row in ROWS} == set(KINDS)


def test_counts_are_those_of_the_rows() -> None:
    def count(rows: list[Row]) -> list[int]:
        missing = sum(row.is_missing for row in rows)
        kinds = [sum(row.kind == kind for row in rows) for kind in KINDS]
        return [*kinds, len(rows), len(rows) - missing, missing]

    told = {}
    for paper in (*FIGURES, "together"):
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| {paper} |"))
        told[paper] = [int(cell) for cell in cells(line)[1:]]
    assert told.pop("together") == count(ROWS)
    assert told == {paper: count([row for row in ROWS if row.paper == paper]) for paper in FIGURES}
    results, method, numbers, rows, *_ = count(ROWS)
    said = [int(number) for number in re.findall(r"\d+", PAGE.split("Left out")[0])]
    left = sum(map(len, LEFT_OUT.values()))
    assert said == [rows + left, results, method, numbers, rows] and left == 6


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGE)
    assert targets and all((ROOT / "docs" / "papers" / target).exists() for target in targets)


def test_a_row_has_commands_or_says_what_is_missing() -> None:
    for row in ROWS:
        assert bool(row.commands) != row.is_missing, f"{row.paper}, {row.item}"
        assert row.commands or len(row.here) > len("not yet: ") + 5


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:90])
def test_command(command: str, tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program, path, *words = shlex.split(command)
    assert program in ("python", "bash") and (ROOT / path).is_file(), f"{path}: no such file"
    monkeypatch.chdir(tmp_path)
    name = path.replace("scripts/run_", "").rpartition("/")[2].partition(".")[0]
    if name in ("pretrain", "finetune"):
        check_training(tool, name, words)
    elif name == "study":
        check_study(tool, *words)
    else:
        check_options(tool, name, words)


PLACES = ("data.", "task.augment.", "init_from")


def check_training(tool: Tool, name: str, words: list[str]) -> None:
    """The recipe resolves under its settings, and the model that comes of it builds."""
    if name == "finetune":  # no pre-trained model is here
        words = [*words, "--init", "none"]
    code, out, err = tool(name, *[word for word in words if word != "--dry-run"], "--dry-run")
    # Data sets and models of earlier runs are not here, and nothing else may be wrong.
    places = [place for key, _, place in (word.partition("=") for word in words) if key.startswith(PLACES)]
    assert code == 0 or (code == 2 and any(place in err.splitlines()[-1] for place in places if place)), err
    stages = list(yaml.safe_load_all(out))
    assert stages
    for stage in stages:
        with paddle.LazyGuard():
            model = build_model(without_optional(build_run_config(stage)).model)
        assert sum(parameter.size for parameter in model.parameters()) > 0


def check_study(tool: Tool, name: str, *words: str) -> None:
    """The study and its rows exist, and so do the pre-trainings of each; one on data has its options."""
    if name == "glue":
        shown = tool("study", name, "--help")[1]
        assert all(word in shown for word in words if word.startswith("--"))
        return
    assert words[:1] in ((), ("--rows",))
    code, out, err = tool("study", name, *words, "--dry-run")
    assert code == 0, err
    for job in runner.make_jobs(STUDIES[name], words[1:], [0]):
        for command in job.commands(Path("out")).values():
            if command[0] == "pretrain.py":
                check_training(tool, "pretrain", list(command[1:]))


def check_options(tool: Tool, name: str, words: list[str]) -> None:
    """Options are those of the tool; task, model and settings are known."""
    topic = [words[0]] if name == "augment_corpus" else []
    code, out, err = tool(name, *topic, "--help")
    assert code == 0, err
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word)}\b", out), f"{name} has no option {word}"
    if name == "visualize":
        assert words[0] in out
    given = dict(zip(words, words[1:], strict=False))
    task = given.get("--task", "pretrain")
    assert task in TASKS
    if "--model" in given:
        folder = given["--model"].removeprefix("output/")
        model = max((name for name in list_models() if folder.startswith(name)), key=len)
        check_settings(model, task, [word for word in words if re.match(r"[a-z_.]+=", word)])


def check_settings(model: str, task: str, overrides: list[str]) -> None:
    """The settings are those of a run of that model."""
    if model in list_recipes(task):
        load_run_config(model, task, overrides)
    else:
        build_run_config({"model": {"name": model}, "task": {"name": task}}, parse_overrides(overrides))


def test_models_named_in_passing_have_the_recipes_of_their_row() -> None:
    named = [(row, name) for row in ROWS for name in re.findall(r"`(\w+_(?:base|large)\w*)`", row.here)]
    assert named
    for row, name in named:
        tasks = {
            kind for command in row.commands for kind in re.findall(r"finetune\S* --task (\w+)", command)
        }
        assert tasks
        for kind in tasks:
            load_run_config(name, kind)


def test_folders_of_runs_are_made_by_a_command_of_the_page() -> None:
    """`output/NAME` that a command reads is what another one writes, by default or by `output_dir`."""
    made = set(re.findall(r"output_dir=(\S+)", PAGE.replace("`", " ")))
    for command in COMMANDS:
        if found := re.search(r"run_pretrain\.sh (\w+)(?!.*output_dir)", command):
            made.add(f"output/{found[1]}_pretrain")
        if found := re.search(r"finetune\.py --task (\w+) --model (\w+)", command):
            made.add(f"output/{found[2]}_{found[1]}")
    read = set(re.findall(r"(?<!=)\boutput/\w+|(?<=init_from=)output/\w+", " ".join(COMMANDS)))
    assert read <= made
