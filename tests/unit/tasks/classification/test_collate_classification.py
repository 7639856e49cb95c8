"""Batches of texts alone and of images alone."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from unimo.data.record import Record
from unimo.errors import RecordError
from unimo.tasks.classification.batches import NO_LABEL, ImageCollator, TextCollator, join_pair

RNG = np.random.default_rng(0)


def collate(collator, *records: Record):
    return collator.collate([collator.prepare(record, RNG) for record in records], RNG)


def test_texts_are_padded_and_labelled(processor) -> None:
    first = Record("1", "c", text="a red circle", label=1, question_type="matched")
    second = Record("2", "c", text="the star", label=0)
    batch = collate(TextCollator(processor, 2, True, 1), first, second)
    assert batch.input_ids.shape == (2, 5) and batch.attention_mask.sum(axis=1).tolist() == [5, 4]
    assert batch.labels.tolist() == [1, 0] and batch.labels.dtype == np.int64
    assert batch.parts == ["matched", ""] and batch.sample_ids == ["1", "2"]
    assert not hasattr(batch, "images") and batch.scores is None


def test_scores_of_regression(processor) -> None:
    collator = TextCollator(processor, 0, False, 1)
    batch = collate(collator, Record("1", "c", text="a", score=3.5), Record("2", "c", text="a"))
    assert batch.scores.dtype == np.float32 and batch.scores[0] == 3.5 and np.isnan(batch.scores[1])


def test_samples_without_label_are_for_prediction_only(processor) -> None:
    record = Record("1", "c", text="a")
    assert collate(TextCollator(processor, 2, False, 1), record).labels.tolist() == [NO_LABEL]
    with pytest.raises(RecordError, match="sample 1 has no label"):
        TextCollator(processor, 2, True, 1).prepare(record, RNG)
    with pytest.raises(RecordError, match="has the label 2; expected 0 to 1"):
        TextCollator(processor, 2, True, 1).prepare(Record("1", "c", text="a", label=2), RNG)


@pytest.mark.parametrize(
    ("first", "second", "limit", "expected"),
    [
        ("a", "the", 12, "<s> a </s> | the </s>"),
        ("a red circle left of", "the star", 8, "<s> a red circle </s> | the star </s>"),
        ("a", "the star is left of", 8, "<s> a </s> | the star is left </s>"),
        ("a red circle left of", "the star is green .", 7, "<s> a red </s> | the star </s>"),
        ("a red circle", "the star is", 8, "<s> a red circle </s> | the star </s>"),
        ("a red circle", "the", 3, "<s> </s> | </s>"),
    ],
)
@pytest.mark.parametrize("separators", [1, 2])
def test_pairs_are_joined_and_the_longer_one_is_cut(
    processor, first, second, limit, expected, separators
) -> None:
    """One end token between the texts as in UNIMO's release, or two as in RoBERTa."""
    ids = join_pair(processor.tokenizer, first, second, limit + separators - 1, separators)
    vocabulary = processor.tokenizer.backend.get_vocab(with_added_tokens=True)
    names = {number: name for name, number in vocabulary.items()}
    expected = expected.replace(" |", " </s>" * (separators - 1))
    assert " ".join(names[number] for number in ids) == expected


def test_pairs_are_cut_as_in_the_release(processor) -> None:
    """One token at a time from the longer text, from the second where both are as long, to max_len - 3."""
    words = ("a", "the", "star")
    encode = processor.tokenizer.encode
    for lengths in itertools.product(range(1, 9), repeat=2):
        texts = [" ".join(itertools.islice(itertools.cycle(words), length)) for length in lengths]
        left, right = (encode(text, 20)[1:-1] for text in texts)
        while len(left) + len(right) > 12 - 3:
            (left if len(left) > len(right) else right).pop()
        begin, end = processor.tokenizer.bos_token_id, processor.tokenizer.eos_token_id
        assert join_pair(processor.tokenizer, *texts, 12, 1) == [begin, *left, end, *right, end]


def test_pair_in_a_batch_fits_the_length(processor) -> None:
    record = Record("1", "c", text="a red circle " * 5, text_pair="the star " * 5, label=0)
    ids = collate(TextCollator(processor, 3, True, 1), record).input_ids[0]
    assert len(ids) == processor.config.max_text_len == 12
    with pytest.raises(RecordError, match="the text is empty"):
        TextCollator(processor, 3, True, 1).prepare(Record("1", "c", text="a", text_pair=" ", label=0), RNG)


def test_images(processor, make_image) -> None:
    collator = ImageCollator(processor, 3, False)
    batch = collate(collator, Record("1", "c", images=(make_image(),), label=2))
    image = Image.open(io.BytesIO(make_image()))
    np.testing.assert_array_equal(batch.images[0], processor.pixels(image))
    assert batch.labels.tolist() == [2] and batch.sample_ids == ["1"]
    with pytest.raises(RecordError, match="has no image"):
        collator.prepare(Record("1", "c", label=2), RNG)
    with pytest.raises(RecordError, match="label 3; expected 0 to 2"):
        collator.prepare(Record("1", "c", images=(make_image(),), label=3), RNG)
