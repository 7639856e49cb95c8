"""Every declared study fits together, its recipes exist, and nothing else imports studies."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from unimo.errors import ConfigError
from unimo.settings import load_run_config
from unimo.studies.catalogue import STUDIES, find_study
from unimo.studies.runner import make_jobs
from unimo.studies.study import Evaluate, Pretrain, Study

each_study = pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)


@each_study
def test_names_fit(study: Study) -> None:
    rows, steps = [row.name for row in study.rows], [each.name for each in study.steps]
    assert len({row.slug for row in study.rows}) == len(rows) == len(set(rows))
    assert set(study.default_rows) <= set(rows)
    used = set()
    for row in study.rows:
        names = [stage.name for stage in row.stages]
        assert len(names) == len(set(names))
        for place, stage in enumerate(row.stages):
            if isinstance(stage, Evaluate):
                assert stage.of in names[:place]
            else:
                used.add(stage.steps)
                is_start = isinstance(stage, Pretrain) and stage.name in [
                    each.after for each in row.stages[place:] if isinstance(each, Pretrain)
                ]
                assert isinstance(stage, Pretrain) == (stage.name == "pretrain" or is_start)
        assert len(row.cells or (row.name,)) == len(study.tables[0].head)
    assert used == set(steps)


@each_study
def test_columns_and_claims_name_scores_of_the_stages(study: Study) -> None:
    stages = {row.name: {stage.name for stage in row.stages} for row in study.rows}
    for table in study.tables:
        names = [table.only_row] if table.only_row else [row.name for row in study.choose_rows()]
        for column in table.columns:
            stage = column.key.partition(".")[0]
            assert stage in {"minutes", "training_minutes"} or any(stage in stages[name] for name in names)
    for claim in study.claims:
        for key in claim.columns:
            assert key in study.columns
            assert all(key.partition(".")[0] in stages[name] for name in (claim.better, claim.worse))


@each_study
def test_overrides_of_default_rows_are_known_to_the_recipes(study: Study) -> None:
    for job in make_jobs(study, seeds=[0]):
        for tool, *words in job.commands().values():
            if tool != "evaluate.py":
                name = "pretrain" if tool == "pretrain.py" else words[words.index("--task") + 1]
                recipe = job.row.model if tool == "pretrain.py" else words[words.index("--model") + 1]
                if name != "pretrain":
                    recipe = "unimo3_tiny" if recipe in ("meter_tiny", "bridgetower_tiny") else recipe
                run = load_run_config(recipe, name, [word for word in words if "=" in word])
                assert run.seed == 0 and run.train.max_steps == next(
                    int(word.partition("=")[2]) for word in words if word.startswith("train.max_steps=")
                )


def test_unknown_names_show_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no study 'unimo4'; nearest: unimo"):
        find_study("unimo4")
    with pytest.raises(ConfigError, match="study unimo2 has no row 'ful'; nearest: full"):
        find_study("unimo2").choose_rows(("ful",))


def test_only_tools_import_studies(root: Path) -> None:
    files = [
        *(root / "unimo").rglob("*.py"),
        *(root / "ppdet_features").rglob("*.py"),
        *(root / "tools").glob("*.py"),
    ]
    importing = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(name.startswith("unimo.studies") for name in names):
                importing.add(path.relative_to(root).as_posix())
    assert {name for name in importing if not name.startswith("unimo/studies/")} == {
        "tools/quickstart.py",
        "tools/study.py",
    }


def test_claims_stay_within_the_tables_that_they_name() -> None:
    """Table 2 of UNIMO has tasks on texts alone; its row w/o single-modal stands in no other table."""
    scores = {"Table 1": {"retrieved", "questions"}, "Table 2": {"texts"}, "Table 4": {"texts"}}
    scores["Table 3"] = {"retrieved", "questions", "captions"}
    for claim in STUDIES["unimo"].claims:
        table, _, text = claim.text.partition(":")
        assert {key.partition(".")[0] for key in claim.columns} <= scores[table], claim.text
        if claim.worse == "w/o single-modal" and table == "Table 1":
            assert "UNITER" in text
