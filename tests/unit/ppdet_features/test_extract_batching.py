"""Grouping by shape: nothing is lost, few pictures wait, batches depend on the order alone."""

from __future__ import annotations

import numpy as np
import pytest

from ppdet_features.extract import Prepared, group_by_shape


def pictures(widths):
    return [Prepared(i, str(i), (w, 4), np.zeros((3, 4, w), np.float32)) for i, w in enumerate(widths)]


def numbers(batches):
    return [[picture.number for picture in batch] for batch in batches]


def test_equal_shapes_meet():
    assert numbers(group_by_shape(pictures([5, 6, 5, 6, 5, 7]), 2, 10)) == [[0, 2], [1, 3], [4], [5]]


def test_the_largest_group_leaves_when_too_many_wait():
    assert numbers(group_by_shape(pictures([5, 6, 6, 7, 5, 6]), 4, 4)) == [[1, 2], [0, 4], [3], [5]]


@pytest.mark.parametrize(("size", "look_ahead"), [(1, 1), (3, 5), (8, 4), (2, 30)])
def test_every_picture_comes_once_and_few_wait(size, look_ahead):
    widths = np.random.default_rng(0).integers(4, 9, 100)
    taken = []

    def counted():
        for picture in pictures(widths):
            taken.append(picture.number)
            yield picture

    given = []
    for batch in group_by_shape(counted(), size, look_ahead):
        assert len({picture.pixels.shape for picture in batch}) == 1
        assert len(batch) <= size
        given += [picture.number for picture in batch]
        assert len(taken) - len(given) < look_ahead
    assert sorted(given) == list(range(100))
