"""Mixup, cutmix and label smoothing: shares, areas, targets and gradients against NumPy readings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import paddle
import pytest
from micro import make_run, make_task
from small_unimo import small_config as regions_config

from unimo.config import to_plain
from unimo.errors import ConfigError
from unimo.registry import task_class
from unimo.tasks.base import to_tensors
from unimo.tasks.classification.batches import ImageBatch
from unimo.tasks.classification.mixing import Mixing, cut_box

BOTH = Mixing(mixup=0.8, cutmix=1.0)


def marked(size: int = 8, side: int = 20) -> np.ndarray:
    """Images whose pixels are all their number, [B, 3, S, S]."""
    return np.arange(size, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 3, side, side), np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_mixup_keeps_its_share_of_every_pixel(seed: int) -> None:
    pixels = marked()
    share = Mixing(mixup=0.8)(pixels, np.random.default_rng(seed))
    assert 0 < share < 1
    np.testing.assert_allclose(pixels, share * marked() + (1 - share) * marked()[::-1], atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_keeps_exactly_its_share_of_the_area(seed: int) -> None:
    pixels = marked()
    share = Mixing(cutmix=1.0)(pixels, np.random.default_rng(seed))
    for number, image in enumerate(pixels):
        own, other = image == number, image == len(pixels) - 1 - number
        assert (own | other).all() and own.mean() == pytest.approx(share, abs=1e-12)
        rows, columns = np.nonzero(other[0])
        assert not len(rows) or len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # one rectangle


def test_a_box_in_the_middle_has_the_share_that_was_drawn_and_one_at_the_edge_less() -> None:
    rng = np.random.default_rng(0)
    sizes = {(b - t) * (r - left) for t, b, left, r in (cut_box(20, 20, 0.75, rng) for _ in range(300))}
    assert max(sizes) == 100 and min(sizes) < 50


def test_kinds_have_equal_chances_and_beta_shares() -> None:
    shares, kinds = {"mixup": [], "cutmix": []}, []
    for seed in range(400):
        pixels = marked(2, 16)
        share = BOTH(pixels, np.random.default_rng(seed))
        kinds.append("cutmix" if np.isin(pixels, (0.0, 1.0)).all() else "mixup")
        shares[kinds[-1]].append(share)
    assert 160 < kinds.count("cutmix") < 240
    # Beta(0.8, 0.8) has the variance 1 / (4 (2 * 0.8 + 1)).
    assert np.mean(shares["mixup"]) == pytest.approx(0.5, abs=0.06)
    assert np.var(shares["mixup"]) == pytest.approx(1 / 10.4, rel=0.25)
    assert np.mean(shares["cutmix"]) > 0.5  # what lies outside the image is not cut


def mixed_run(**task):
    run = make_run("image_classification", task={"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, **task})
    return run, *make_task(run)


def test_batches_follow_from_seed_step_and_rank_alone() -> None:
    run, task, _, data = mixed_run()

    def read(seed: int, workers: int) -> list[ImageBatch]:
        run_ = replace(run, seed=seed, data=replace(run.data, num_workers=workers))
        batches = data.train_loader(run_)
        return [next(batches) for _ in range(3)]

    first, again, other = read(0, 0), read(0, 2), read(1, 0)
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left.images, right.images)
        assert left.share == right.share
    assert len({batch.share for batch in (*first, *other)}) == 6
    plain = next(data.eval_loader("val", run).__iter__())
    assert plain.share == 1.0
    assert "accuracy" not in task.losses(to_tensors(first[0]))[1]


def targets(labels: np.ndarray, share: float, smoothing: float, classes: int) -> np.ndarray:
    """Soft targets [B, classes] of mixed images, as timm writes them down."""
    off = smoothing / classes
    rows = np.full((2, len(labels), classes), off)
    for part, chosen in zip(rows, (labels, labels[::-1]), strict=True):
        part[np.arange(len(labels)), chosen] = 1 - smoothing + off
    return share * rows[0] + (1 - share) * rows[1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_loss_and_gradient_are_those_of_the_soft_target(share: float, smoothing: float) -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(6, 4)), rng.integers(4, size=6)
    target = targets(labels, share, smoothing, 4)
    np.testing.assert_allclose(target.sum(axis=1), 1.0)
    logs = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    _, task, _, _ = mixed_run(label_smoothing=smoothing)
    logits = paddle.to_tensor(values.astype(np.float32), stop_gradient=False)
    batch = ImageBatch(images=None, labels=labels, share=share, sample_ids=[""] * 6)
    loss = task.cross_entropy(logits, to_tensors(batch))
    loss.backward()
    assert loss.item() == pytest.approx(-(target * logs).sum(axis=1).mean(), rel=1e-5)
    np.testing.assert_allclose(logits.grad.numpy(), (np.exp(logs) - target) / 6, atol=1e-6)


def test_regions_are_not_mixed() -> None:
    model = {
        "name": "unimo_tiny",
        **{key: x for key, x in to_plain(regions_config()).items() if key != "name"},
    }
    run = make_run("image_classification", model=model, data={"regions": "grid:2:16"}, task={"mixup": 0.8})
    with pytest.raises(ConfigError, match="mix pixels, this model reads regions"):
        make_task(run)
    assert task_class("image_classification").Config().mixing == Mixing()
