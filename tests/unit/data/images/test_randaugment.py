"""Operations of both augmentations, at the strengths of the papers' code."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from unimo.data.images.randaugment import (
    ALBEF_OPERATIONS,
    GREY,
    TIMM_OPERATIONS,
    UDA_OPERATIONS,
    RandAugment,
    RandomAugment,
)


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8))


def spy(monkeypatch, table, position):
    """Replace all operations by ones that record their strength."""
    seen = []

    def noting(name):
        return lambda image, value: seen.append((name, value)) or image

    for name, row in table.items():
        monkeypatch.setitem(table, name, (*row[:position], noting(name), *row[position + 1 :]))
    return seen


def test_uda_strength_and_signs(monkeypatch, picture):
    seen = spy(monkeypatch, UDA_OPERATIONS, 0)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        RandAugment(2, 9)(picture, rng)
    assert len(seen) == 4000
    values = {name: {round(value, 6) for other, value in seen if other == name} for name in UDA_OPERATIONS}
    assert values["Rotate"] == {9.0}
    assert values["Posterize"] == {1.2}
    assert values["Solarize"] == {76.8}
    assert values["SolarizeAdd"] == {33.0}
    assert values["Color"] == values["Sharpness"] == {0.64}
    assert values["ShearX"] == {0.09, -0.09}
    assert values["TranslateY"] == {30.0, -30.0}
    counts = [sum(other == name for other, _ in seen) for name in UDA_OPERATIONS]
    assert min(counts) > 0.8 * 4000 / 14 and max(counts) < 1.2 * 4000 / 14


def test_albef_strength_probability_and_signs(monkeypatch, picture):
    seen = spy(monkeypatch, ALBEF_OPERATIONS, 0)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        RandomAugment(2, 5)(picture, rng)
    assert 1900 < len(seen) < 2100
    values = {name: {round(value, 6) for other, value in seen if other == name} for name in ALBEF_OPERATIONS}
    assert values["Rotate"] == {15.0, -15.0}
    assert values["TranslateX"] == {5.0, -5.0}
    assert values["ShearY"] == {0.15, -0.15}
    assert values["Brightness"] == {0.5}


@pytest.mark.parametrize("table", [UDA_OPERATIONS, ALBEF_OPERATIONS, TIMM_OPERATIONS])
def test_every_operation_keeps_size_and_mode(picture, table):
    for name, (operation, low, *_) in table.items():
        for value in (low, 1, 0.3):
            changed = operation(picture, value)
            assert (changed.size, changed.mode) == (picture.size, "RGB"), name


def test_borders_are_black_and_grey(picture):
    assert UDA_OPERATIONS["TranslateX"][0](picture, 10).getpixel((39, 0)) == (0, 0, 0)
    assert ALBEF_OPERATIONS["TranslateX"][0](picture, 10).getpixel((39, 0)) == (128, 128, 128)
    assert UDA_OPERATIONS["TranslateX"][0](picture, 10).getpixel((0, 0)) == picture.getpixel((10, 0))


def test_solarize_add():
    image = Image.fromarray(np.array([[[100, 127, 128]]], np.uint8))
    assert UDA_OPERATIONS["SolarizeAdd"][0](image, 33).getpixel((0, 0)) == (133, 160, 128)


def test_posterize_keeps_at_least_one_bit():
    image = Image.fromarray(np.array([[[100, 127, 200]]], np.uint8))
    assert UDA_OPERATIONS["Posterize"][0](image, 0.4).getpixel((0, 0)) == (0, 0, 128)


def test_timm_strength_deviation_probability_and_signs(monkeypatch, picture):
    seen = spy(monkeypatch, TIMM_OPERATIONS, 0)
    rng = np.random.default_rng(0)
    for _ in range(3000):
        RandomAugment(2, 9, "timm", 0.5)(picture, rng)
    assert 2850 < len(seen) < 3150
    full = {"Rotate": 30, "Solarize": 256, "Color": 0.9, "Sharpness": 0.9, "ShearY": 0.3, "TranslateX": 0.45}
    for name, strength in full.items():
        levels = np.array([10 * value / strength for other, value in seen if other == name])
        assert np.abs(levels).max() <= 10 + 1e-9 and np.abs(np.abs(levels).mean() - 9) < 0.12
        assert 0.3 < np.abs(levels).std() < 0.7
        assert (levels < 0).any() == (name != "Solarize")
    counts = [sum(other == name for other, _ in seen) for name in TIMM_OPERATIONS]
    assert min(counts) > 0.75 * 3000 / 15 and max(counts) < 1.25 * 3000 / 15


def test_timm_operations_change_more_at_higher_levels(picture):
    """Strengths of level 9 and 10 as timm's functions turn them into arguments of Pillow."""

    def same(name, value, expected):
        np.testing.assert_array_equal(TIMM_OPERATIONS[name][0](picture, value), np.asarray(expected))

    same("Posterize", 4 * 0.9, ImageOps.posterize(picture, 1))
    same("Posterize", 4 * 0.2, ImageOps.posterize(picture, 4))
    same("Solarize", 256 * 0.9, ImageOps.solarize(picture, 26))
    same("Color", 0.81, ImageEnhance.Color(picture).enhance(1.81))
    same("Color", -0.81, ImageEnhance.Color(picture).enhance(0.19))
    moved = (1, 0, 0.405 * 40, 0, 1, 0)
    bicubic = Image.Resampling.BICUBIC
    same(
        "TranslateX",
        0.405,
        picture.transform((40, 40), Image.Transform.AFFINE, moved, bicubic, fillcolor=GREY),
    )
    same("Invert", 0, ImageOps.invert(picture))
