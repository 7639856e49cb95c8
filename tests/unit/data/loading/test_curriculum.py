"""Three kinds of corpora in one mixture: shares of every slice, the curriculum, and going on inside it."""

import json
import logging
from collections import Counter

import numpy as np
import pytest

from unimo.data.loading.loader import TrainLoader
from unimo.data.loading.sampler import Curriculum, MixtureSampler
from unimo.errors import ConfigError, DataError

SIZES = {"coco": 40, "sbu": 24, "books": 300, "photos": 90}
KINDS = {"coco": "pairs", "sbu": "pairs", "books": "texts", "photos": "images"}
WEIGHTS = {"coco": None, "sbu": None, "books": 0.3, "photos": 0.2}


def sampler(epochs=0.0, **changes):
    values = {"sizes": SIZES, "weights": WEIGHTS, "global_batch": 32, "seed": 3}
    return MixtureSampler(**values | changes, curriculum=Curriculum(KINDS, epochs))


def kinds(keys):
    return Counter(KINDS[key.corpus] for key in keys)


def test_every_slice_has_its_share_of_each_kind():
    ranks = [sampler(rank=rank, world_size=4) for rank in range(4)]
    total = Counter()
    for _ in range(50):
        slices = [kinds(rank.next()) for rank in ranks]
        for counts in slices:
            assert abs(counts["pairs"] - 4) <= 1 and counts["texts"] >= 1 and counts["images"] >= 1
        total += sum(slices, Counter())
    shares = {kind: count / (50 * 32) for kind, count in total.items()}
    assert shares == pytest.approx({"pairs": 0.5, "texts": 0.3, "images": 0.2}, abs=0.01)


def test_ranks_join_to_the_batch_of_one():
    whole, ranks = sampler(1.5), [sampler(1.5, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(30):
        assert whole.next() == [key for rank in ranks for key in rank.next()]


def test_corpora_of_a_kind_keep_their_shares():
    keys = [key for _ in range(1) for source in [sampler()] for _ in range(300) for key in source.next()]
    counts = Counter(key.corpus for key in keys)
    assert counts["coco"] / counts["sbu"] == pytest.approx(40 / 24, rel=0.08)


def test_others_come_in_after_the_epochs_of_the_pairs():
    source = sampler(epochs=3.0)  # 3 x 64 pairs are 6 batches of 32
    assert source.first_samples == 192
    for step in range(9):
        assert source.first_kind_only == (step < 6)
        assert set(kinds(source.next())) == ({"pairs"} if step < 6 else {"pairs", "texts", "images"})


def test_pseudo_pairs_come_in_with_the_others_and_do_not_count():
    """Only `coco` begins and counts: 3 x 40 samples are 4 batches of 32, of 6 with `sbu`."""
    curriculum = Curriculum(KINDS, 3.0, frozenset({"sbu"}))
    source = MixtureSampler(SIZES, WEIGHTS, 32, 3, curriculum=curriculum)
    assert curriculum.beginning == ["coco"] and source.first_samples == 120
    for step in range(8):
        assert source.awaits_others == (step <= 4)
        drawn = {key.corpus for key in source.next()}
        assert drawn == ({"coco"} if step < 4 else set(SIZES))


@pytest.mark.parametrize("stop", [1, 5, 6, 7])
def test_going_on_inside_the_curriculum(stop):
    source, again = sampler(3.0), sampler(3.0)
    for _ in range(stop):
        source.next()
    again.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert [again.next() for _ in range(8)] == [source.next() for _ in range(8)]


def test_without_kinds_nothing_changes():
    """The order of a plain mixture, as it was before there were kinds."""
    source = MixtureSampler({"a": 5, "b": 9}, None, 6, 1)
    drawn = [(key.corpus, key.index) for key in source.next()]
    assert drawn == [("a", 4), ("b", 8), ("a", 1), ("a", 0), ("a", 2), ("a", 3)]
    assert not source.first_kind_only and set(source.state_dict()) == {"seed", "step", "corpora"}


def test_kind_too_rare_for_the_ranks():
    sampler().check_kinds(3)
    with pytest.raises(ConfigError, match=r"images are 20.00% of the samples: too few for all 4 parts .*=40"):
        sampler().check_kinds(4)


class Names:
    """Collator of nothing but names."""

    needs_false_image = False

    def prepare(self, record, rng):
        return {"id": record.sample_id}

    def collate(self, prepared, rng):
        return {"sample_ids": [sample["id"] for sample in prepared]}


@pytest.fixture
def make_loader(corpus_class):
    def make(epochs=3.0, broken=(), **changes):
        corpora = {name: corpus_class(name, size) for name, size in SIZES.items()}
        corpora["photos"] = corpus_class("photos", SIZES["photos"], broken=broken)
        return TrainLoader(corpora, sampler(epochs, **changes), Names(), max_bad_rate=1.0)

    return make


def test_the_switch_is_logged_once(make_loader, caplog):
    caplog.set_level(logging.INFO)
    loader = make_loader()
    for _ in range(10):
        next(loader)
    loader.close()
    said = [record.message for record in caplog.records if "curriculum" in record.message]
    assert said == ["curriculum: step 7 is the first with all corpora"]


@pytest.mark.parametrize(("stop", "says"), [(4, 1), (6, 1), (7, 0)])
def test_a_resumed_loader_goes_on_and_says_it_only_if_it_is_to_come(make_loader, caplog, stop, says):
    loader, again = make_loader(), make_loader()
    for _ in range(stop):
        next(loader)
    again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    expected = [next(loader)["sample_ids"] for _ in range(5)]
    loader.close()
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert [next(again)["sample_ids"] for _ in range(5)] == expected
    again.close()
    assert sum("curriculum" in record.message for record in caplog.records) == says


def test_a_rank_that_lost_a_kind_stops_with_a_reason(make_loader):
    loader = make_loader(0.0, broken=range(90), world_size=2)
    with pytest.raises(DataError, match="images of a batch were broken"):
        next(loader)
    alone = make_loader(0.0, broken=range(90))
    assert not any(name.startswith("photos") for name in next(alone)["sample_ids"])
    alone.close()


def test_counts_are_whole_numbers_that_sum_to_the_batch():
    source = sampler(global_batch=7)
    for _ in range(100):
        assert len(source.next()) == 7
    taken = source.state_dict()["corpora"]
    used = {name: state["epoch"] * state["size"] + state["position"] for name, state in taken.items()}
    assert sum(used.values()) == 700
    assert used["books"] / 700 == pytest.approx(0.3, abs=0.02)
    assert np.isclose(sum(source.shares.values()), 1.0)
