"""Weighted means by name."""

import pytest

from unimo.metrics.average import Averages, gather_objects


def test_means_are_weighted_by_counts_and_empty_names_left_out() -> None:
    averages = Averages()
    averages.add("loss", 6.0, 3)
    averages.add("loss", 0.0, 1)
    averages.add("rare", 0.0, 0)
    assert averages.compute() == {"loss": pytest.approx(1.5)}


def test_one_rank_gathers_itself() -> None:
    assert gather_objects({"a": 1}) == [{"a": 1}]
