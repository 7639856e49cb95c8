"""Blockwise masking of patches: number, shape, place and seeds of the hidden blocks."""

import numpy as np
import pytest

from unimo.data.masking.blocks import BlockMasker
from unimo.errors import ConfigError


@pytest.mark.parametrize(("grid", "most", "smallest"), [(14, 75, 16), (24, 220, 47), (4, 6, 1)])
def test_numbers_follow_the_grid(grid, most, smallest):
    masker = BlockMasker(grid)
    assert (masker.most, masker.smallest) == (most, smallest)
    rng = np.random.default_rng(0)
    counts = [int(masker(rng).sum()) for _ in range(300)]
    assert 0.7 * most < min(counts) and max(counts) <= most
    assert np.mean(counts) > 0.97 * most


def test_single_blocks_are_as_drawn():
    """Sides are rounded to whole patches, by which small blocks get some other area and ratio."""
    masker, rng = BlockMasker(14), np.random.default_rng(1)
    ratios = []
    for _ in range(2000):
        rows, columns = masker._draw(np.zeros((14, 14), bool), 75, rng)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert 0 <= rows.start and rows.stop <= 14 and 0 <= columns.start and columns.stop <= 14
        assert 14 <= height * width <= 75 and max(height, width) < 14
        ratios.append(height / width)
    assert 0.25 <= min(ratios) < 0.4 and 2.5 < max(ratios) <= 4
    assert np.mean(np.log(ratios)) == pytest.approx(0, abs=0.05)


def test_blocks_hide_neighbours():
    """Patches hidden one by one would have 38% of their neighbours hidden."""
    masker, rng = BlockMasker(14), np.random.default_rng(2)
    masks = [masker(rng) for _ in range(200)]
    beside = np.concatenate([mask[:, 1:][mask[:, :-1]] for mask in masks])
    assert beside.mean() > 0.7
    everywhere = np.mean(masks, axis=0)
    assert everywhere.min() > 0 and everywhere.max() < 0.8


def test_the_same_seed_gives_the_same_patches():
    masker = BlockMasker(14)
    first, again, other = (masker(np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_an_image_of_one_patch_is_refused():
    with pytest.raises(ConfigError, match="1 x 1 patches"):
        BlockMasker(1)
