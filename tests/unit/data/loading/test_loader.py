"""Batches do not depend on threads, ranks join to one batch, runs go on exactly, bad records are counted."""

import json
import logging
import threading
import time
import traceback

import numpy as np
import pytest

from unimo.data.loading.loader import EvalLoader, TrainLoader, draw_false_image, ordered_map
from unimo.data.loading.sampler import MixtureSampler
from unimo.data.processor import Processor, ProcessorConfig
from unimo.errors import ConfigError, DataError, RecordError
from unimo.models.collate import PretrainCollator
from unimo.models.paper import PretrainConfig
from unimo.tasks.vqa import VqaCollator


@pytest.fixture
def make_loader(processor, corpus_class):
    """A loader over a mixture of two corpora, with an augmenting transform."""
    augmenting = Processor(processor.tokenizer, ProcessorConfig(16, 12, train_transform="blip_randaug"))

    def make(rank=0, world_size=1, batch=8, corpora=None, collator=None, **options):
        corpora = corpora or {"a": corpus_class("a", 40), "b": corpus_class("b", 23)}
        sizes = {name: len(corpus) for name, corpus in corpora.items()}
        sampler = MixtureSampler(sizes, {"b": 0.5}, batch, 5, rank, world_size)
        options = {"seed": 5, **options}
        return TrainLoader(corpora, sampler, collator or PretrainCollator(augmenting, True), **options)

    return make


def take(loader, count):
    batches = [next(loader) for _ in range(count)]
    loader.close()
    return batches


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("data")]


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, 4), (5, 2)])
def test_batches_do_not_depend_on_threads(make_loader, same_batch, workers, prefetch):
    expected = take(make_loader(num_workers=0), 12)
    found = take(make_loader(num_workers=workers, prefetch=prefetch), 12)
    for first, second in zip(expected, found, strict=True):
        same_batch(first, second)


def test_ranks_and_accumulation_join_to_one_batch(make_loader, corpus_class, processor):
    def images_and_texts(batches):
        rows = (zip(b.images, b.input_ids, b.sample_ids, strict=True) for b in batches)
        return [(image.tobytes(), ids[ids != 1].tolist(), name) for part in rows for image, ids, name in part]

    whole = take(make_loader(), 6)
    parts = [take(make_loader(rank, 2, rounds=2), 12) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        joined = [part for rank in parts for part in rank[2 * step : 2 * step + 2]]
        assert images_and_texts(joined) == images_and_texts([batch])


def test_each_sample_of_each_epoch_and_each_batch_has_chance_of_its_own(make_loader):
    """That of a sample is the same on every rank and in every round; that of a batch is not."""
    samples, batches = {}, []

    class Watching(PretrainCollator):
        def prepare(self, record, rng):
            drawn = rng.random()
            samples.setdefault((loader_seed, record.sample_id), []).append(drawn)
            return super().prepare(record, rng)

        def collate(self, prepared, rng):
            batches.append((loader_seed, rng.random()))
            return super().collate(prepared, rng)

    def run(rank, world_size, rounds):
        options = {"collator": watching, "num_workers": 0, "seed": loader_seed}
        take(make_loader(rank, world_size, rounds=rounds, **options), 20 * rounds)

    watching = Watching(make_loader().collator.processor, True)
    drawn = {}
    for loader_seed in (5, 6):
        for ranks, rounds in ((1, 1), (2, 2)):
            samples.clear()
            for rank in range(ranks):
                run(rank, ranks, rounds)
            drawn[loader_seed, ranks] = {key: set(found) for key, found in samples.items()}
    for seed in (5, 6):
        assert drawn[seed, 1] == drawn[seed, 2]
    found = [value for seed in (5, 6) for values in drawn[seed, 1].values() for value in values]
    assert len(found) == len(set(found)) == 2 * 20 * 8
    # Of both seeds 20 steps on two ranks in two rounds; one rank has the chance of the first round of those.
    assert len(set(batches)) == 2 * 20 * 4 and len(batches) == len(set(batches)) + 2 * 20


def test_batch_must_divide_by_accumulation(make_loader):
    with pytest.raises(ConfigError, match="8 does not divide by 2 ranks x 3"):
        make_loader(0, 2, rounds=3)


@pytest.mark.parametrize("stop", [0, 1, 7])
def test_goes_on_where_batches_were_handed_out(make_loader, same_batch, stop):
    """Prefetched batches do not count; counters go on, too."""
    whole = make_loader()
    expected = take(whole, 14)
    first = make_loader(num_workers=2, prefetch=4)
    for _ in range(stop):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    first.close()
    second = make_loader(num_workers=1)
    second.load_state_dict(state)
    for batch, again in zip(expected[stop:], take(second, 14 - stop), strict=True):
        same_batch(batch, again)
    assert second.state_dict() == whole.state_dict()
    assert sum(second.counter.state_dict()["read"].values()) == 14 * 8


def test_state_inside_a_step_is_that_of_its_begin(make_loader):
    loader = make_loader(rounds=2)
    take_two = [next(loader), next(loader)]
    state = loader.state_dict()
    next(loader)
    assert len(take_two) == 2 and loader.state_dict() == state and state["sampler"]["step"] == 1
    next(loader)
    assert loader.state_dict()["sampler"]["step"] == 2
    loader.close()


def test_close_and_go_on(make_loader, same_batch):
    expected = take(make_loader(), 6)
    loader = make_loader()
    for batch, again in zip(expected, take(loader, 3) + take(loader, 3), strict=True):
        same_batch(batch, again)


def test_each_use_of_a_sample_is_drawn_anew(make_loader, corpus_class):
    loader = make_loader(corpora={"b": corpus_class("b", 8)})
    first, second = take(loader, 2)
    row, other = first.sample_ids.index("b-0"), second.sample_ids.index("b-0")
    assert (first.images[row] != second.images[other]).any()


def test_broken_records_are_counted_logged_once_and_left_out(make_loader, corpus_class, caplog):
    corpora = {"a": corpus_class("a", 40), "b": corpus_class("b", 40, broken=[3, 8], truncated=[5])}
    loader = make_loader(corpora=corpora, max_bad_rate=0.2)
    with caplog.at_level(logging.WARNING):
        batches = take(loader, 20)
    names = [name for batch in batches for name in batch.sample_ids]
    assert not {"b-3", "b-8", "b-5"} & set(names)
    bad = loader.counter.state_dict()["bad"]["b"]
    assert set(loader.counter.state_dict()["bad"]) == {"b"} and bad >= 5
    assert sum(loader.counter.state_dict()["read"].values()) == 160 == len(names) + bad
    assert {len(batch.sample_ids) for batch in batches} > {8}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1 and "b[" in messages[0] and "skipped" in messages[0]


def test_too_many_broken_records_end_the_run(make_loader, corpus_class):
    corpora = {"b": corpus_class("b", 50, truncated=range(0, 50, 10))}
    loader = make_loader(corpora=corpora, max_bad_rate=0.05)
    with pytest.raises(DataError, match=r"max_bad_rate=0.05 .*b\[\d+\]: .*image") as caught:
        take(loader, 100)
    assert not isinstance(caught.value, RecordError)
    assert 100 <= loader.counter.state_dict()["read"]["b"] <= 120
    assert not data_threads()


def test_one_wholly_broken_corpus_is_found_in_a_large_mixture(make_loader, corpus_class):
    corpora = {"a": corpus_class("a", 4000), "b": corpus_class("b", 50, broken=range(0, 50, 4))}
    loader = make_loader(corpora=corpora, max_bad_rate=0.15, batch=32)
    with pytest.raises(DataError, match="records of b were broken"):
        take(loader, 40)


def test_batch_without_a_good_record(make_loader, corpus_class):
    loader = make_loader(corpora={"b": corpus_class("b", 30, broken=range(30))})
    with pytest.raises(DataError, match=r"all 8 records of a batch were broken; the first: b\[\d+\]: \w"):
        next(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_keep_their_traceback_and_leave_no_threads(make_loader, corpus_class, workers):
    class Failing(corpus_class):
        def __getitem__(self, index):
            if index == 7:
                raise ZeroDivisionError("a bug, not a bad record")
            return super().__getitem__(index)

    loader = make_loader(corpora={"b": Failing("b", 10)}, num_workers=workers)
    with pytest.raises(ZeroDivisionError) as caught:
        take(loader, 10)
    assert "a bug, not a bad record" in traceback.format_tb(caught.tb)[-1]
    assert not data_threads()


def test_threads_end_with_the_loader(make_loader):
    loader = make_loader(num_workers=3)
    next(loader)
    assert data_threads()
    loader.close()
    assert not data_threads()
    loader = make_loader(num_workers=3)
    next(loader)
    del loader
    assert not data_threads()


def test_reading_ahead_is_bounded():
    begun = []
    results = ordered_map(lambda job: begun.append(job) or job, iter(range(10**9)), num_workers=2, ahead=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    time.sleep(0.05)
    assert len(begun) <= 5 + 3
    results.close()
    assert not data_threads()


def test_false_images_of_the_dataset(make_loader, processor, same_batch):
    collator = PretrainCollator(processor, True, PretrainConfig(false_images="dataset"))
    expected = take(make_loader(collator=collator, num_workers=0), 3)
    for first, second in zip(expected, take(make_loader(collator=collator), 3), strict=True):
        same_batch(first, second)
        assert first.false_pixels.shape[0] == 4
        false = first.itm_image_index[first.itm_labels == 0]
        pixels = np.concatenate([first.images, first.false_pixels])
        rows = np.flatnonzero(first.itm_labels == 0)
        assert (pixels[false] != first.images[rows]).any(axis=(1, 2, 3)).all()


def test_false_images_are_of_other_groups(corpus_class, make_image):
    """However often a picture is stored: here each sample has a file of its own, two show one image."""

    class Copies(corpus_class):
        def image_source(self, index):
            return make_image((index, 90, 200))

    corpus = Copies("b", 6)
    for seed in range(20):
        source = draw_false_image(corpus[2], corpus, np.random.default_rng(seed))
        assert source in {corpus.image_source(index) for index in (0, 1, 4, 5)}


def test_false_image_of_a_corpus_with_one(corpus_class):
    corpus = corpus_class("b", 2)
    with pytest.raises(RecordError, match="no second image in b"):
        draw_false_image(corpus[0], corpus, np.random.default_rng(0))


class TestEvalLoader:
    def test_order_length_and_last_batch(self, processor, corpus_class):
        loader = EvalLoader(corpus_class("b", 23), VqaCollator(processor, ["red"], False), 5)
        batches = list(loader)
        assert len(loader) == len(batches) == 5
        assert [row for b in batches for row in b.question_ids] == list(range(23))
        assert len(batches[-1].sample_ids) == 3

    @pytest.mark.parametrize("world_size", [2, 3])
    def test_ranks_cover_all_once(self, processor, corpus_class, world_size):
        collator, ids = VqaCollator(processor, ["red"], False), []
        for rank in range(world_size):
            loader = EvalLoader(corpus_class("b", 23), collator, 4, rank, world_size)
            own = [row for batch in loader for row in batch.question_ids]
            assert own == list(range(rank, 23, world_size))
            assert len(loader) == -(-len(own) // 4)
            ids += own
        assert sorted(ids) == list(range(23))

    def test_passes_are_equal(self, processor, corpus_class, same_batch):
        loader = EvalLoader(corpus_class("b", 23), PretrainCollator(processor, False), 6)
        for first, second in zip(list(loader), list(loader), strict=True):
            same_batch(first, second)

    def test_broken_records(self, processor, corpus_class):
        collator = VqaCollator(processor, ["red"], False)
        few = EvalLoader(corpus_class("b", 20, broken=[4, 5, 6, 7]), collator, 4, max_bad_rate=0.2)
        assert [len(batch.sample_ids) for batch in few] == [4, 4, 4, 4]
        assert few.counter.state_dict() == {"read": {"b": 20}, "bad": {"b": 4}}
        strict = EvalLoader(corpus_class("b", 20, broken=[4, 5, 6, 7]), collator, 4, max_bad_rate=0.1)
        assert len(list(strict)) == 4  # as in training, the share is judged from 100 records on
        for broken in (range(0, 120, 8), range(20), range(100, 120)):
            many = EvalLoader(corpus_class("b", 120, broken=broken), collator, 4, max_bad_rate=0.1)
            with pytest.raises(DataError, match=r"\d\d of 1\d\d records of b were broken"):
                list(many)

    def test_stopping_early_leaves_no_threads(self, processor, corpus_class):
        batches = iter(EvalLoader(corpus_class("b", 200), PretrainCollator(processor, False), 4))
        next(batches)
        batches.close()
        assert not data_threads()
