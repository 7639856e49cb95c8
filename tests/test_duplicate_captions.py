"""Captions of one picture are never negatives of each other, in any loss or draw, on one rank and on two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from duplicate_captions import CASES, DRAWS, facts
from paddle_launch import run_ranks

CONTRASTIVE = {
    "unimo-cmcl",
    "unimo2-contrast",
    "unimo2-hard",
    "unimo2-hard-parts",
    "unimo3-hard",
    "retrieval-itc",
}
"""Cases with a contrastive loss."""


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Return the findings of each of two ranks."""
    output = tmp_path_factory.mktemp("duplicates")
    code = run_ranks(2, output, script="duplicate_captions.py")
    assert code == 0, (output / "launcher.log").read_text()[-2000:]
    return [json.loads(Path(output / f"facts-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_on_one_rank(case: str) -> None:
    check(case, facts(case, (0, 1)), pairs=6)


@pytest.mark.parametrize("case", CASES)
def test_on_two_ranks(case: str, by_rank: list[dict]) -> None:
    for found, pairs in zip(by_rank, (4, 2), strict=True):
        check(case, found[case], pairs)


def check(case: str, found: dict, pairs: int) -> None:
    """A pair is judged false only if it shows another picture, and is never pushed apart otherwise."""
    for label, text, image in found["judged"]:
        assert label == (text == image), (label, text, image)
    # No draw came back to the picture: as many pairs are false as should be.
    matches = sum(label for label, _, _ in found["judged"])
    is_pretraining = not case.startswith("retrieval") and case != "unimo-cmcl"
    assert matches == DRAWS * (pairs // 2 if is_pretraining else pairs)
    others = len(found["judged"]) - matches
    assert others == DRAWS * (pairs - pairs // 2) if is_pretraining else others >= DRAWS * pairs
    assert bool(found["compared"]) == (case in CONTRASTIVE)
    for text, image, derivative in found["compared"]:
        # The loss falls when a negative gets less similar.
        assert derivative > 1e-6 if text != image else derivative <= 0, (text, image, derivative)
