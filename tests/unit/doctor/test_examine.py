"""Checks in processes of their own: whatever one of them does, the others give their rows."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from unimo.doctor import examine as room
from unimo.doctor.examine import CHECKS, PADDLE, Check, announce, chosen, examine, guarded, run_apart
from unimo.doctor.report import Options, Row, exit_code, format_json, format_markdown
from unimo.errors import ConfigError

if TYPE_CHECKING:
    from micro import Tool

LIGHT = tuple(check for check in CHECKS if not check.needs_paddle)


def made(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> Check:
    """A check whose function has that body, importable in its own process too."""
    (folder / "made_check.py").write_text(f"import os, time\ndef examine(options):\n    {body}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return Check("made", "made_check:examine", 1, needs_paddle=False)


@pytest.mark.parametrize(
    "body,result,words",
    [
        ("return [__import__('unimo.doctor.report', fromlist=['Row']).Row('a', 'ok', 'b')]", "ok", "b"),
        ("os.abort()", "wrong", "SIGABRT"),
        ("os._exit(7)", "wrong", "code 7"),
        ("time.sleep(60)", "wrong", "no answer"),
        ("print('noise'); raise ValueError('odd number')", "wrong", "ValueError: odd number"),
        ("import paddle_of_tomorrow", "wrong", "paddle_of_tomorrow"),
    ],
)
def test_a_check_that_dies_or_hangs_is_a_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, result: str, words: str
) -> None:
    check = made(monkeypatch, tmp_path, body)
    (row,) = run_apart(check, Options(), patience=0.9 if "sleep" in body else 20)
    assert (row.result, words in row.figure) == (result, True), row


def test_a_long_check_says_that_it_is_at_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "TICK", 0.2)
    with caplog.at_level("INFO", "unimo"):
        run_apart(made(monkeypatch, tmp_path, "time.sleep(1); return []"), Options())
    assert "made: 0 s" in caplog.text


def test_paddle_that_is_not_there_or_does_not_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def raising(error: Exception) -> Row:
        def function_of(module: str, function: str) -> None:
            raise error

        monkeypatch.setattr(room, "function_of", function_of)
        (row,) = guarded(PADDLE, "any:thing", Options())
        return row

    row = raising(ModuleNotFoundError("No module named 'paddle'", name="paddle"))
    assert (row.result, ".[cpu]" in row.advice) == ("not here", True)
    row = raising(ImportError("libcudnn.so.9: cannot open shared object file"))
    assert (row.result, "libcudnn" in row.figure) == ("wrong", True)
    assert raising(ConfigError("data.pairs: no such folder")).figure == "data.pairs: no such folder"
    assert raising(OSError("illegal instruction")).result == "wrong"


def test_without_paddle_the_rest_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(check: Check, options: Options) -> list[Row]:
        return [Row(check.name, "not here" if check.name == PADDLE else "ok", "")]

    monkeypatch.setattr(room, "run_apart", run)
    rows = examine(CHECKS, Options())
    assert [row.result for row in rows] == ["ok"] * 3 + ["not here"] * (len(CHECKS) - 3)
    assert exit_code(rows) == 0


def test_what_will_be_done_is_said_first() -> None:
    assert [check.name for check in chosen(quick=True)] == ["versions", "machine", "disk", PADDLE]
    assert announce(chosen(quick=True), Options()).startswith("4 checks, about 10 s: versions, ")
    assert announce(CHECKS, Options()).startswith("12 checks, about 2 min: ")
    assert announce(CHECKS, Options(every_recipe=True)).startswith("12 checks, about 7 min: ")


def test_every_check_names_a_function() -> None:
    for check in CHECKS:
        module, _, function = check.place.partition(":")
        assert inspect.isfunction(room.function_of(module, function))


def test_table_and_json() -> None:
    rows = [Row("a | b", "ok", "1\n2"), Row("c", "wrong", "3" * 400, "do"), Row("d", "not here", "")]
    text = format_markdown(rows, "a machine")
    assert "| a \\| b | ok | 1 2 |  |" in text
    assert text.endswith("1 ok, 1 wrong, 1 not here")
    assert max(map(len, text.splitlines())) < 330
    content = json.loads(format_json(rows, "a machine"))
    assert content["machine"] == "a machine"
    assert content["rows"][1] == {"name": "c", "result": "wrong", "figure": "3" * 400, "advice": "do"}
    assert (exit_code(rows), exit_code(rows[:1])) == (2, 0)


def test_the_tool(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "CHECKS", LIGHT)
    code, out, err = tool("doctor", "--json", f"output_dir={tmp_path}")
    rows = {row["name"]: row for row in json.loads(out)["rows"]}
    assert rows["disk space"]["result"] == "ok"
    assert code == (2 if any(row["result"] == "wrong" for row in rows.values()) else 0)
    assert err.startswith("3 checks, about 4 s: versions, machine, disk\n")
    assert "[3/3] disk, about 2 s" in caplog.text
    code, _, err = tool("doctor", "--recipe", "unimo3_tin")
    assert (code, "nearest" in err) == (2, True)


def test_the_tool_reports_a_packed_machine(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(room, "CHECKS", LIGHT[1:2])
    monkeypatch.setenv("OMP_NUM_THREADS", "512")
    code, out, _ = tool("doctor", f"output_dir={tmp_path}")
    assert code == 2
    assert "| cores and threads | wrong |" in out


@pytest.mark.slow
def test_everything_is_well_here(tool: Tool, tmp_path: Path) -> None:
    code, out, _ = tool("doctor", "--json", f"output_dir={tmp_path}")
    rows = {row["name"]: row for row in json.loads(out)["rows"]}
    assert code == 0, [row for row in rows.values() if row["result"] == "wrong"]
    for name in ("resume bit-equal", "sharding stage 1 equals data parallel", "host reads in a step"):
        assert rows[name]["result"] == "ok"
    assert not list(tmp_path.iterdir())
