"""UNIMO-2 and UNIMO on two ranks equal one rank on the joined batch of pairs, texts and images.

The ranks hold different numbers of everything, so means over each rank alone, negatives of one rank alone
or a gather without gradients would show.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from paddle_launch import run_ranks

from unimo.weights.files import read_safetensors


def result(output: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    losses = json.loads((output / "loss.json").read_text())
    return losses, read_safetensors(output / "gradients-0.safetensors")


UNIMO2 = {"mlm", "itm", "grounding", "text_mlm", "text_grounding", "vcl", "image_grounding"}
UNIMO = {"mlm", "seq2seq", "region", "cmcl", "text_mlm", "text_seq2seq", "image_region"}


@pytest.mark.parametrize(
    ("script", "words", "losses"),
    [
        ("joined_unpaired.py", (), UNIMO2),
        pytest.param("joined_unpaired.py", ("hard",), UNIMO2, marks=pytest.mark.slow),
        ("joined_unified.py", (), UNIMO),
    ],
    ids=["unimo2", "unimo2-hard", "unimo"],
)
def test_two_ranks_equal_one(tmp_path: Path, script: str, words: tuple[str, ...], losses: set[str]) -> None:
    for ranks in (1, 2):
        code = run_ranks(ranks, tmp_path / str(ranks), words, script=script)
        assert code == 0, (tmp_path / str(ranks) / "launcher.log").read_text()[-2000:]
    (expected, joined), (found, gradients) = result(tmp_path / "1"), result(tmp_path / "2")
    compared = {name for name in expected if not name.endswith("accuracy")}
    assert losses <= compared
    for name in compared:
        assert found[name] == pytest.approx(expected[name], abs=2e-5, rel=1e-4), name
    assert joined.keys() == gradients.keys()
    for name, value in joined.items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(gradients[name] / scale, value / scale, atol=2e-5, err_msg=name)
