"""Every library that is imported is one that setup.py declares, in the extra of the code that imports it."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("unimo", "tools", "ppdet_features", "tests")
CODE = [file for name in FOLDERS for file in (ROOT / name).rglob("*.py")]
# Top-level modules of this repository: the packages, and files of folders that stand on the path.
BESIDE = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "unimo/benchmark/peers").glob("*.py")]
OWN = {*FOLDERS, *(file.stem for file in BESIDE), *(file.parent.name for file in BESIDE)}
IMPORT = re.compile(
    r"""^\s*(?:from\ (\w+)[\w.]*\ import|import\ (\w+))
    |\b(?:import_module|importorskip|find_spec|_library)\(\s*"(\w+)""",
    re.M | re.X,
)
# Module -> distribution, where these are called differently.
NAMES = {
    "faiss": "faiss-cpu",
    "google": "protobuf",
    "paddle": "paddlepaddle",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Who may import what only an extra installs; tests may import all that one of them does.
USERS = {
    "cpu": ("unimo/", "tools/", "ppdet_features/", "tests/"),
    "zoo": ("unimo/weights/zoo.py", "tests/"),
    "caption": ("unimo/metrics/caption.py", "tests/"),
    "generation": ("unimo/metrics/generation.py", "tests/"),
    "augment": ("unimo/augment/translation.py", "tests/"),
    "spacy": ("unimo/data/masking/tagging.py",),
    "search": ("unimo/inference/search/nearest.py", "tests/"),
    "detector": ("ppdet_features/coco.py", "tests/"),
    "export": ("unimo/inference/export/programs.py", "tests/"),
    "peers": ("unimo/benchmark/peers/", "tests/assets/make_"),
    "test": ("tests/",),
    "mutants": ("tests/support/mutants.py",),
}
# Required by others that do not say so; see setup.py.
UNSEEN = {"setuptools"}


@pytest.fixture(scope="module")
def declared() -> Iterator[dict[str, set[str]]]:
    """Distributions of every extra by its name; those that are always installed under the empty one."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", found.update)
        runpy.run_path(str(ROOT / "setup.py"))
    extras = {"": found["install_requires"], **found["extras_require"]}
    yield {extra: {_distribution(line) for line in lines} for extra, lines in extras.items()}


def _distribution(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def imported(file: Path) -> set[str]:
    """Distributions of other people that a file imports, also by a name in quotes."""
    found = IMPORT.findall(file.read_text(encoding="utf8"))
    tops = {next(filter(None, names)) for names in found} - OWN - sys.stdlib_module_names
    return {_distribution(NAMES.get(top, top)) for top in tops}


def test_every_import_is_declared_where_it_is_used(declared: dict[str, set[str]]) -> None:
    unknown = []
    for file in CODE:
        place = str(file.relative_to(ROOT))
        allowed = declared[""].union(
            *(declared[extra] for extra, users in USERS.items() if place.startswith(users))
        )
        unknown += [f"{place}: {name}" for name in sorted(imported(file) - allowed)]
    assert not [line for line in unknown if not line.endswith(": no-such-library")]


def test_everything_that_is_always_installed_is_imported(declared: dict[str, set[str]]) -> None:
    used = {name for file in CODE for name in imported(file) if "tests" not in file.parts}
    assert declared[""] - used == UNSEEN


def test_what_holds_versions_back_is_in_the_extra_that_needs_it(declared: dict[str, set[str]]) -> None:
    """The set without paddlenlp and paddleclas has no upper bounds for their sake, and pins none of them."""
    assert {"huggingface-hub", "aistudio-sdk", "pyarrow", "protobuf"} < declared["zoo"]
    pins = {
        name: {_distribution(line) for line in (ROOT / name).read_text().splitlines() if "==" in line}
        for name in ("constraints.txt", "constraints-lean.txt")
    }
    assert {"paddlenlp", "paddleclas"} <= pins["constraints.txt"]
    assert not {"paddlenlp", "paddleclas", "aistudio-sdk"} & pins["constraints-lean.txt"]
    lean = declared[""] | declared["cpu"] | declared["test"]
    assert lean - {"setuptools"} <= pins["constraints-lean.txt"]
    assert lean | declared["zoo"] - {"setuptools"} <= pins["constraints.txt"] | {"setuptools"}
