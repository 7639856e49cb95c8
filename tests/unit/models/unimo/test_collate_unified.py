"""Unified batches: which part a record goes to, what is masked in it, and that nothing is read twice."""

from __future__ import annotations

import numpy as np
import pytest

from unimo.data.processor import Processor, ProcessorConfig
from unimo.data.record import Record
from unimo.data.regions.base import Regions
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import RecordError
from unimo.models.unimo.augmented import Extras
from unimo.models.unimo.collate import UnifiedCollator
from unimo.models.unimo.config import AugmentConfig, PretrainingConfig
from unimo.models.unimo.contrast import image_group, text_id

RED, BLUE = "a small red circle at the top left .", "a large blue square at the top right ."
TRUE, FALSE = "the red circle at the top left is small .", "a small green circle at the top left ."


class Source:
    """Regions by image id: as many as the id says, e.g. `x:4`."""

    feature_size, num_classes = 3, 2

    def of(self, record):
        count = int(record.image_id.split(":")[1])
        rng = np.random.default_rng(count)
        corner = np.arange(count)[:, None] * 10.0
        boxes = np.hstack([corner, corner, corner + 8, corner + 8]).astype(np.float32)
        features = rng.normal(size=(count, 3)).astype(np.float32)
        probs = rng.random((count, 2)).astype(np.float32)
        return Regions(features, boxes, 200, 200, probs)


class Table:
    """Extras by sample id."""

    def __init__(self, **rows):
        self.rows = rows

    def of(self, record):
        return self.rows.get(record.sample_id, Extras())


def make(extras=None, max_text_len=50, **data):
    config = ProcessorConfig(max_text_len=max_text_len, regions="grid")
    processor = Processor(load_tokenizer("scenes"), config)
    processor.visual.source = Source()
    config = PretrainingConfig(masking="span", mlm_probability=0.3, **data)
    return UnifiedCollator(processor, config, extras or Table())


def pair(name, image, text):
    return Record(name, "c", images=(b"x",), image_id=image, text=text)


def related(image):
    return Record("r", "", image_id=image)


def join(collator, records, seed=0):
    rng = np.random.default_rng(seed)
    return collator.collate([collator.prepare(record, rng) for record in records], rng)


def given(part):
    return {name for name, value in vars(part).items() if value is not None}


def test_a_record_goes_to_the_part_of_what_it_has():
    batch = join(
        make(),
        [
            pair("p", "a:4", RED),
            Record("t", "c", text=BLUE),
            Record("i", "c", images=(b"x",), image_id="b:3"),
        ],
    )
    assert batch.sample_ids == ["p", "t", "i"]
    assert given(batch.pairs) == {"language", "vision", "contrast", "itm_image_index", "itm_labels"}
    assert given(batch.texts) == {"language"} and given(batch.images) == {"vision"}
    with pytest.raises(RecordError, match="neither image nor text"):
        join(make(), [Record("n", "c")])


def test_generated_fragments_are_targets_behind_the_rest_of_the_text():
    collator = make(seq2seq_probability=1.0)
    text = Record("t", "c", text=f"{RED[:-2]} , {BLUE}")
    ids = collator.processor.ids(text.text)
    language = join(collator, [text]).texts.language
    rows, target = language.input_ids[0], language.is_target[0].astype(bool)
    assert language.mlm_labels.size == 0 and language.seq2seq_labels.size > 1
    assert (np.diff(target.astype(int)) >= 0).all()  # source first
    kept = [i for i in rows[~target].tolist() if i not in collator.processor.tokenizer.special_ids]
    generated = [i for i in rows[target].tolist() if i not in collator.processor.tokenizer.special_ids]
    assert sorted(kept + generated) == sorted(ids[1:-1])
    first = collator.processor.tokenizer.pad_token_id + 1
    for part in (~target, target):
        np.testing.assert_array_equal(language.positions[0][part], first + np.arange(part.sum()))
    # Each target place but the last of a fragment predicts the token behind it.
    np.testing.assert_array_equal(rows[language.seq2seq_positions + 1], language.seq2seq_labels)
    assert target[language.seq2seq_positions].all()


def test_masked_texts_have_no_target_part():
    language = join(make(seq2seq_probability=0.0), [Record("t", "c", text=RED)]).texts.language
    assert language.is_target is None and language.seq2seq_labels.size == 0


def test_hidden_regions_are_the_targets_of_their_places():
    collator = make(region_mask_probability=0.5)
    records = [
        Record(str(i), "c", images=(b"x",), image_id=f"{i}:{count}") for i, count in enumerate((3, 8, 5))
    ]
    vision = join(collator, records).images.vision
    regions, masked = vision.regions, vision.regions["masked"].astype(bool)
    assert regions["features"].shape == (3, 8, 3) and masked.sum() == len(vision.positions) > 3
    rows, columns = np.divmod(vision.positions, 9)
    assert masked[rows, columns - 1].all()
    np.testing.assert_array_equal(vision.features, regions["features"][rows, columns - 1])
    probs = collator.processor.visual.source.of(records[1]).class_probs
    np.testing.assert_allclose(vision.class_probs[rows == 1], probs[columns[rows == 1] - 1])


def test_shares_are_those_of_the_paper_over_ten_thousand_samples():
    rng, collator = np.random.default_rng(0), make(seq2seq_probability=0.5, region_mask_probability=0.15)
    collator.masker.probability = 0.15
    ids, words = collator.processor.ids_and_words(f"{RED[:-2]} , {BLUE}")
    taken, tokens, spans, generated, hidden, regions = 0, 0, 0, 0, 0, 0
    boxes = Source().of(related("x:20")).boxes
    for _ in range(10_000):
        text = collator.language(ids, words, rng)
        generated += text["generates"]
        if text["generates"]:
            target = text["ids"][text["is_target"]]
            taken += np.isin(target, list(collator.processor.tokenizer.special_ids), invert=True).sum()
        else:
            spans += len(text["labels"])
        tokens += len(ids) - 2
        hidden, regions = hidden + collator.hide(boxes, rng).sum(), regions + len(boxes)
    assert abs(generated / 10_000 - 0.5) < 0.02
    assert abs(taken / (tokens / 10_000 * generated) - 0.25) < 0.01
    assert abs(spans / (tokens / 10_000 * (10_000 - generated)) - 0.15) < 0.01
    assert abs(hidden / regions - 0.15) < 0.01


def test_each_image_and_text_is_there_once_however_many_pairs_use_it():
    extras = Extras(positives=(TRUE,), negatives=(FALSE,), texts=(BLUE,), images=(related("b:5"),))
    batch = join(
        make(Table(p=extras, q=extras, s=extras), augment=AugmentConfig(mismatched=0)),
        [pair("p", "a:4", RED), pair("q", "a:4", RED), pair("r", "b:5", BLUE), pair("s", "c:2", TRUE)],
    ).pairs.contrast
    assert batch.regions["mask"].sum(1).tolist() == [4, 5, 2]  # a, b (of r, and related), c
    # RED, BLUE, TRUE are own captions; rewritten TRUE and FALSE come after; BLUE is not there again.
    assert batch.captions["input_ids"].shape[0] == 5 and batch.related is None
    assert len(batch.text_ids) == 3
    assert batch.text_row.tolist() == [0, 0, 1, 2] and batch.image_row.tolist() == [0, 0, 1, 2]
    # TRUE is no rewritten caption of the pair whose own it is.
    assert batch.rewrite_pair.tolist() == [0, 0, 1, 1, 3]
    assert batch.rewrite_row.tolist() == [3, 4, 3, 4, 4]
    assert batch.rewrite_positive.tolist() == [1, 0, 1, 0, 0]
    assert batch.related_texts.ravel().tolist() == [batch.text_ids[1]] * 2 + [-1, batch.text_ids[1]]
    seen = [image_group(Source().of(related(name))) for name in ("a:4", "b:5", "c:2")]
    assert batch.image_group.tolist() == seen
    assert batch.related_images.ravel().tolist() == [seen[1]] * 2 + [-1, seen[1]]


def test_a_pair_gets_as_many_extras_as_the_config_says():
    extras = Extras(
        positives=(TRUE, RED),
        negatives=(FALSE, BLUE, TRUE),
        texts=(BLUE, FALSE),
        images=(related("b:5"),) * 3,
    )
    numbers = AugmentConfig(positives=0, negatives=2, related_images=1, related_texts=2)
    batch = join(make(Table(p=extras), augment=numbers), [pair("p", "a:4", RED)]).pairs.contrast
    assert batch.rewrite_positive.tolist() == [0, 0]
    assert batch.related_texts.shape == (1, 2) and batch.related_images.shape == (1, 1)
    assert batch.related["input_ids"].shape[0] == 2
    assert len(batch.text_ids) == 3
    none = AugmentConfig(related_images=0, related_texts=0)
    batch = join(make(Table(p=extras), augment=none), [pair("p", "a:4", RED)] * 2).pairs.contrast
    assert batch.related_texts.shape == batch.related_images.shape == (2, 0)


def test_a_rewrite_that_is_the_caption_after_cutting_is_not_there():
    extras = Extras(positives=(f"{RED} once more",), negatives=(f"{RED} not",))
    longest = len(make().processor.ids(RED)) - 1
    collator = make(Table(p=extras), longest)
    batch = join(collator, [pair("p", "a:4", f"{RED} here")]).pairs.contrast
    assert batch.captions["input_ids"].shape == (1, longest) and not len(batch.rewrite_pair)


def test_images_are_read_with_captions_of_other_images_as_well():
    others = [
        pair(f"o{i}", f"{i}:{6 + i}", f"{text} {RED}") for i, text in enumerate(("a", "one", "two", "three"))
    ]
    extras = Extras(positives=(TRUE,), negatives=(FALSE,), texts=(BLUE,))
    records = [pair("p", "a:4", RED), pair("q", "a:4", FALSE), pair("r", "b:5", BLUE), pair("s", "c:2", TRUE)]
    collator, drawn = make(Table(p=extras), augment=AugmentConfig(mismatched=2)), set()
    for seed in range(30):
        batch = join(collator, records + others, seed).pairs.contrast
        is_mismatch = batch.rewrite_row < len(records + others)
        pairs, rows = batch.rewrite_pair[is_mismatch], batch.rewrite_row[is_mismatch]
        assert not batch.rewrite_positive[is_mismatch].any()
        np.testing.assert_array_equal(np.bincount(pairs, minlength=8), np.full(8, 2))
        drawn |= set(zip(pairs.tolist(), rows.tolist(), strict=True))
    # Not its own, nor another one of its image, nor one that is known of this image to be true or alike.
    assert {row for owner, row in drawn if owner == 0} == {4, 5, 6, 7}
    assert {row for owner, row in drawn if owner == 1} == {4, 5, 6, 7}
    assert {row for owner, row in drawn if owner == 2} == {0, 1, 3, 4, 5, 6, 7}
    # A batch of one image has none.
    alone = join(collator, records[:2]).pairs.contrast
    assert (alone.rewrite_row >= 2).all()


def test_mismatched_pairs_show_other_pictures():
    """A picture under two names is one picture, as in the contrast."""
    records = [pair("p", "a:4", RED), pair("q", "z:4", BLUE), pair("r", "b:5", TRUE), pair("s", "y:5", FALSE)]
    for seed in range(20):
        pairs = join(make(), records, seed).pairs
        groups = pairs.contrast.image_group[pairs.contrast.image_row]
        assert len(set(groups.tolist())) == 2
        same = groups[pairs.itm_image_index] == groups
        np.testing.assert_array_equal(same, pairs.itm_labels == 1)


def test_ids_follow_from_content():
    """One picture in two corpora, or under two names, is one picture; so are texts."""
    one, other = Source().of(related("a:4")), Source().of(related("b:5"))
    assert image_group(one) == image_group(Source().of(related("z:4"))) != image_group(other)
    assert image_group(one) != image_group(Regions(one.features, one.boxes + 1, 200, 200, one.class_probs))
    assert text_id([1, 2]) == text_id([1, 2]) != text_id([2, 1])
    assert 0 <= min(image_group(one), text_id([1])) and max(image_group(one), text_id([1])) < 2**62
