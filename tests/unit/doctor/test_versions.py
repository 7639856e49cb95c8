"""Installed packages that do not fit are reported as wrong, with the right command."""

from __future__ import annotations

from pathlib import Path

import pytest

from unimo.doctor import versions
from unimo.doctor.report import Row
from unimo.doctor.versions import build_row, fit_row, fits, pinned_row, pins, python_row, required

GOOD = {
    "paddlepaddle": "3.3.1",
    "numpy": "1.24.4",
    "protobuf": "6.33.6",
    "huggingface-hub": "0.36.2",
    "paddleclas": "2.6.0",
}
NEEDS = ["numpy>=1.24.4,<2", "protobuf>=3.20.2,<7", "huggingface_hub<1", "paddleclas>=2.6.0,<2.7"]


@pytest.mark.parametrize(
    "version,result", [((3, 9), "wrong"), ((3, 10), "ok"), ((3, 13), "ok"), ((3, 14), "wrong")]
)
def test_python(version: tuple[int, int], result: str) -> None:
    assert python_row(version).result == result


@pytest.mark.parametrize(
    "installed,has_gpu,result,words",
    [
        ({"paddlepaddle": "3.3.1"}, False, "ok", ""),
        ({"paddlepaddle-gpu": "3.3.1"}, True, "ok", ""),
        ({}, False, "not here", ".[cpu]"),
        ({}, True, "not here", "stable/cu126"),
        ({"paddlepaddle-gpu": "2.6.2"}, True, "wrong", "stable/cu126"),
        ({"paddlepaddle-gpu": "2.6.2.post120"}, True, "wrong", "Paddle's own index"),
        ({"paddlepaddle": "2.6.2"}, False, "wrong", ".[cpu]"),
        ({"paddlepaddle": "3.2.0"}, False, "wrong", ".[cpu]"),
        ({"paddlepaddle": "3.4.0"}, False, "wrong", ".[cpu]"),
        ({"paddlepaddle": "3.3.1"}, True, "wrong", "stable/cu126"),
        ({"paddlepaddle": "3.3.1", "paddlepaddle-gpu": "3.3.1"}, True, "wrong", "paddle/"),
    ],
)  # fmt: skip
def test_build_of_paddle(installed: dict[str, str], has_gpu: bool, result: str, words: str) -> None:
    row = build_row(installed, has_gpu)
    assert (row.result, words in row.advice) == (result, True), row


@pytest.mark.parametrize(
    "changes,named",
    [
        ({"numpy": "2.4.6"}, "numpy 2.4.6"),
        ({"protobuf": "7.0.0"}, "protobuf 7.0.0"),
        ({"huggingface-hub": "2.4.0"}, "huggingface_hub 2.4.0"),
        ({"paddleclas": None}, "paddleclas is missing"),
        ({"numpy": "1.26.4"}, "paddleclas needs ==1.24.4"),
        ({"opencv-python": "4.6.0.66", "opencv-python-headless": "4.11.0"}, "cv2/"),
    ],
)
def test_packages_that_do_not_fit_are_named(changes: dict[str, str | None], named: str) -> None:
    paddleclas = {"paddleclas": ["numpy==1.24.4", "faiss-cpu>=9; extra == 'search'"]}
    assert fit_row(GOOD, NEEDS, paddleclas).result == "ok"
    installed = {name: version for name, version in {**GOOD, **changes}.items() if version}
    row = fit_row(installed, NEEDS, paddleclas)
    assert row.result == "wrong"
    assert named in row.figure
    assert "constraints.txt" in row.advice


@pytest.mark.parametrize(
    "version,wanted,answer",
    [
        ("1.24.4", ">=1.24.4,<2", True),
        ("2", "<2", False),
        ("2.0", "==2.*", True),
        ("2.10", ">2.9", True),
        ("1.0.0rc1", "<1", False),
        ("1.5", "!=1.5", False),
        ("1.5.0", "==1.5", True),
        ("anything", "", True),
        ("1.4", "~=1.3", True),
    ],
)
def test_conditions(version: str, wanted: str, answer: bool) -> None:
    assert fits(version, wanted) is answer


@pytest.mark.parametrize(
    "with_zoo,constraints,pinned",
    [
        (True, "constraints.txt", {"paddlepaddle": "3.3.1", "numpy": "1.24.4", "paddlenlp": "2.8.1"}),
        (False, "constraints-lean.txt", {"paddlepaddle": "3.3.1"}),
    ],
)
def test_ranges_and_pins_are_those_of_the_checkout(
    root: Path, with_zoo: bool, constraints: str, pinned: dict[str, str]
) -> None:
    asked = required(root / "setup.py", with_zoo)
    assert "numpy>=1.24.4,<3" in asked
    assert ("protobuf>=3.20.2,<7" in asked) is with_zoo
    found = pins(root / constraints)
    assert found | pinned == found
    names = {versions.normal(text.split(">")[0].split("<")[0]) for text in asked} - {"setuptools"}
    assert names <= found.keys()
    assert {"paddlenlp", "paddleclas"}.isdisjoint(found) is not with_zoo


def test_untested_versions_are_told_but_not_wrong(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("pillow==12.3.0\nnumpy==1.24.4\n")
    row = pinned_row({"pillow": "13.0"}, constraints)
    assert row.result == "ok"
    assert "pillow 13.0 (12.3.0)" in row.figure
    assert pinned_row(GOOD, constraints) == Row(
        "tested versions", "ok", "1 of 1 packages as in constraints.txt"
    )
