"""Regions: the grid without a detector, locations, and invalid regions."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from unimo.data.record import Record
from unimo.data.regions.base import Regions, check_regions
from unimo.data.regions.open import GridRegions, open_regions
from unimo.errors import ConfigError, RecordError


def regions(**changes):
    values = {
        "features": np.ones((2, 3), np.float32),
        "boxes": np.array([[0, 0, 10, 20], [5, 10, 40, 30]], np.float32),
        "width": 40,
        "height": 30,
    }
    return Regions(**{**values, **changes})


def test_locations_are_shares_of_the_picture():
    expected = [[0, 0, 0.25, 20 / 30, 200 / 1200], [0.125, 1 / 3, 1, 1, 35 * 20 / 1200]]
    np.testing.assert_allclose(regions().locations, expected, rtol=1e-6)


def test_a_grid_cell_is_the_pixels_of_its_quarter():
    picture = Image.new("RGB", (64, 32), (0, 0, 0))
    picture.paste((255, 255, 255), (32, 0, 64, 16))  # the top right quarter
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    grid = GridRegions(cells=2, pixels=2).of(Record("a", "c", images=(buffer.getvalue(),)))
    assert grid.features.shape == (4, 12)
    np.testing.assert_array_equal(grid.boxes[1], [32, 0, 64, 16])
    middle = grid.features.reshape(4, 2, 2, 3)[:, 0, 1, 0]
    assert middle[1] == 1.0 and (middle[[0, 2, 3]] == -1.0).all()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"features": np.zeros((0, 3)), "boxes": np.zeros((0, 4))}, "no regions"),
        ({"features": np.ones((2, 4))}, r"expected \[R, 3\]"),
        ({"features": np.array([[1, 2, np.nan]] * 2)}, "not finite"),
        ({"class_probs": np.array([[np.nan], [1]])}, "not finite"),
        ({"features": np.array([[1, 2, 3e38]] * 2, np.float32)}, "a feature of 3e"),
        ({"features": np.array([[1, 2, -7e4]] * 2)}, r"a feature of 7e\+04; expected at most 65504"),
        ({"class_probs": np.array([[1.1], [1]])}, "class probabilities of 1 to 1.1, expected 0 to 1"),
        ({"class_probs": np.array([[-0.2], [1]])}, "class probabilities of -0.2 to 1, expected 0 to 1"),
        ({"boxes": np.array([[0, 0, 10, 20], [5, 10, 80, 30]])}, "outside"),
        ({"boxes": np.array([[9, 0, 2, 20], [5, 10, 8, 30]])}, "outside"),
        ({"boxes": np.zeros((1, 4))}, "boxes of shape"),
        ({"width": 0}, "0 x 30"),
    ],
)
def test_regions_that_cannot_be_read_are_refused(changes, complaint):
    with pytest.raises(RecordError, match=complaint):
        check_regions(regions(**changes), "a.jpg", 3)


def test_class_probabilities_are_wanted_where_the_detector_has_classes():
    with pytest.raises(RecordError, match=r"no class probabilities, expected \[2, 4\]"):
        check_regions(regions(class_probs=None), "a.jpg", 3, 4)
    with pytest.raises(RecordError, match=r"of shape \(2, 2\), expected \[2, 4\]"):
        check_regions(regions(class_probs=np.ones((2, 2))), "a.jpg", 3, 4)


def test_regions_that_can_be_read_come_back():
    good = regions()
    assert check_regions(good, "a.jpg", 3) is good


@pytest.mark.parametrize("name", ["grid:2", "grid:x:3", "grid:0:4"])
def test_a_wrong_grid_is_a_config_error(name):
    with pytest.raises(ConfigError, match="grid"):
        open_regions(name)


def test_the_numbers_of_a_grid_are_read():
    grid = open_regions("grid:3:4")
    assert (grid.cells, grid.feature_size, grid.num_classes) == (3, 48, 0)
    assert open_regions("grid").feature_size == 768
