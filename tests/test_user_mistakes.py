"""Mistakes of users: each is one line on standard error and exit code 2, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from micro import Tool
from mistakes import MISTAKES, write_world

# Some of the table, of different tools, that log nothing before they end.
ALONE = (0, 14, 42, 54, 55, 57, 72, 98, 108, 136)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    before = Path.cwd()
    os.chdir(folder)
    write_world(folder)
    yield folder
    os.chdir(before)


def name_of(number: int) -> str:
    tool, words, _ = MISTAKES[number]
    return f"{number}-{tool}-{(words or [''])[-1][:40]}"


def test_there_are_a_hundred_different_ones() -> None:
    assert len({(tool, *words) for tool, words, _ in MISTAKES}) == len(MISTAKES) > 100
    assert len({tool for tool, _, _ in MISTAKES}) >= 12


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=name_of)
def test_a_mistake_is_one_line_and_exit_code_2(world: Path, tool: Tool, number: int) -> None:
    name, words, said = MISTAKES[number]
    code, _, err = tool(name, *words)
    assert code == 2 and "Traceback" not in err, err
    (line,) = [line for line in err.splitlines() if line.strip() and "images/s" not in line]
    assert line.startswith("error: ") and said in line and len(line) < 2000, line


@pytest.mark.parametrize("number", ALONE, ids=name_of)
def test_the_same_as_a_process(world: Path, root: Path, number: int) -> None:
    name, words, said = MISTAKES[number]
    path = root / (f"{name}.py" if "/" in name else f"tools/{name}.py")
    done = subprocess.run([sys.executable, path, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr
