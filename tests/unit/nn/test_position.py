"""Position numbers of RoBERTa, and tables that follow the image size."""

import numpy as np
import paddle
import pytest

from unimo.errors import ConfigError
from unimo.nn.config import ClipVisionConfig
from unimo.nn.position import resize_positions, token_positions
from unimo.nn.towers import ClipVisionTower


def test_positions_start_after_padding_and_skip_it():
    mask = paddle.to_tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    assert token_positions(mask).tolist() == [[2, 3, 4, 1], [2, 3, 4, 5]]
    assert token_positions(paddle.to_tensor([[0, 1, 1]])).tolist() == [[1, 2, 3]]


def test_equal_grid_is_the_identity():
    table = np.random.default_rng(0).standard_normal((197, 4)).astype("float32")
    assert resize_positions(table, 14) is table


@pytest.mark.parametrize("grid", [18, 24, 36])
def test_class_row_is_untouched_and_rows_stay_rows(grid):
    """A table that only depends on the grid's row stays so, and its mean stays where it was."""
    rows = np.repeat(np.arange(14.0), 14).reshape(-1, 1)
    table = np.concatenate([[[77.0]], rows]).astype("float32")
    resized = resize_positions(table, grid)
    assert isinstance(resized, np.ndarray) and resized.shape == (1 + grid * grid, 1)
    assert resized[0, 0] == 77.0
    inner = resized[1:].reshape(grid, grid)
    np.testing.assert_allclose(inner, inner[:, :1].repeat(grid, axis=1), atol=1e-4)
    assert (np.diff(inner[:, 0])[2:-2] > 0).all()
    assert abs(inner.mean() - 6.5) < 1e-3


def _cubic(x: float) -> float:
    """Keys' kernel with a = -0.75, as PyTorch's and Paddle's bicubic."""
    x = abs(x)
    if x <= 1:
        return 1.25 * x**3 - 2.25 * x**2 + 1
    return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def test_bicubic_in_numpy():
    old, new = 5, 8
    table = np.random.default_rng(1).standard_normal((1 + old * old, 3)).astype("float32")
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[i, min(max(j, 0), old - 1)] += _cubic(centre - j)
    expected = np.einsum("ia,jb,abd->ijd", matrix, matrix, table[1:].reshape(old, old, 3)).reshape(-1, 3)
    np.testing.assert_allclose(resize_positions(table, new)[1:], expected, atol=1e-5)


def test_tables_that_are_no_grid_are_refused():
    with pytest.raises(ConfigError, match="196 rows"):
        resize_positions(np.zeros((196, 2), dtype="float32"), 10)


def test_the_tower_resizes_its_own_table_and_nothing_else():
    sizes = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 16, "patch_size": 4}
    small, large = (ClipVisionTower(ClipVisionConfig(**sizes, image_size=size)) for size in (16, 24))
    table = small.position_embedding.numpy()
    assert np.array_equal(large.fit_table("position_embedding", table), resize_positions(table, 6))
    for name, other in (
        ("position_embedding", np.zeros((12, 8), "float32")),  # no square grid
        ("position_embedding", np.zeros((1, 8), "float32")),  # a class row alone
        ("class_embedding", table),
    ):
        assert large.fit_table(name, other) is other
