"""Region masking: share of masked regions, overlapping ones together."""

import numpy as np
import pytest

from unimo.data.masking.maskers import RegionMasker, overlaps
from unimo.errors import ConfigError


def picture(rng, low=10, high=100):
    """Make boxes like those of detectors: several around each object, which overlap, and some large ones."""
    count = int(rng.integers(low, high + 1))
    objects = rng.uniform(0, 500, (max(count // 4, 1), 2))
    sides = rng.uniform(30, 250, (len(objects), 2))
    which = rng.integers(len(objects), size=count)
    corners = objects[which] + rng.normal(0, 12, (count, 2))
    size = sides[which] * rng.uniform(0.6, 1.4, (count, 2))
    return np.concatenate([corners, corners + size], axis=1).astype(np.float32)


def apart(count):
    """Make boxes that do not touch."""
    left = np.arange(count, dtype=np.float32) * 10
    return np.stack([left, np.zeros(count), left + 5, np.full(count, 5.0)], axis=1)


def test_overlaps_box_by_box():
    boxes = picture(np.random.default_rng(0), 30, 30)
    expected = np.zeros((30, 30))
    for i, (a1, b1, a2, b2) in enumerate(boxes.astype(np.float64)):
        for j, (c1, d1, c2, d2) in enumerate(boxes.astype(np.float64)):
            common = max(min(a2, c2) - max(a1, c1), 0) * max(min(b2, d2) - max(b1, d1), 0)
            expected[i, j] = common / ((a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - common)
    np.testing.assert_allclose(overlaps(boxes), expected, atol=1e-12)
    assert overlaps(np.array([[0, 0, 2, 2], [1, 0, 3, 2]]))[0, 1] == pytest.approx(1 / 3)


def test_boxes_without_area_overlap_nothing():
    assert overlaps(np.array([[1, 1, 1, 4], [1, 1, 1, 4], [0, 0, 5, 5]]))[0].tolist() == [0, 0, 0]
    masked = RegionMasker()(np.zeros((40, 4), np.float32), np.random.default_rng(0))
    assert masked.sum() == 6


def test_the_share_over_10000_pictures():
    masker, rng = RegionMasker(), np.random.default_rng(1)
    shares, crowded = [], []
    for _ in range(10000):
        boxes = picture(rng)
        shares.append(masker(boxes, rng).mean())
        if len(crowded) < 200:
            crowded.append((overlaps(boxes) > 0.3).sum(1).mean() - 1)
    assert np.mean(crowded) > 2  # a region overlaps several others
    assert np.mean(shares) == pytest.approx(0.15, abs=0.01)


def test_an_anchor_takes_all_that_overlap_it_along():
    masker, rng = RegionMasker(), np.random.default_rng(2)
    hidden = 0
    for _ in range(500):
        boxes = picture(rng)
        masked, anchors = masker.draw(boxes, rng)
        near = overlaps(boxes) > 0.3
        assert masked.dtype == bool and masked.shape == (len(boxes),)
        assert masked[anchors].all()
        assert not near[anchors][:, ~masked].any()
        assert (near[anchors].any(0) | np.isin(np.arange(len(boxes)), anchors))[masked].all()
        hidden += masked.sum()
    assert hidden > 1000


def test_boxes_apart_are_hidden_alike_and_to_the_rounded_share():
    masker, rng = RegionMasker(), np.random.default_rng(3)
    masks = np.array([masker(apart(10), rng) for _ in range(4000)])
    assert set(masks.sum(1)) == {1, 2}
    np.testing.assert_allclose(masks.mean(0), 0.15, atol=0.025)


@pytest.mark.parametrize("boxes", [apart(0), apart(1), np.tile(apart(1), (7, 1))])
def test_one_region_stays_in_sight(boxes):
    for seed in range(50):
        assert not RegionMasker(0.9)(boxes, np.random.default_rng(seed)).any()


def test_a_large_share_leaves_one_region():
    for seed in range(20):
        masked = RegionMasker(0.99)(apart(5), np.random.default_rng(seed))
        assert masked.sum() == 4


def test_the_generator_decides_alone():
    boxes = picture(np.random.default_rng(4))
    first, again = (RegionMasker()(boxes, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    others = {RegionMasker()(boxes, np.random.default_rng(seed)).tobytes() for seed in range(10)}
    assert len(others) > 5


def test_impossible_settings():
    with pytest.raises(ConfigError, match="share 15"):
        RegionMasker(share=15)
