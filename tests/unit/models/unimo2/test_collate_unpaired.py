"""Batches of three parts: what goes where, and that pairs are what they are without the others."""

import dataclasses

import numpy as np
import pytest

from unimo.errors import RecordError
from unimo.models.collate import PretrainCollator
from unimo.models.unimo2.collate import UnpairedCollator
from unimo.models.unimo2.config import PretrainingConfig

SAMPLES = slice(0, 8)


@pytest.fixture
def records(corpus_class):
    """Four pairs, two texts alone and two images alone, mixed."""
    pairs = [corpus_class()[index] for index in range(8)]
    drop = {1: {"images": ()}, 4: {"text": None}, 5: {"images": ()}, 6: {"text": None}}
    return [dataclasses.replace(record, **drop.get(index, {})) for index, record in enumerate(pairs)]


def batch_of(collator, records):
    prepared = [collator.prepare(record, np.random.default_rng(i)) for i, record in enumerate(records)]
    return collator.collate(prepared, np.random.default_rng(9))


def given(batch):
    return {name for name, value in vars(batch).items() if value is not None}


def test_parts(processor, records):
    batch = batch_of(UnpairedCollator(processor, PretrainingConfig(mlm_probability=0.5)), records)
    assert given(batch) == {"pairs", "texts", "images", "sample_ids"}
    assert batch.sample_ids == [f"memory-{index}" for index in range(8)]
    assert batch.pairs.sample_ids == ["memory-0", "memory-2", "memory-3", "memory-7"]
    assert given(batch.texts) == {
        "input_ids", "attention_mask", "mlm_input_ids", "mlm_positions", "mlm_labels", "sample_ids"
    }  # fmt: skip
    assert batch.images.pixels.shape == batch.images.pixels_2.shape == (2, 3, 16, 16)
    assert (batch.images.pixels != batch.images.pixels_2).any()
    texts = batch.texts
    assert texts.input_ids.shape[0] == 2
    np.testing.assert_array_equal(texts.input_ids.reshape(-1)[texts.mlm_positions], texts.mlm_labels)


def test_absent_parts_are_absent(processor, records):
    collator = UnpairedCollator(processor)
    assert given(batch_of(collator, records[:1])) == {"pairs", "sample_ids"}
    assert given(batch_of(collator, [records[1], records[5]])) == {"texts", "sample_ids"}
    assert given(batch_of(collator, [records[4]])) == {"images", "sample_ids"}


def test_pairs_are_those_of_the_plain_collator(processor, records, same_batch):
    pairs = [records[index] for index in (0, 2, 3, 7)]
    plain = batch_of(PretrainCollator(processor, True), pairs)
    found = batch_of(UnpairedCollator(processor), pairs).pairs
    same_batch(found, plain)
    groups = found.image_group
    assert groups[1] == groups[2] and len(set(groups.tolist())) == 3  # texts 2 and 3 are of one image


def test_spans(processor, records):
    collator = UnpairedCollator(processor, PretrainingConfig(mlm_probability=0.4, masking="span"))
    draws = [
        [len(collator.prepare(record, np.random.default_rng(seed))["labels"]) for record in records[:4]]
        for seed in range(600)
    ]
    # 40% of 3, 4, 5 and 6 words: never above the next whole word, and exact on average.
    assert np.max(draws, axis=0).tolist() == [2, 2, 2, 3]
    np.testing.assert_allclose(np.mean(draws, axis=0), [1.2, 1.6, 2.0, 2.4], atol=0.08)


def test_record_without_anything(processor, records):
    empty = dataclasses.replace(records[0], images=(), text=None)
    with pytest.raises(RecordError, match="neither image nor text"):
        UnpairedCollator(processor).prepare(empty, np.random.default_rng(0))
