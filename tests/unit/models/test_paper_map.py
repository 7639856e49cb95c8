"""The README's table from paper to code: every file and name in it exists."""

import ast
import re
from pathlib import Path

import pytest

import unimo
from unimo.models.unimo3 import SIZES

ROOT = Path(unimo.__file__).resolve().parent.parent
README = ROOT / "unimo" / "models" / "unimo3" / "README.md"


def _rows(header: str) -> list[list[str]]:
    """Cells of the table whose header line starts so."""
    lines = README.read_text(encoding="utf8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows


MAP = _rows("| paper | file | name |")


def _names(path: Path) -> set[str]:
    """Functions, classes and their methods that a file defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return names


@pytest.mark.parametrize(("paper", "file", "name"), MAP, ids=[row[0] for row in MAP])
def test_row_points_at_code(paper: str, file: str, name: str):
    assert (ROOT / file).is_file(), f"{file} is gone"
    assert name.strip("`") in _names(ROOT / file), f"{name} is not in {file}"


def test_every_equation_has_a_row():
    text = " ".join(row[0] for row in MAP)
    cited = {int(number) for number in re.findall(r"\((\d+)\)", text)}
    assert cited == set(range(1, 12))


def test_every_size_is_described():
    described = set(re.findall(r"`(\w+)`", " ".join(row[0] for row in _rows("| name | parameters |"))))
    assert described == set(SIZES)


def test_options_named_in_the_readme_exist():
    """Each `fusion` value in the table of open questions is one that the config accepts."""
    source = (README.parent / "config.py").read_text(encoding="utf8")
    table = " ".join(" ".join(row[1:]) for row in _rows("| question | default |"))
    options = re.findall(r"`(\w+)=(\w+)`", table)
    assert len(options) >= 7
    for field, value in options:
        assert f"    {field}:" in source
        assert value in ("true", "false") or f'"{value}"' in source
