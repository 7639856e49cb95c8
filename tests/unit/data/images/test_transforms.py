"""Pixels of each transform against step-by-step references; randomness comes from the generator alone."""

import json

import numpy as np
import pytest
from PIL import Image

from unimo.data.images.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    RECIPES,
    _random_box,
    blank_pixels,
    build_transform,
    erase,
)
from unimo.errors import ConfigError


@pytest.fixture(scope="module")
def photo():
    """Make a smooth image with edges, 90 x 60."""
    y, x = np.mgrid[0:60, 0:90]
    planes = [128 + 100 * np.sin(x / 9), 128 + 100 * np.cos(y / 7), 40 + 160 * ((x // 20 + y // 20) % 2)]
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def draws(name):
    """Return whether a transform is random, by its name."""
    return any(word in name for word in ("randaug", "views", "_crop"))


def to_bytes(pixels):
    """Undo the normalisation: [3, S, S] to bytes [S, S, 3]."""
    return (pixels.transpose(1, 2, 0) * CLIP_STD + CLIP_MEAN) * 255


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [17, 32, 100])
def test_clip_is_resize_then_centre_crop(photo, size, turned):
    image = photo.transpose(Image.Transpose.ROTATE_90) if turned else photo
    width, height = image.size
    shorter = min(image.size)
    resized = image.resize((size * width // shorter, size * height // shorter), Image.Resampling.BICUBIC)
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    expected = np.asarray(resized.crop((left, top, left + size, top + size)), np.float32)
    pixels = build_transform("clip", size)(image, np.random.default_rng(0))
    assert pixels.dtype == np.float32 and pixels.shape == (3, size, size) and pixels.flags.c_contiguous
    assert np.abs(to_bytes(pixels) - expected).max() <= 1.01


@pytest.mark.parametrize("size", [14, 28])
def test_beit_evaluates_seven_eighths_of_the_shorter_side(photo, size):
    whole = size * 8 // 7
    resized = photo.resize((whole * 90 // 60, whole), Image.Resampling.BICUBIC)
    left, top = round((resized.width - size) / 2), round((whole - size) / 2)
    expected = np.asarray(resized.crop((left, top, left + size, top + size)), np.float32)
    pixels = build_transform("beit", size)(photo, np.random.default_rng(0))
    assert np.abs((pixels.transpose(1, 2, 0) + 1) * 127.5 - expected).max() <= 1.01
    square = photo.resize((size, size))
    assert not np.allclose(
        build_transform("beit", size)(square, None), build_transform("vit", size)(square, None)
    )


def test_a_quarter_of_the_images_has_a_rectangle_of_noise():
    shares = []
    for seed in range(400):
        pixels = build_transform("beit_randaug", 40)(Image.new("RGB", (50, 50)), np.random.default_rng(seed))
        noise = np.abs(pixels * 127.5 + 127.5 - np.rint(pixels * 127.5 + 127.5)) > 1e-3
        shares.append(noise.any(axis=0).mean())
    erased = [share for share in shares if share > 0.01]
    assert 0.18 < len(erased) / 400 < 0.32
    assert 0.015 < min(erased) and max(erased) < 0.36
    noise = erase(np.zeros((3, 200, 200), np.float32), np.random.default_rng(0))
    rows, columns = np.nonzero(noise[0])
    box = noise[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (box != 0).all() and box.std() == pytest.approx(1, abs=0.05) and abs(box.mean()) < 0.05


def picture(width, height):
    """Make the picture whose transforms tests/assets/make_torchvision_reference.py has stored."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    planes = [x * 255 // width, y * 255 // height, (x * x * 7 + y * 13 + x * y * 3) % 256]
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def test_pixels_are_those_of_torchvision(root):
    """Sides are odd too, where half a pixel is cut off on both sides; equal to one step of a byte."""
    stored = json.loads((root / "tests/assets/torchvision_transforms.json").read_text())["pixels"]
    assert {row["name"] for row in stored} == {"clip", "blip", "vit"}
    for row in stored:
        pixels = build_transform(row["name"], row["side"])(picture(*row["size"]), np.random.default_rng(0))
        expected = np.reshape(row["pixels"], pixels.shape)
        np.testing.assert_allclose(pixels, expected, atol=0.016, err_msg=f"{row['name']} of {row['size']}")


def test_random_box_that_never_fits_is_that_of_torchvision(root):
    for row in json.loads((root / "tests/assets/torchvision_transforms.json").read_text())["boxes"]:
        assert list(_random_box(*row["size"], np.random.default_rng(0), smallest=1.0)) == row["box"]


def test_normalisation_of_known_values():
    image = Image.new("RGB", (4, 4), (0, 128, 255))
    pixels = build_transform("clip", 4)(image, np.random.default_rng(0))
    expected = [(value / 255 - m) / s for value, m, s in zip((0, 128, 255), CLIP_MEAN, CLIP_STD, strict=True)]
    np.testing.assert_allclose(pixels[:, 2, 3], expected, rtol=1e-5)


def test_square_keeps_the_borders(photo):
    pixels = build_transform("blip", 30)(photo, np.random.default_rng(0))
    expected = np.asarray(photo.resize((30, 30), Image.Resampling.BICUBIC), np.float32)
    np.testing.assert_allclose(to_bytes(pixels), expected, atol=1e-3)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_chance_comes_from_the_generator(photo, name):
    transform = build_transform(name, 24)
    first = [transform(photo, np.random.default_rng(seed)) for seed in range(12)]
    again = [transform(photo, np.random.default_rng(seed)) for seed in range(12)]
    np.testing.assert_array_equal(first, again)
    different = any((value != first[0]).any() for value in first)
    assert different == draws(name)


@pytest.mark.parametrize("name", sorted(name for name in RECIPES if not draws(name)))
def test_plain_transforms_draw_nothing(photo, name):
    rng = np.random.default_rng(3)
    build_transform(name, 24)(photo, rng)
    assert rng.bit_generator.state == np.random.default_rng(3).bit_generator.state


def test_no_mirror_where_left_and_right_are_asked_about():
    """Left half black, right half white: the transform for VQA keeps the order, the other does not."""
    image = Image.new("RGB", (40, 40))
    image.paste((255, 255, 255), (20, 0, 40, 40))

    def share_mirrored(name):
        transform = build_transform(name, 20)
        pixels = [transform(image, np.random.default_rng(seed)) for seed in range(60)]
        return np.mean([value[:, :, :8].mean() > value[:, :, 12:].mean() for value in pixels])

    assert share_mirrored("blip_randaug_wohf") == 0
    assert 0.3 < share_mirrored("blip_randaug") < 0.7


@pytest.mark.parametrize("size", [(100, 80), (30, 200), (300, 20), (1, 1)])
def test_random_box_lies_inside(size):
    rng = np.random.default_rng(0)
    for _ in range(50):
        left, top, right, bottom = _random_box(*size, rng, smallest=0.5)
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        if max(size) < 2 * min(size):
            assert (right - left) * (bottom - top) >= 0.48 * size[0] * size[1]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2)])
def test_tiny_and_narrow_pictures(size):
    for name in RECIPES:
        pixels = build_transform(name, 8)(Image.new("RGB", size, (9, 9, 9)), np.random.default_rng(0))
        assert pixels.shape == (3, 8, 8) and np.isfinite(pixels).all()


def test_blank_is_the_mean_colour():
    assert not blank_pixels(8).any()
    np.testing.assert_allclose(to_bytes(blank_pixels(2))[0, 0] / 255, CLIP_MEAN, rtol=1e-6)


def test_unknown_name():
    with pytest.raises(ConfigError, match="nearest: .*clip_randaug"):
        build_transform("clip_randaugment", 8)
