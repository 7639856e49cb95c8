"""Batches: shapes, labels and pairs; and that no input tells what was masked."""

import dataclasses

import numpy as np
import pytest

from unimo.data.loading.batch import PairCollator
from unimo.data.record import Record
from unimo.errors import RecordError
from unimo.models.collate import PretrainCollator, draw_matches, pair_in_batch
from unimo.models.paper import PretrainConfig
from unimo.tasks.entailment import EntailmentCollator
from unimo.tasks.retrieval.batches import RetrievalCollator
from unimo.tasks.vqa import VqaCollator

# Inputs of the MLM pass: the objective gets these and nothing else besides positions and labels.
MLM_INPUTS = ("images", "mlm_input_ids", "attention_mask", "mlm_positions")


def make_batch(collator, records, seed=0):
    prepared = [
        collator.prepare(record, np.random.default_rng([seed, row])) for row, record in enumerate(records)
    ]
    return collator.collate(prepared, np.random.default_rng(seed))


@pytest.fixture
def records(corpus_class):
    corpus = corpus_class(size=40)
    return [corpus[index] for index in range(0, 40, 3)]  # 14 records of 14 images


def test_pairs(processor, records):
    batch = make_batch(PairCollator(processor, train=False), records)
    expected = processor(images=[r.image for r in records], texts=[r.text for r in records])
    assert set(vars(batch)) == {"images", "input_ids", "attention_mask", "image_group", "sample_ids"}
    np.testing.assert_array_equal(batch.images, expected.pop("pixels"))
    for name, value in expected.items():
        np.testing.assert_array_equal(getattr(batch, name), value)
    assert batch.image_group.tolist() == [record.image_group for record in records]
    assert batch.sample_ids[1] == "memory-3"


def test_pretraining_batch(processor, records):
    batch = make_batch(PretrainCollator(processor, True, PretrainConfig(mlm_probability=0.5)), records)
    ids, masked = batch.input_ids, batch.mlm_input_ids
    assert masked.shape == ids.shape
    np.testing.assert_array_equal(ids.reshape(-1)[batch.mlm_positions], batch.mlm_labels)
    changed = np.flatnonzero((ids != masked).reshape(-1))
    assert set(changed) <= set(batch.mlm_positions.tolist())
    assert batch.attention_mask.reshape(-1)[batch.mlm_positions].all()
    assert len(batch.mlm_positions) > 10
    for name in ("mlm_input_ids", "mlm_positions", "mlm_labels", "itm_image_index", "itm_labels"):
        assert getattr(batch, name).dtype == np.int64, name


def test_masked_tokens_cannot_be_read_from_what_the_model_sees(processor, records):
    """Change the true token behind every <mask>: nothing that the MLM pass reads may change.

    Its loss is a function of `MLM_INPUTS` and the labels, so equal inputs for different truths mean that
    the truth is not in them. The ITM pass reads the clean `input_ids`, but no MLM label takes part in it:
    its labels and pairs must not change either.
    """
    collator = PretrainCollator(processor, True, PretrainConfig(mlm_probability=0.6))
    tokenizer = processor.tokenizer
    first = make_batch(collator, records)
    hidden = first.mlm_positions[
        first.mlm_input_ids.reshape(-1)[first.mlm_positions] == tokenizer.mask_token_id
    ]
    assert len(hidden) > 20
    rows, columns = np.divmod(hidden, first.input_ids.shape[1])
    changed_records = list(records)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        words = changed_records[row].text.split(" ")
        words[column - 1] = "star" if words[column - 1] != "star" else "circle"
        changed_records[row] = dataclasses.replace(changed_records[row], text=" ".join(words))
    second = make_batch(collator, changed_records)
    truth = first.mlm_labels != second.mlm_labels
    np.testing.assert_array_equal(first.mlm_positions[truth], hidden)
    for name in (*MLM_INPUTS, "itm_labels", "itm_image_index"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_the_places_of_targets_do_not_depend_on_the_words(processor, records):
    """Not masking something would be a hint, too: which places are targets is drawn without looking."""
    collator = PretrainCollator(processor, True, PretrainConfig(mlm_probability=0.3))
    other = [dataclasses.replace(r, text=" ".join(["star"] * len(r.text.split(" ")))) for r in records]
    first, second = make_batch(collator, records), make_batch(collator, other)
    np.testing.assert_array_equal(first.mlm_positions, second.mlm_positions)


def test_targets_that_are_shown_are_the_tenth_that_stays(processor, records):
    collator = PretrainCollator(processor, True, PretrainConfig(mlm_probability=0.5))
    shown = total = 0
    for seed in range(40):
        batch = make_batch(collator, records, seed)
        seen = batch.mlm_input_ids.reshape(-1)[batch.mlm_positions]
        shown, total = shown + (seen == batch.mlm_labels).sum(), total + len(seen)
    assert shown / total == pytest.approx(0.1 + 0.1 / 13, abs=0.03)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 64])
def test_half_of_the_pairs_match(size):
    drawn = np.stack([draw_matches(size, np.random.default_rng(seed)) for seed in range(200)])
    assert (drawn.sum(axis=1) == size // 2).all()
    if size > 1:
        assert (np.abs(drawn.mean(axis=0) - (size // 2) / size) < 0.15).all()


@pytest.mark.parametrize("seed", range(20))
def test_false_images_of_the_batch(processor, corpus_class, seed):
    """Two texts for each image: a false image is never the true one under another index."""
    corpus = corpus_class(size=12)
    records = [corpus[index] for index in range(11)]
    batch = make_batch(PretrainCollator(processor, True), records, seed)
    index, labels = batch.itm_image_index, batch.itm_labels
    assert labels.sum() == 5
    for row, record in enumerate(records):
        same = records[index[row]].image_id == record.image_id
        assert same == bool(labels[row])
        assert not labels[row] or index[row] == row
    false = index[labels == 0]
    assert len(set(false.tolist())) == len(false)


def paired(records, matched, rng):
    """`pair_in_batch` on records."""
    return pair_in_batch([r.corpus for r in records], [r.image_group for r in records], matched, rng)


def test_a_sample_that_is_there_twice_is_not_false_of_itself(processor, records):
    """Also in a corpus that does not name its images."""
    nameless = [dataclasses.replace(record, image_id="") for record in records[:3]]
    for seed in range(20):
        batch = make_batch(PretrainCollator(processor, True), [*nameless, *nameless], seed)
        for row in np.flatnonzero(batch.itm_labels == 0):
            assert batch.itm_image_index[row] % 3 != row % 3


def test_false_images_come_from_the_same_corpus():
    records = [Record(str(i), corpus, image_id=str(i)) for i, corpus in enumerate("aaabbbbbc")]
    matched = np.zeros(9, bool)
    for seed in range(30):
        index, matches = paired(records, matched, np.random.default_rng(seed))
        assert not matches.any() and (index != np.arange(9)).all()
        assert all(records[index[row]].corpus == records[row].corpus for row in range(8))


def test_equal_ids_in_two_corpora_are_two_images():
    records = [Record("0", "a", image_id="7"), Record("1", "b", image_id="7")]
    index, matched = paired(records, np.zeros(2, bool), np.random.default_rng(0))
    assert index.tolist() == [1, 0] and not matched.any()


def test_skewed_batch_reuses_the_only_other_image():
    records = [Record(str(i), "a", image_id="x") for i in range(5)] + [Record("5", "a", image_id="y")]
    index, matched = paired(records, np.array([0, 0, 0, 1, 1, 1], bool), np.random.default_rng(0))
    assert index.tolist() == [5, 5, 5, 3, 4, 5] and matched.sum() == 3


def test_batch_of_one_image_has_only_matches():
    """There is no false image to be had; a label never lies."""
    records = [Record(str(i), "a", image_id="x") for i in range(4)]
    index, matched = paired(records, np.zeros(4, bool), np.random.default_rng(0))
    assert index.tolist() == [0, 1, 2, 3] and matched.all()


def test_false_images_of_the_dataset(processor, records, make_image):
    false = make_image((0, 250, 0))
    collator = PretrainCollator(processor, True, PretrainConfig(false_images="dataset"))
    assert collator.needs_false_image
    batch = make_batch(collator, [dataclasses.replace(record, false_image=false) for record in records])
    mismatched = np.flatnonzero(batch.itm_labels == 0)
    assert len(mismatched) == 7 and batch.false_pixels.shape == (7, 3, 16, 16)
    np.testing.assert_array_equal(batch.itm_image_index[mismatched], 14 + np.arange(7))
    matched = np.flatnonzero(batch.itm_labels)
    np.testing.assert_array_equal(batch.itm_image_index[matched], matched)
    np.testing.assert_array_equal(batch.false_pixels[3], processor.pixels(false))
    with pytest.raises(RecordError, match="no false image"):
        make_batch(collator, records)


def test_vqa(processor, records):
    batch = make_batch(VqaCollator(processor, ["red", "green"], train=False), records)
    assert batch.answer_targets.dtype == np.float32
    # Record i answers WORDS[i % 3 + 1]: all of these are multiples of 3, so "red".
    np.testing.assert_array_equal(batch.answer_targets, np.tile([1.0, 0.0], (14, 1)))
    assert batch.question_types[:2] == ["shape", "color"]
    assert batch.question_ids[:2] == [0, 3]


def test_soft_scores_and_unknown_answers(processor, records):
    record = dataclasses.replace(records[0], answer_scores={"green": 0.3, "maybe": 1.0, "red": 0.6})
    batch = make_batch(VqaCollator(processor, ["red", "green"], train=False), [record])
    np.testing.assert_allclose(batch.answer_targets, [[0.6, 0.3]])


def test_entailment(processor, corpus_class):
    corpus = corpus_class()
    collator = EntailmentCollator(processor, train=False)
    assert make_batch(collator, [corpus[i] for i in range(5)]).labels.tolist() == [0, 1, 2, 0, 1]
    for label in (None, 3):
        with pytest.raises(RecordError, match="label"):
            collator.prepare(dataclasses.replace(corpus[0], label=label), np.random.default_rng(0))


def test_retrieval_groups(processor, corpus_class):
    corpus = corpus_class()
    batch = make_batch(RetrievalCollator(processor, train=True), [corpus[i] for i in (4, 0, 5, 9, 1)])
    groups = batch.image_group.tolist()
    assert groups[0] == groups[2] and groups[1] == groups[4] and len(set(groups)) == 3
    assert batch.image_ids[2] == "memory-image-2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "  "}, "empty"),
        ({"text": None}, "NoneType"),
        ({"text": "caf\udce9"}, "not UTF-8"),
        ({"images": ()}, "no image"),
        ({"images": (b"GIF89a",)}, "cannot be opened"),
    ],
)
def test_broken_records(processor, records, change, message):
    with pytest.raises(RecordError, match=message):
        PretrainCollator(processor, True).prepare(
            dataclasses.replace(records[0], **change), np.random.default_rng(0)
        )
