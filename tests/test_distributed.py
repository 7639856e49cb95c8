"""Two CPU ranks (gloo, Paddle Fleet) compute what one rank computes on the joined batch.

After the first step Adam's first moment is (1 - beta1) times the gradient that was applied, so
checkpoints hold the gradients to compare. Dropout is off: its random streams differ by rank.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from paddle_launch import run_ranks
from small_run import make_run, train

from unimo.config import merge_into, parse_overrides
from unimo.training import checkpoint
from unimo.weights.files import read_safetensors

WORDS = ["model.dropout=0", "train.save_every=1", "train.keep_checkpoints=20", "train.log_every=1"]


def one_rank(output: Path, *words: str) -> None:
    train(merge_into(make_run(output), parse_overrides([*WORDS, *words])))


def losses(output: Path) -> np.ndarray:
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return np.array([row["loss"] for row in lines if "loss" in row])


def tensors(output: Path, step: int, pattern: str) -> dict[str, np.ndarray]:
    merged: dict[str, np.ndarray] = {}
    for path in sorted((checkpoint.folder_of(output) / f"step_{step:08d}").glob(pattern)):
        merged |= read_safetensors(path)
    return merged


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=tolerance, rtol=0, err_msg=name)


def assert_same_gradients(found: Path, expected: Path) -> None:
    """Compare what the first step of two runs has given to Adam, which hides the scale from then on."""
    gradients = [
        {name: value / 0.1 for name, value in tensors(output, 1, "optimizer*").items() if "moment1" in name}
        for output in (found, expected)
    ]
    assert len(gradients[1]) == 8
    assert_close(*gradients, 1e-5)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("single")
    one_rank(output)
    return output


@pytest.mark.parametrize("stage", [0, 1])
def test_two_ranks_equal_one(single: Path, tmp_path: Path, stage: int) -> None:
    two = tmp_path / "two"
    assert run_ranks(2, two, [*WORDS, f"train.sharding_stage={stage}"]) == 0
    np.testing.assert_allclose(losses(two), losses(single), rtol=1e-5)
    assert_same_gradients(two, single)
    assert_close(tensors(two, 12, "model*"), tensors(single, 12, "model*"), 1e-5)
    if stage:
        parts = sorted((checkpoint.folder_of(two) / "step_00000012").glob("optimizer-*"))
        names = [set(read_safetensors(path)) for path in parts]
        assert len(names) == 2
        assert not names[0] & names[1]
    # The other half of the run on one rank.
    for folder in checkpoint.list_complete(checkpoint.folder_of(two))[6:]:
        shutil.rmtree(folder)
    one_rank(two, "train.sharding_stage=0")
    np.testing.assert_allclose(losses(two), losses(single), rtol=1e-5)


def test_one_rank_goes_on_with_two(single: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(single, output)
    for folder in checkpoint.list_complete(checkpoint.folder_of(output))[6:]:
        shutil.rmtree(folder)
    assert run_ranks(2, output, [*WORDS, "train.sharding_stage=1"]) == 0
    np.testing.assert_allclose(losses(output), losses(single), rtol=1e-5)
    assert "random streams" in (output / "launcher.log").read_text()


def test_accumulation_on_two_ranks(tmp_path: Path) -> None:
    """Without clipping, which would hide the scale of large gradients as Adam does."""
    one, two, free = tmp_path / "one", tmp_path / "two", "optim.clip_grad_norm=null"
    one_rank(one, free)
    assert run_ranks(2, two, [*WORDS, "train.micro_batch_size=2", free]) == 0
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    assert_same_gradients(two, one)


@pytest.mark.parametrize("stage", [0, 1])
def test_contrast_over_rounds_of_two_ranks(tmp_path: Path, stage: int) -> None:
    """Twelve steps of two ranks x two rounds are those of one rank and one round."""
    one_rank(tmp_path / "one", "task.contrast=true")
    words = ["task.contrast=true", "train.micro_batch_size=2", f"train.sharding_stage={stage}"]
    assert run_ranks(2, tmp_path / "two", [*WORDS, *words]) == 0
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)
    assert_same_gradients(tmp_path / "two", tmp_path / "one")
    assert_close(tensors(tmp_path / "two", 12, "model*"), tensors(tmp_path / "one", 12, "model*"), 1e-5)


def test_non_finite_loss_names_samples_of_its_rank(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path, ["task.nonfinite_id=a/7"]) == 2
    found = json.loads((tmp_path / "nonfinite_batch.json").read_text())
    assert "a/7" in found["sample_ids"]
    assert len(found["sample_ids"]) == 4
    assert "error: the loss of step" in (tmp_path / "launcher.log").read_text()


def joined(output: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    merged: dict[str, np.ndarray] = {}
    for path in sorted(output.glob("gradients-*.safetensors")):
        merged |= read_safetensors(path)
    return json.loads((output / "loss.json").read_text()), merged


@pytest.fixture(scope="module")
def joined_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run one rank, with the false images of the batch and with hard ones."""
    outputs = {}
    for words in ("", "hard"):
        outputs[words] = tmp_path_factory.mktemp(f"joined_{words}")
        assert run_ranks(1, outputs[words], words.split(), script="joined_batch.py") == 0
    return outputs


@pytest.mark.parametrize("option", ["stage=0", "stage=1", "recompute", "hard", "hard recompute"])
def test_unimo3_on_two_ranks_equals_the_joined_batch(
    joined_by_one: dict[str, Path], tmp_path: Path, option: str
) -> None:
    """With unequal numbers of MLM targets on the ranks, and different random starts.

    With hard negatives the ranks also hold different numbers of pairs, and the only false image of all texts
    is on the first rank.
    """
    assert run_ranks(2, tmp_path, option.split(), script="joined_batch.py") == 0
    hard = "hard" if "hard" in option else ""
    (found, gradients), (expected, joined_gradients) = joined(tmp_path), joined(joined_by_one[hard])
    for name in ("loss", "mlm", "itm", *(["itc"] if hard else [])):
        assert found[name] == pytest.approx(expected[name], abs=1e-5), name
    assert max(np.abs(value).max() for value in joined_gradients.values()) > 0.01
    assert_close(gradients, joined_gradients, 1e-5)
