"""Tables, claims, chance levels and the plot say what the results say."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unimo.studies.plot import draw
from unimo.studies.report import (
    describe_plan,
    format_report,
    markdown_table,
    mean_and_each,
    next_commands,
)
from unimo.studies.results import format_csv
from unimo.studies.runner import make_jobs
from unimo.studies.study import Claim, Column, Evaluate, Pretrain, Row, Steps, Study, Table

STAGES = (Pretrain(), Evaluate("test", of="pretrain", task="vqa"))
STUDY = Study(
    name="toy",
    question="Does it?",
    paper="Paper, Table 1",
    steps=(Steps("pretrain", 10, "pre-training"),),
    rows=(
        Row("full", "toy", STAGES, cells=("full", "yes")),
        Row("none", "toy", STAGES, cells=("none", "no")),
    ),
    tables=(
        Table(
            ("row", "parts"),
            (Column("test.a", "A", chance=25), Column("minutes", "minutes", each_seed=False)),
        ),
        Table(("full only",), (Column("test.b", "B"), Column("test.absent", "absent")), only_row="full"),
    ),
    claims=(Claim("Table 1: parts help", "full", "none", ("test.a", "test.b")),),
    seeds=(0, 1),
    next_command="look {row}",
)
PROTOCOL = {"split": "val", "selection": "clean"}
RESULTS = [
    {"row": "full", "seed": 0, **PROTOCOL, "minutes": 2.0, "test.a": 80.0, "test.b": 1.0},
    {"row": "full", "seed": 1, **PROTOCOL, "minutes": 4.0, "test.a": 85.5, "test.b": 2.0},
    {"row": "none", "seed": 0, **PROTOCOL, "minutes": 1.0, "test.a": 82.0},
    {"row": "none", "seed": 1, **PROTOCOL, "minutes": 1.0, "test.a": 70.0},
]


def test_tables_say_what_the_results_say() -> None:
    column = Column("score", "score")
    assert mean_and_each([{"score": 80.0}, {"score": 85.5}], column) == "**82.8** (80.0, 85.5)"
    assert mean_and_each([{"score": 80.0}, {}], column) == "**80.0** (80.0, -)"
    assert mean_and_each([{}, {}], column) == ""
    assert mean_and_each([{"score": 80.0}], replace(column, each_seed=False)) == "80.0"
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_report() -> None:
    assert format_report(STUDY, RESULTS) == (
        "| row | parts | A | minutes |\n"
        "| --- | --- | --- | --- |\n"
        "| full | yes | **82.8** (80.0, 85.5) | 3.0 |\n"
        "| none | no | **76.0** (82.0, 70.0) | 1.0 |\n\n"
        "| full only | mean (each seed) |\n"
        "| --- | --- |\n"
        "| B | **1.5** (1.0, 2.0) |\n\n"
        "Chance: A 25.\n\n"
        "Scores of the split val; selection: clean.\n\n"
        "Claims of the paper, and what was found here:\n\n"
        "- Table 1: parts help (full over none): A 82.8 to 76.0 (1 of 2 seeds)"
    )


def test_report_of_some_rows() -> None:
    text = format_report(STUDY, RESULTS[2:], ["data.path=photos"])
    assert "Scores of the split val; selection: clean." in text
    assert "Chance" not in text and "Claims" not in text and "full" not in text


def test_csv_has_every_row_seed_and_score() -> None:
    lines = list(csv.DictReader(io.StringIO(format_csv(RESULTS))))
    assert [(line["row"], line["seed"]) for line in lines] == [
        ("full", "0"), ("full", "1"), ("none", "0"), ("none", "1"),
    ]  # fmt: skip
    assert {(line["split"], line["selection"]) for line in lines} == {("val", "clean")}
    assert float(lines[1]["test.a"]) == 85.5 and lines[2]["test.b"] == ""


def test_plan_says_rows_steps_and_time(tmp_path: Path) -> None:
    jobs = make_jobs(STUDY)
    text = describe_plan(STUDY, jobs, [], tmp_path, workers=2)
    assert "rows: full; none" in text and "seeds: 0 1" in text and "steps: pretrain 10" in text
    assert "4 trainings and 4 evaluations, 2 at a time" in text and "finished: 0 of 4" in text
    assert "time: not known before a row is finished" in text
    known = describe_plan(STUDY, jobs, RESULTS, tmp_path, workers=2)
    assert "time: about 4 minutes" in known  # (3 + 1) minutes for each of two seeds, two at a time


def test_next_commands_complete_the_grid_and_then_look_closer(tmp_path: Path) -> None:
    jobs = make_jobs(STUDY, seeds=[0], steps={"pretrain": 20}, overrides=["data.x=1"])
    text = next_commands(STUDY, jobs, RESULTS[:3], tmp_path)
    assert f"python tools/study.py toy --pretrain-steps 20 --output {tmp_path} data.x=1" in text
    assert text.endswith(f"look {tmp_path}/full_0")
    assert next_commands(STUDY, jobs, RESULTS, tmp_path) == f"next:\n  look {tmp_path}/full_0"


@pytest.mark.parametrize("count", [1, 3, 4])
def test_plot_draws_means_seeds_and_chance(count: int) -> None:
    picture = np.asarray(draw(STUDY, RESULTS[:count], "steps: pretrain 10"))
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8

    def is_red(pixels: np.ndarray) -> bool:
        return bool((pixels[..., 0].astype(int) - pixels[..., 2] > 80).any())

    assert (picture == (0x1F, 0x4E, 0x9C)).all(axis=2).any() and is_red(picture)
    # With other data the declared chance level does not hold.
    assert not is_red(np.asarray(draw(STUDY, RESULTS[:count], "", ["data.path=photos"])))
