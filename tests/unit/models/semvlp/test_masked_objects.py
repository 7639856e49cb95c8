"""A masked object of SemVLP cannot be told from anything that the model reads, but for what overlaps it."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from semvlp_records import Source, collated, made_records, make_collator
from small_models import set_parameters
from small_semvlp import small_semvlp
from small_unimo import REGIONS

from unimo.data.masking.maskers import overlaps
from unimo.data.tokenizers import load_tokenizer
from unimo.models.semvlp.batches import PretrainBatch
from unimo.models.semvlp.config import PretrainingConfig
from unimo.nn.kernels import paddle_kernels
from unimo.tasks.base import to_tensors
from unimo.tasks.pretrain import PretrainTask

SETTINGS = pytest.mark.parametrize("together", [False, True])
MODES = pytest.mark.parametrize("mode", ["single", "two"])
NEAR = overlaps(Source().of(made_records(1)[0]).boxes) > 0.3
"""Overlaps of the regions of an image, themselves included: of the last three the middle one both others."""


def make_batch(together: bool, seed: int = 0) -> PretrainBatch:
    return collated(make_collator(mask_overlapping=together), seed=seed)


def targets(batch: PretrainBatch) -> np.ndarray:
    """Return the objects that are predicted, bool [B, R]."""
    found = np.zeros((len(batch.sample_ids), 1 + REGIONS), bool)
    found.reshape(-1)[batch.object_positions] = True
    return found[:, 1:]


def make_task() -> PretrainTask:
    words = {"vocab_size": load_tokenizer("scenes").vocab_size}
    task = PretrainTask(small_semvlp(text=words, regions={"num_attributes": 6}), PretrainingConfig())
    set_parameters(task)
    task.eval()
    return task


def test_related_objects_overlap() -> None:
    assert np.array_equal(NEAR[3:, 3:], [[True, True, False], [True, True, True], [False, True, True]])
    assert np.array_equal(NEAR[:3], np.eye(REGIONS, dtype=bool)[:3])
    features = Source().of(made_records(1)[0]).features
    assert np.corrcoef(features[3:])[0].min() > 0.95 > np.abs(np.corrcoef(features)[:3, 3]).max()


def test_all_that_overlaps_a_predicted_object_is_masked_if_wanted() -> None:
    """Also what overlaps an object that was only masked along with another."""
    overlapped, chosen = {False: 0, True: 0}, {False: [], True: []}
    spared = 0
    for together in (False, True):
        for seed in range(20):
            batch = make_batch(together, seed)
            masked, own = batch.images["masked"].astype(bool), targets(batch)
            assert not (own & ~masked).any()
            visible = ((NEAR & ~masked[:, None]).any(2) & own).sum()
            overlapped[together] += visible
            chosen[together].append(masked.mean())
            spared += (masked & ~own)[batch.itm_labels == 1].sum() if together else 0
    assert overlapped[True] == 0 < overlapped[False]
    assert spared > 0
    assert all(0.42 < np.mean(found) < 0.58 for found in chosen.values())


@SETTINGS
def test_a_masked_object_shows_its_box_and_neither_feature_nor_label_nor_attribute(together: bool) -> None:
    batch, model = make_batch(together), make_task().model
    assert batch.images.keys() == {"features", "locations", "mask", "masked"}
    rows = model.objects(to_tensors(batch).images)[0][:, 1:].numpy()
    masked = batch.images["masked"].astype(bool)
    boxes = batch.images["locations"][:, :, :4]
    empty = np.concatenate([np.zeros_like(batch.images["features"]), boxes], axis=2)
    expected = model.objects.projection(paddle.to_tensor(empty)).numpy()
    np.testing.assert_allclose(rows[masked], expected[masked], atol=1e-5)
    assert np.abs(rows[~masked] - expected[~masked]).max(axis=1).min() > 0.01
    assert np.unique(boxes[masked], axis=0).shape[0] == REGIONS


@MODES
@SETTINGS
def test_no_output_changes_with_what_is_masked(together: bool, mode: Any) -> None:
    """With the rule of overlaps, nor with what overlaps a predicted object; without it, with that it does."""
    model, batch = make_task().model, make_batch(together)
    model.mode = mode
    near = (NEAR & targets(batch)[:, None]).any(2)

    def outputs(changed: np.ndarray) -> list[np.ndarray]:
        rng = np.random.default_rng(7)
        features = batch.images["features"].copy()
        features[changed] = rng.normal(size=features[changed].shape)
        given = to_tensors(batch)
        given.images["features"] = paddle.to_tensor(features)
        image = model.encode_image(given.images).select(given.itm_image_index)
        fused = model.fuse(model.encode_text(given.mlm_input_ids, given.attention_mask), image)
        return [value.numpy() for value in (fused.fused_text, fused.fused_image, fused.pooled)]

    plain = outputs(np.zeros_like(near))
    for changed, same in ((batch.images["masked"].astype(bool), True), (near, together)):
        assert all(map(np.array_equal, plain, outputs(changed))) is same


@MODES
@SETTINGS
def test_no_loss_has_a_gradient_in_what_is_masked(together: bool, mode: Any) -> None:
    """Through the whole objective, whose targets are an input of their own."""
    task, batch = make_task(), make_batch(together)
    masked = batch.images["masked"].astype(bool)
    given = to_tensors(batch)
    given.images["features"].stop_gradient = False
    task.objective.mode = mode
    with paddle_kernels():
        losses, _ = task.losses(given)
    (found,) = paddle.grad(sum(losses.values()), [given.images["features"]])
    learned = np.abs(found.numpy()).max(2) > 0
    assert np.array_equal(learned, ~masked & np.isin(np.arange(8), batch.itm_image_index)[:, None])
