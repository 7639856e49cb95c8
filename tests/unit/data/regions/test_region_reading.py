"""Regions of a batch: different numbers, the best ones, and blank images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from unimo.data.record import Record
from unimo.data.regions.open import RegionInput
from unimo.errors import ConfigError


@pytest.fixture
def record() -> Record:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(buffer, format="PNG")
    return Record("a", "c", images=(buffer.getvalue(),), image_id="a.png")


def test_regions_are_padded_to_the_most_of_the_batch(record):
    visual = RegionInput("grid:2:1")
    whole = visual.read(record)
    batch = visual.join([whole, whole.best(1)])
    assert batch["features"].shape == (2, 4, 3) and batch["locations"].shape == (2, 4, 5)
    assert batch["mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert not batch["features"][1, 1:].any() and batch["features"][1, 0].tolist() == [1.0, -1.0, -1.0]


def test_only_the_best_regions_are_read(record):
    assert len(RegionInput("grid:2:1", max_regions=3).read(record)) == 3
    with pytest.raises(ConfigError, match="max_regions 0"):
        RegionInput("grid", max_regions=0)


def test_a_blank_picture_is_one_empty_region_without_and_with_a_detector(record):
    visual = RegionInput("grid:2:1", blank=True)
    blank = visual.read(record)
    assert not blank.features.any() and blank.class_probs is None
    np.testing.assert_array_equal(blank.locations, [[0, 0, 1, 1, 1]])
    visual.source.num_classes = 4
    np.testing.assert_allclose(visual.read(record).class_probs, [[0.25] * 4])
