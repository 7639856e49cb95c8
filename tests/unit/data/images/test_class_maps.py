"""Pictures and their maps go through augmentation together, and class maps are read as they are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from unimo.data.images import class_maps
from unimo.data.images.class_maps import NO_CLASS, augment, evaluation_size, reduce_zero_label, scaled_size
from unimo.data.images.open import open_class_map
from unimo.data.scenes.dataset import pixel_classes
from unimo.data.scenes.scene import COLORS, SHAPES, make_scene, render, render_classes
from unimo.errors import RecordError


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_zero_label_is_none_and_the_others_count_from_zero() -> None:
    found = reduce_zero_label(np.array([[0, 1, 150, 255]], np.uint8))
    assert found.tolist() == [[NO_CLASS, 0, 149, 254]] and found.dtype == np.uint8


def test_maps_of_scenes_are_the_shapes_of_the_pictures() -> None:
    for seed in range(40):
        scene = make_scene(np.random.default_rng(seed))
        colours, found = np.asarray(render(scene)), np.asarray(render_classes(scene))
        is_background = (colours == scene.background).all(axis=2)
        assert ((found == 0) == is_background).all()
        for item in scene.objects:  # one in each quarter
            x1, y1, x2, y2 = item.box
            part = found[y1 : y2 + 1, x1 : x2 + 1]
            drawn = (colours[y1 : y2 + 1, x1 : x2 + 1] == COLORS[item.color]).all(axis=2)
            assert (part[drawn] == 1 + SHAPES.index(item.shape)).all() and drawn.any()
    assert pixel_classes() == ["background", *SHAPES]


def test_crops_keep_picture_and_map_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey levels tell the class: 100 to 104 for classes 0 to 4, without distortion of colours."""
    monkeypatch.setattr(class_maps, "PhotometricDistortion", lambda: lambda image, rng: image)
    rng = np.random.default_rng(0)
    whole = np.repeat(np.repeat(rng.integers(0, 5, (6, 9)), 16, 0), 16, 1).astype(np.uint8)
    image = Image.fromarray(np.stack([whole * 40] * 3, axis=2))
    sizes = set()
    for _ in range(30):
        colours, found, (columns, rows) = augment(image, whole, 64, rng)
        sizes.add((columns, rows))
        assert colours.shape == (64, 64, 3) and found.shape == (64, 64)
        inside = found[:rows, :columns]
        assert (inside != NO_CLASS).all() and (found != NO_CLASS).sum() == rows * columns
        shown = colours[:rows, :columns, 0] / 40
        assert (np.abs(shown - inside) < 0.1).mean() > 0.6  # the rest are edges, which are interpolated
    assert len(sizes) > 5 and (64, 64) in sizes


@pytest.mark.parametrize(("draws", "low", "high"), [(10, 0.95, 1.0), (1, 0.5, 0.8)])
def test_crops_are_not_of_one_class(
    monkeypatch: pytest.MonkeyPatch, draws: int, low: float, high: float
) -> None:
    """Less than a third of the picture is of the other class; a crop that shows little of it is redrawn."""
    monkeypatch.setattr(class_maps, "_DRAWS", draws)
    whole = np.zeros((200, 200), np.uint8)
    whole[:, :60] = 1
    image = Image.fromarray(np.stack([whole] * 3, axis=2))
    rng = np.random.default_rng(0)
    counts = [np.bincount(augment(image, whole, 64, rng)[1].ravel(), minlength=256)[:2] for _ in range(80)]
    mixed = np.mean([count.max() < 0.75 * count.sum() for count in counts])
    assert low <= mixed <= high


def test_distortion_changes_colours_half_the_time_each() -> None:
    rng, distort = np.random.default_rng(0), class_maps.PhotometricDistortion()
    image = Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    changed = [
        np.abs(np.asarray(distort(image, rng)).astype(int) - np.asarray(image)).max() for _ in range(200)
    ]
    assert 0.9 < np.mean(np.array(changed) > 3) < 0.99  # all four are left out once in 16


def test_sizes() -> None:
    assert scaled_size((683, 512), 256) == (342, 256)
    assert scaled_size((4000, 500), 512) == (2048, 256)  # at most four times as long as the crop
    assert evaluation_size((683, 512), 512, 1.0) == (683, 512)
    assert evaluation_size((400, 300), 512, 0.5) == (683, 512)  # at least a crop
    assert evaluation_size((300, 400), 512, 1.75) == (896, 1195)


def test_class_maps_of_eight_bits_are_read_as_they_are() -> None:
    numbers = np.array([[0, 7], [150, 255]], np.uint8)
    palette = Image.fromarray(numbers).convert("P")
    palette.putpalette([200, 10, 10] * 256)
    assert (open_class_map(encoded(Image.fromarray(numbers))) == numbers).all()
    assert (open_class_map(encoded(palette)) == np.asarray(palette)).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(Image.fromarray(np.zeros((2, 2, 3), np.uint8))), "pixels are RGB, expected one number"),
        (encoded(Image.fromarray(np.full((2, 2), 300, np.uint16))), "expected one number of 8 bits"),
        (encoded(Image.effect_noise((40, 40), 90))[:600], "damaged"),
        (b"", "empty"),
        (b"no image", "cannot be opened"),
    ],
)
def test_other_maps_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        open_class_map(content)
