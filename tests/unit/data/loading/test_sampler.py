"""Order: complete epochs, weights, ranks, and going on in the middle."""

import json
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from unimo.data.loading.sampler import MixtureSampler, generator, mixture_shares
from unimo.errors import CheckpointError, ConfigError

SIZES = {"coco": 50, "vg": 130, "sbu": 7}


def sampler(**changes):
    return MixtureSampler(**{"sizes": SIZES, "weights": None, "global_batch": 12, "seed": 3} | changes)


def take(source, steps):
    return [source.next() for _ in range(steps)]


def test_shares():
    assert mixture_shares({"a": 30, "b": 10}, None) == {"a": 0.75, "b": 0.25}
    assert mixture_shares({"a": 30, "b": 10}, {"a": 1, "b": 4}) == {"a": 0.2, "b": 0.8}
    mixed = mixture_shares({"a": 30, "b": 10, "c": 5}, {"a": None, "b": None, "c": 0.5})
    assert mixed == pytest.approx({"a": 0.375, "b": 0.125, "c": 0.5})


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ({}, None, "no samples"),
        ({"a": 0, "b": 3}, None, "no samples in a"),
        ({"a": 1}, {"a": -1}, "0 or more"),
        ({"a": 1}, {"a": float("nan")}, "finite"),
        ({"a": 1, "b": 1}, {"a": 0, "b": 0}, "above 0"),
        ({"a": 1, "b": 1}, {"a": 2.0}, "leave no share for b"),
    ],
)
def test_wrong_weights(sizes, weights, message):
    with pytest.raises(ConfigError, match=message):
        mixture_shares(sizes, weights)


def test_batch_must_divide_among_ranks():
    with pytest.raises(ConfigError, match="12 does not divide among 5 ranks"):
        sampler(world_size=5)


def test_each_epoch_visits_every_sample_once():
    keys = [key for batch in take(sampler(), 200) for key in batch]
    for name, size in SIZES.items():
        by_epoch: dict[int, list[int]] = {}
        for key in keys:
            if key.corpus == name:
                by_epoch.setdefault(key.epoch, []).append(key.index)
        last = max(by_epoch)
        assert last > 5
        for epoch in range(last):
            assert sorted(by_epoch[epoch]) == list(range(size))
        assert len(set(by_epoch[last])) == len(by_epoch[last])
        assert by_epoch[0] != by_epoch[1]


def test_batch_larger_than_a_corpus():
    keys = sampler(sizes={"a": 5}, global_batch=12).next()
    assert [key.epoch for key in keys] == [0] * 5 + [1] * 5 + [2] * 2


def test_weights_are_respected():
    weights = {"coco": 0.1, "vg": 0.3, "sbu": 0.6}
    keys = take(sampler(weights=weights, global_batch=1000), 100)
    counts = Counter(key.corpus for batch in keys for key in batch)
    for name, weight in weights.items():
        assert counts[name] / 100_000 == pytest.approx(weight, abs=0.01 * max(weight, 0.5))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_one_global_order(world_size):
    ranks = [sampler(rank=rank, world_size=world_size) for rank in range(world_size)]
    for batch in take(sampler(), 60):
        assert [key for rank in ranks for key in rank.next()] == batch


@pytest.mark.parametrize("stop", [1, 13, 47])
def test_goes_on_in_the_middle_of_an_epoch(stop):
    whole = take(sampler(), 80)
    first = sampler()
    take(first, stop)
    state = json.loads(json.dumps(first.state_dict()))
    assert any(0 < corpus["position"] < corpus["size"] for corpus in state["corpora"].values())
    second = sampler(rank=1, world_size=2)
    second.load_state_dict(state)
    assert take(second, 80 - stop) == [batch[6:] for batch in whole[stop:]]
    assert second.step == 80


def test_state_of_other_data_is_refused():
    state = sampler().state_dict()
    for changes in ({"sizes": {**SIZES, "vg": 131}}, {"seed": 4}, {"sizes": {"coco": 50}}):
        with pytest.raises(CheckpointError, match="init_from"):
            sampler(**changes).load_state_dict(state)


def test_seeds_and_corpora_differ():
    assert take(sampler(), 3) != take(sampler(seed=4), 3)
    orders = [[k.index for k in sampler(sizes={name: 100}, global_batch=100).next()] for name in "ab"]
    assert orders[0] != orders[1]


def test_generator_words_are_independent():
    drawn = [
        generator(*words).random() for words in [(0, 1, 2), (0, 2, 1), (1, 1, 2), (0, "a", 2), (-1, 1, 2)]
    ]
    assert len(set(drawn)) == 5
    assert generator(0, "a", 2).random() == drawn[3]


def test_a_step_costs_no_pass_over_the_corpus():
    """Orders are made once an epoch: memory of further steps stays flat on a corpus of a million."""
    source = sampler(sizes={"large": 1_000_000}, global_batch=64)
    source.next()
    tracemalloc.start()
    for _ in range(300):
        source.next()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    assert source._orders["large"][1].dtype == np.int32
