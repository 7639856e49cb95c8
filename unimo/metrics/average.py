"""Weighted means by name, combined over ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import paddle.distributed as dist

T = TypeVar("T")


def gather_objects(value: Any) -> list[Any]:
    """Return the picklable `value` of every rank, in rank order; `[value]` with one rank. Collective."""
    if dist.get_world_size() == 1:
        return [value]
    gathered: list[Any] = []
    dist.all_gather_object(gathered, value)
    return gathered


def compute_on_first(value: Any, compute: Callable[[list[Any]], T]) -> T:
    """Apply `compute` to the values of all ranks, on rank 0 alone; every rank gets the result. Collective."""
    values = gather_objects(value)
    return gather_objects(compute(values) if dist.get_rank() == 0 else None)[0]


class Averages:
    """Running sums and counts by name; ranks may have different names."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[float, float]] = {}

    def add(self, name: str, value_sum: float, count: float = 1.0) -> None:
        """Add `count` values, given by their sum."""
        total, seen = self._totals.get(name, (0.0, 0.0))
        self._totals[name] = (total + float(value_sum), seen + float(count))

    def compute(self) -> dict[str, float]:
        """Return the mean of every name over all ranks; names without values are left out. Collective."""
        joined = Averages()
        for totals in gather_objects(self._totals):
            for name, (total, count) in totals.items():
                joined.add(name, total, count)
        return {name: total / count for name, (total, count) in joined._totals.items() if count}
