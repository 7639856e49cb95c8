"""Augmentation of contrastive views: what changes, how much, and what stays."""

import colorsys

import numpy as np
import pytest
from PIL import Image

from unimo.data.images.randaugment import MEAN_COLOUR, ViewAugment, turn_hue
from unimo.data.images.transforms import RECIPES, build_transform


def noise(seed=0, size=32):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3)).astype(np.uint8))


def test_two_views_differ_and_follow_from_the_generator():
    for name in ("vit_views", "clip_views"):
        view = build_transform(name, 24)
        rng = np.random.default_rng(0)
        first, second = view(noise(), rng), view(noise(), rng)
        assert np.abs(first - second).mean() > 0.1
        np.testing.assert_array_equal(first, view(noise(), np.random.default_rng(0)))


def test_hue_turns_as_colorsys_says():
    image = Image.new("RGB", (2, 2), (200, 40, 40))
    turned = np.asarray(turn_hue(image, 1 / 3))[0, 0] / 255
    hue, saturation, value = colorsys.rgb_to_hsv(*turned)
    assert hue == pytest.approx(1 / 3, abs=0.02)
    assert (saturation, value) == pytest.approx(
        colorsys.rgb_to_hsv(200, 40, 40)[1:2] + (200 / 255,), abs=0.02
    )
    np.testing.assert_array_equal(np.asarray(turn_hue(image, 0.0)), np.asarray(image))


def test_a_fifth_becomes_grey_and_a_fifth_keeps_its_colours():
    augment, image = ViewAugment(0.0, 1.0), noise(size=8)
    views = [np.asarray(augment(image, np.random.default_rng(seed))) for seed in range(600)]
    grey = np.mean(
        [(view[..., 0] == view[..., 1]).all() and (view[..., 1] == view[..., 2]).all() for view in views]
    )
    same = np.mean([(view == np.asarray(image)).all() for view in views])
    assert grey == pytest.approx(0.2, abs=0.05)
    assert same == pytest.approx(0.2 * 0.8, abs=0.05)


def test_rotation_leaves_the_mean_colour_in_the_corners():
    augment, white = ViewAugment(45.0, 0.0), Image.new("RGB", (33, 33), (255, 255, 255))
    corners = {tuple(np.asarray(augment(white, np.random.default_rng(seed)))[0, 0]) for seed in range(40)}
    assert MEAN_COLOUR in corners


def test_half_statistics_map_bytes_to_minus_one_and_one():
    image = Image.new("RGB", (4, 4), (0, 255, 51))
    pixels = build_transform("vit", 4)(image, np.random.default_rng(0))
    np.testing.assert_allclose(pixels[:, 1, 1], [-1.0, 1.0, -0.6], atol=1e-6)


def test_smallest_crop_of_simclr():
    assert (RECIPES["vit_views"].smallest_crop, RECIPES["vit_views"].augment.strength) == (0.08, 1.0)


def test_beit_changes_brightness_contrast_and_saturation_of_the_whole_image():
    """A picture of one colour can only change its brightness, by BEiT's factors: 0.6 to 1.4."""
    recipe = RECIPES["beit_crop"]
    assert (recipe.smallest_crop, recipe.mirror, recipe.statistics) == (0.08, True, "half")
    jitter, grey = recipe.augment_first, Image.new("RGB", (4, 4), (100, 100, 100))
    levels = [np.asarray(jitter(grey, np.random.default_rng(seed)))[0, 0] for seed in range(400)]
    assert 59 <= np.min(levels) < 64 and 136 < np.max(levels) <= 140
    changed = np.asarray(jitter(noise(), np.random.default_rng(0)), float)
    correlation = np.corrcoef(changed.reshape(-1), np.asarray(noise(), float).reshape(-1))[0, 1]
    assert 0.8 < correlation < 1 and not (changed[..., 0] == changed[..., 1]).all()
