"""Budgets accept whole pieces and spend the right amount on average."""

import numpy as np
import pytest

from unimo.data.masking.maskers import Budget


def spend(amount, sizes, rng):
    budget = Budget(amount, rng)
    return sum(size for size in sizes if budget.pays(size))


@pytest.mark.parametrize(("amount", "sizes"), [(0.3, [1, 1]), (2.5, [2, 7, 1]), (3.75, [1] * 9), (4, [3, 3])])
def test_the_mean_is_the_amount(amount, sizes):
    rng = np.random.default_rng(0)
    spent = [spend(amount, sizes, rng) for _ in range(20000)]
    assert np.mean(spent) == pytest.approx(amount, abs=4 * np.std(spent) / 20000**0.5 + 1e-9)


def test_what_fits_is_paid_without_chance_and_nothing_after_the_end():
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    assert spend(5, [2, 3, 1], rng) == 5
    assert spend(0, [1], rng) == 0
    assert rng.bit_generator.state == state


def test_a_refused_piece_ends_the_budget():
    refused = 0
    for seed in range(50):
        budget = Budget(1.0, np.random.default_rng(seed))
        refused += not budget.pays(10)
        assert budget.left == 0 and not budget.pays(1)
    assert refused > 30
