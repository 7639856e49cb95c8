"""The comparison of an index with plain FAISS: made-up vectors, both sides in this process, the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unimo.benchmark import index
from unimo.benchmark.index import KINDS, SIDES, format_report, made_up


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_find_the_same(kind: str, tmp_path: Path) -> None:
    vectors = made_up(kind, 500, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    vectors.tofile(tmp_path / "vectors")
    figures, found = {}, {}
    for side, measured in SIDES.items():
        (tmp_path / side).mkdir()
        figures[side], found[side] = measured(kind, tmp_path / "vectors", 32, tmp_path / side)
        figures[side] |= {"memory": 5e6, "recall": 1.0}
    np.testing.assert_array_equal(found["ours"], found["plain FAISS"])
    exact = np.argsort(-made_up(kind, index.QUERIES, 32, index._ASKED, are_queries=True) @ vectors.T, axis=1)
    np.testing.assert_array_equal(found["ours"], exact[:, : index.COUNT])
    table = format_report({"rows": 500, "width": 32, "kinds": {kind: figures}})
    assert f"plain FAISS, {kind}" in table and "ours: flat: every vector is compared" in table


def test_queries_as_encoded_lie_in_another_cone_and_find_what_they_share() -> None:
    images, texts = (made_up(KINDS[1], 400, 64, seed=3, are_queries=asked) for asked in (False, True))
    assert (images @ images.T).mean() > 0.25 and abs((texts @ images.T).mean()) < 0.15
    # The same seed draws the same shared part.
    own = np.argmax(texts @ images.T, axis=1) == np.arange(400)
    assert own.mean() > 0.2  # by chance 0.0025
