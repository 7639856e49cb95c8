"""The tables about the papers: what they name exists, and every equation and size has a row."""

import ast
import re
from pathlib import Path

import pytest

import unimo
from unimo.registry import paper_of

ROOT = Path(unimo.__file__).resolve().parent.parent
# Package -> how many numbered equations its paper has.
EQUATIONS = {"unimo": 7, "unimo2": 3, "unimo3": 11, "semvlp": 0}
# Package -> heading of its sizes in the list of models.
HEADINGS = {
    "unimo": "UNIMO",
    "unimo2": "UNIMO-2",
    "unimo3": "UNIMO-3, BridgeTower, METER",
    "semvlp": "SemVLP",
}


def _folder(package: str) -> Path:
    return ROOT / "unimo" / "models" / package


def _rows(page: Path, header: str, heading: str = "") -> list[list[str]]:
    """Cells of the table whose header line starts so, below a heading."""
    text = page.read_text(encoding="utf8")
    lines = text.partition(f"## {heading}\n")[2].splitlines() if heading else text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows


MAPS = {package: _rows(_folder(package) / "README.md", "| paper | file | name |") for package in EQUATIONS}
ROWS = [(package, *row) for package, rows in MAPS.items() for row in rows]


def _names(path: Path) -> set[str]:
    """Functions, classes and their methods that a file defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return names


@pytest.mark.parametrize(("package", "paper", "file", "name"), ROWS, ids=[f"{r[0]} {r[1]}" for r in ROWS])
def test_row_points_at_code(package: str, paper: str, file: str, name: str):
    assert (ROOT / file).is_file(), f"{file} is gone"
    assert name.strip("`") in _names(ROOT / file), f"{name} is not in {file}"


@pytest.mark.parametrize(("package", "last"), EQUATIONS.items())
def test_every_equation_has_a_row(package: str, last: int):
    text = " ".join(row[0] for row in MAPS[package])
    cited = {int(number) for number in re.findall(r"\((\d+)\)", text)}
    assert cited == set(range(1, last + 1))


@pytest.mark.parametrize("package", EQUATIONS)
def test_every_size_is_described(package: str):
    rows = _rows(ROOT / "docs" / "reference" / "models.md", "| name | parameters |", HEADINGS[package])
    described = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows))
    assert set(described) == set(paper_of(f"{package}_tiny").sizes)


@pytest.mark.parametrize("package", EQUATIONS)
def test_options_named_on_the_page_of_the_paper_exist(package: str):
    """Each value in the table of open questions is one that the config accepts."""
    files = (_folder(package) / "config.py", ROOT / "unimo" / "nn" / "config.py")
    source = "".join(file.read_text(encoding="utf8") for file in files)
    page = ROOT / "docs" / "papers" / f"{package}.md"
    table = " ".join(" ".join(row[1:]) for row in _rows(page, "| question | default |"))
    options = re.findall(r"`(?:model\.\w+\.)?(\w+)=(\w+)`", table)
    assert len(options) >= 7
    for field, value in options:
        assert f"    {field}:" in source
        assert value in ("true", "false") or value.isdigit() or f'"{value}"' in source
