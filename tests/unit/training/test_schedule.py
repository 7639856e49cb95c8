from collections.abc import Sequence

import pytest

from unimo.config import merge_into
from unimo.errors import ConfigError
from unimo.settings import OptimConfig
from unimo.training.optimizer import learning_rate, warmup_steps


def factor(
    step: int, max_steps: int, warmup: int, kind: str, milestones: Sequence[Sequence[float]] = ()
) -> float:
    """The share of the peak rate."""
    optim = OptimConfig(lr=1.0, warmup=warmup, schedule=kind, milestones=milestones)
    return learning_rate(step, max_steps, optim)


def test_warmup_as_share_and_as_steps() -> None:
    assert warmup_steps(0.1, 1000) == 100
    assert warmup_steps(250, 1000) == 250
    assert warmup_steps(0, 1000) == 0
    with pytest.raises(ConfigError, match="1200 steps"):
        warmup_steps(1200, 1000)


@pytest.mark.parametrize(
    ("kind", "middle", "last"), [("linear", 0.5, 0.0125), ("cosine", 0.5, 0.000385), ("constant", 1.0, 1.0)]
)
def test_shape(kind: str, middle: float, last: float) -> None:
    assert [factor(step, 100, 20, kind) for step in (0, 9, 19, 20)] == pytest.approx([0.05, 0.5, 1.0, 1.0])
    assert factor(60, 100, 20, kind) == pytest.approx(middle)
    assert factor(99, 100, 20, kind) == pytest.approx(last, abs=1e-6)
    assert factor(100, 100, 20, kind) == pytest.approx(1.0 if kind == "constant" else 0.0)


def test_linear_decay_of_the_release_of_unimo_is_not_rescaled() -> None:
    """lr t / W below W, then lr (1 - t / T): a drop from the peak to 1 - W / T."""
    found = [factor(step, 100, 20, "linear_unscaled") for step in (0, 10, 19, 20, 60, 99, 100)]
    assert found == pytest.approx([0.0, 0.5, 0.95, 0.8, 0.4, 0.01, 0.0])
    assert factor(0, 100, 0, "linear_unscaled") == 1.0
    optim = OptimConfig(lr=1e-5, warmup=0.06, schedule="linear_unscaled")
    assert learning_rate(60, 1000, optim) == pytest.approx(9.4e-6)


def test_rate_is_the_peak_times_the_factor() -> None:
    optim = OptimConfig(lr=2e-4, warmup=0.1)
    assert learning_rate(9, 100, optim) == pytest.approx(2e-4)
    assert learning_rate(55, 100, optim) == pytest.approx(1e-4)


def test_piecewise_steps_down_at_shares_of_the_run() -> None:
    pieces = [[0.6, 0.1], [0.8, 0.01]]
    found = [factor(step, 40, 0, "piecewise", pieces) for step in (0, 23, 24, 31, 32, 39, 40)]
    assert found == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.01]
    # Warm-up comes first, the shares are those of the whole run.
    assert [factor(step, 40, 4, "piecewise", pieces) for step in (0, 3, 23, 24)] == [0.25, 1.0, 1.0, 0.1]
    optim = OptimConfig(lr=5e-6, warmup=0.0, schedule="piecewise", milestones=pieces)
    assert learning_rate(30, 40, optim) == pytest.approx(5e-7)


@pytest.mark.parametrize("milestones", [[], [[0.6]], [[0.8, 0.1], [0.6, 0.01]], [[0.0, 0.1]], [[1.0, 0.1]]])
def test_piecewise_wants_rising_shares_with_factors(milestones: list[list[float]]) -> None:
    with pytest.raises(ConfigError, match="optim.milestones .* e.g. "):
        OptimConfig(schedule="piecewise", milestones=milestones)
    assert OptimConfig(schedule="linear", milestones=milestones).milestones == milestones


def test_factors_of_milestones_are_not_negative() -> None:
    with pytest.raises(ConfigError, match="milestones.* -1: expected 0 or more"):
        merge_into(OptimConfig(), {"schedule": "piecewise", "milestones": [[0.5, -1.0]]})
