"""Mismatched pairs: of other images only, from the batch or from the data set, the same for a seed."""

import numpy as np
import pytest
from micro import make_run
from micro_unimo import UNIMO

from unimo.data.loading.loader import read_batch
from unimo.data.loading.sampler import SampleKey
from unimo.data.processor import build_processor
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import DataError
from unimo.tasks.retrieval.task import RetrievalTask

CIRCLE = {"model": UNIMO["model"], "task": {"loss": "circle", "negatives": 20}}


@pytest.fixture(scope="module")
def opened():
    """Corpora (24 scenes with 4 captions each) and a maker of batches of given samples."""
    run = make_run("retrieval", **CIRCLE, data={**UNIMO["data"], "scenes": {"train_images": 24}})
    data = RetrievalTask.open_data(run, build_processor(run.data, load_tokenizer("scenes")))
    corpora = data.train_datasets()

    def batch(indices, seed=0):
        keys = [SampleKey("scenes", index, 0) for index in indices]
        return read_batch(corpora, data.collator(True), keys, seed, 5)[0]

    return corpora, batch


def check(batch, pairs):
    image = batch.image_group
    for name in ("negative_images", "negative_texts"):
        rows = getattr(batch, name)
        assert rows.shape == (pairs, 10) and rows.max() < len(image)
        assert (image[rows] != image[:pairs, None]).all()


def test_a_large_batch_has_its_own(opened):
    _, batch = opened
    found = batch(range(0, 64, 4))
    assert len(found.sample_ids) == len(found.input_ids) == len(found.image_ids) == 16
    check(found, 16)
    for name in ("negative_images", "negative_texts"):  # each row once
        assert all(len(set(row)) == 10 for row in getattr(found, name).tolist())
    assert (found.negative_images != found.negative_texts).any()


def test_a_small_batch_is_filled_up(opened):
    corpora, batch = opened
    found = batch([0, 1, 8])  # two images
    assert found.sample_ids == [corpora["scenes"][index].sample_id for index in (0, 1, 8)]
    assert len(found.input_ids) == 3 + 9 == len(found.images["mask"])
    assert len(set(found.image_ids)) == 11
    check(found, 3)
    # The first two samples have every other image once.
    assert sorted(found.negative_images[0].tolist()) == list(range(2, 12))


def test_chance_follows_from_the_seed(opened):
    _, batch = opened
    first, again, other = batch([0, 8]), batch([0, 8]), batch([0, 8], seed=1)
    for name in ("input_ids", "negative_images", "negative_texts"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert first.image_ids == again.image_ids != other.image_ids


def test_data_of_few_images():
    """Draws are then independent, as in the release; a single image is an error."""
    for images in (3, 1):
        run = make_run("retrieval", **CIRCLE, data={**UNIMO["data"], "scenes": {"train_images": images}})
        data = RetrievalTask.open_data(run, build_processor(run.data, load_tokenizer("scenes")))
        keys = [SampleKey("scenes", 0, 0)]
        if images == 1:
            with pytest.raises(DataError, match="scenes: found a single image; mismatched pairs need others"):
                read_batch(data.train_datasets(), data.collator(True), keys, 0, 5)
            continue
        found, _ = read_batch(data.train_datasets(), data.collator(True), keys, 0, 5)
        assert len(set(found.image_ids)) == 3
        check(found, 1)


def test_without_negatives_nothing_is_added():
    run = make_run("retrieval", **UNIMO)
    data = RetrievalTask.open_data(run, build_processor(run.data, load_tokenizer("scenes")))
    found = next(data.train_loader(run))
    assert not hasattr(found, "negative_images") and len(found.input_ids) == 8
