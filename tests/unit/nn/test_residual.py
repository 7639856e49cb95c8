"""Drop-path: whole samples, at the rate of their layer."""

from __future__ import annotations

import numpy as np
import paddle

from unimo.nn.residual import drop_path, drop_path_rates


def test_rates_rise_linearly() -> None:
    np.testing.assert_allclose(drop_path_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0]


def test_whole_samples_are_dropped_and_the_mean_is_kept() -> None:
    paddle.seed(0)
    update = paddle.rand([4000, 2, 3]) + 1
    dropped = drop_path(update, 0.25, True).numpy()
    share = dropped / update.numpy()
    assert np.allclose(share, share[:, :1, :1], atol=1e-6)
    kinds = share[:, 0, 0]
    assert set(np.round(kinds, 4)) == {0.0, np.float32(1.3333)}
    assert abs((kinds == 0).mean() - 0.25) < 0.03


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero() -> None:
    update = paddle.rand([3, 2, 3])
    assert drop_path(update, 0.5, False) is update
    assert drop_path(update, 0.0, True) is update
