"""Tables of trainings: rows are made once, a failure loses none, figures are what the rows say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unimo.benchmark import study
from unimo.benchmark.study import Bench, Row, markdown_table, mean_and_each, run_study
from unimo.errors import UnimoError

TOOL = """import json, os, sys
print("heard", sys.argv[1:], file=sys.stderr)
if "fail" in sys.argv:
    sys.exit(2)
print(json.dumps({"metrics": {"score": float(sys.argv[-1]), "threads": int(os.environ["OMP_NUM_THREADS"])}}))
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an `evaluate.py` that echoes its last word as score."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "evaluate.py").write_text(TOOL)
    monkeypatch.setattr(study, "TOOLS", folder)
    return folder


def scoring(value: float) -> study.Callable[[Bench], Row]:
    return lambda bench: {"value": value} | bench.scores("--task", "x", value)


def test_rows_come_in_the_order_of_the_jobs(tools: Path, tmp_path: Path) -> None:
    rows = run_study({"b": scoring(2.5), "a": scoring(1.0)}, tmp_path / "out", workers=2)
    assert [row["score"] for row in rows] == [2.5, 1.0]
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == rows
    assert "heard ['--task', 'x', '2.5']" in (tmp_path / "out" / "b" / "log.txt").read_text()
    cores = study.available_cores()
    assert rows[0]["threads"] == max(1, cores // 2)


def test_finished_rows_are_not_made_again(tools: Path, tmp_path: Path) -> None:
    jobs = {"a": scoring(1.0)}
    first = run_study(jobs, tmp_path / "out", workers=1)
    (tools / "evaluate.py").unlink()
    assert run_study(jobs, tmp_path / "out", workers=1) == first


def test_a_failed_command_ends_the_study_and_keeps_finished_rows(tools: Path, tmp_path: Path) -> None:
    jobs = {"good": scoring(3.0), "bad": lambda bench: {"text": bench.call("evaluate.py", "fail")}}
    with pytest.raises(UnimoError, match=r"evaluate.py ended with code 2; see .*bad/log.txt"):
        run_study(jobs, tmp_path / "out", workers=1)
    assert json.loads((tmp_path / "out" / "good" / "row.json").read_text())["score"] == 3.0
    assert not (tmp_path / "out" / "bad" / "row.json").exists()


def test_tables_say_what_the_rows_say() -> None:
    rows = [{"score": 80.0}, {"score": 85.5}]
    assert mean_and_each(rows, "score") == "**82.8** (80.0, 85.5)"
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
