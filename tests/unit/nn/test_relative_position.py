"""Relative positions: rows of the table by hand, resizing by another route, who gets which gradient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline

from unimo.errors import ConfigError
from unimo.nn import relative_position
from unimo.nn.relative_position import RelativePositions, image_index, pair_index, text_index


@pytest.mark.parametrize(("image_size", "rows"), [(224, 1126), (384, 2606), (480, 3878)])
def test_number_of_rows(image_size: int, rows: int) -> None:
    window = image_size // 16
    assert relative_position.table_rows(window) == rows
    assert pair_index(40, window).max() == rows - 1


def test_rows_of_single_pairs() -> None:
    index = pair_index(40, 14)  # I = 732
    assert index.shape == (237, 237)
    cls = 40  # row of [I_CLS]
    assert [index[cls, cls], index[cls, cls + 5], index[cls + 5, cls]] == [731, 729, 730]
    assert [index[1, cls + 1], index[0, cls], index[cls + 1, 2], index[cls, 0]] == [732, 732, 733, 733]
    assert [index[0, 3], index[3, 0], index[0, 0]] == [1123, 1124, 1125]
    # token 1 is read by itself at distance 0, by the next one at -1, and the next one by it at 1
    assert [index[1, 1], index[2, 1], index[1, 2]] == [734 + 194, 734 + 193, 734 + 195]


def test_patches_are_numbered_by_rows_and_columns() -> None:
    window, side = 3, 5
    index = image_index(window)
    for query in range(9):
        for key in range(9):
            down, right = query // 3 - key // 3 + 2, query % 3 - key % 3 + 2
            assert index[1 + query, 1 + key] == down * side + right


def test_inputs_of_one_modality_have_parts_of_the_same_index() -> None:
    whole = pair_index(7, 4)
    np.testing.assert_array_equal(text_index(7, 4), whole[:7, :7])
    np.testing.assert_array_equal(image_index(4), whole[7:, 7:])
    np.testing.assert_array_equal(text_index(5, 4), whole[:5, :5])


def test_longest_text() -> None:
    index = text_index(196, 14)
    assert sorted({*index.ravel()}) == list(range(734, 1126))
    with pytest.raises(ConfigError, match="197 tokens.*196"):
        text_index(197, 14)


def test_layers_have_columns_of_their_own() -> None:
    layer = RelativePositions(2, num_layers=3, num_heads=2)
    table = np.random.default_rng(0).normal(size=layer.position_bias.shape).astype("float32")
    layer.position_bias.set_value(table)
    biases = layer(5, True)
    assert len(biases) == 3 and biases[0].shape == [1, 2, 10, 10]
    index = pair_index(5, 2)
    for number, bias in enumerate(biases):
        for head in range(2):
            np.testing.assert_array_equal(bias[0, head].numpy(), table[index, 2 * number + head])


@pytest.mark.parametrize("window", [24, 30, 14])
def test_resized_patch_rows_are_a_spline_over_geometric_distances(window: int) -> None:
    old = np.random.default_rng(1).normal(size=(1126, 2)).astype("float32")
    new = relative_position.resize_table(old, window)
    assert new.shape == (relative_position.table_rows(window), 2)
    np.testing.assert_array_equal(new[-397:], old[-397:])
    if window == 14:
        np.testing.assert_array_equal(new, old)
        return
    ratio = {24: 1.090307, 30: 1.125056}[window]
    reach = [sum(ratio**k for k in range(n)) for n in range(1, 14)]
    assert abs(reach[-1] - (window - 1)) < 1e-3
    known = relative_position._geometric(13, window - 1)
    np.testing.assert_allclose(known, [*[-x for x in reach[::-1]], 0, *reach], atol=1e-3)
    # Splines of FITPACK are not read beyond their last point, and the last distance falls a hair short.
    wanted = np.clip(np.arange(-(window - 1), window), known[0], known[-1])
    for column in range(2):
        grid = old[:-397, column].reshape(27, 27).astype(np.float64)
        by_rows = make_interp_spline(known, grid, k=3, axis=0)(wanted)  # not-a-knot, one axis after the other
        both = make_interp_spline(known, by_rows, k=3, axis=1)(wanted)
        np.testing.assert_allclose(new[:-397, column], both.ravel(), atol=1e-6)


def test_a_stored_table_of_another_size_is_fitted() -> None:
    layer = RelativePositions(4, num_layers=1, num_heads=2)
    stored = np.zeros((relative_position.table_rows(2), 2), np.float32)
    assert list(layer.fit_table("position_bias", stored).shape) == layer.position_bias.shape
    odd = np.zeros((relative_position.table_rows(2) + 1, 2), np.float32)
    assert layer.fit_table("position_bias", odd) is odd


@pytest.mark.parametrize(("length", "has_image"), [(0, True), (6, False), (6, True)])
def test_only_rows_in_use_learn(length: int, has_image: bool) -> None:
    layer = RelativePositions(3, num_layers=2, num_heads=2)
    sum(bias.sum() for bias in layer(length, has_image)).backward()
    index = image_index(3) if not length else (pair_index if has_image else text_index)(length, 3)
    counts = np.bincount(index.ravel(), minlength=layer.position_bias.shape[0])
    np.testing.assert_array_equal(layer.position_bias.grad.numpy(), np.repeat(counts[:, None], 4, axis=1))
