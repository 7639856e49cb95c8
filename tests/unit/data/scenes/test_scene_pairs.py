"""Pairs of scenes: sentences that are as labelled, and of which one picture tells nothing."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from unimo.data.record import Record
from unimo.data.scenes.dataset import ScenesDataset, open_scenes, vocabulary
from unimo.data.scenes.language import NUMBER_WORDS
from unimo.data.scenes.pairs import STATEMENTS, ScenePair, draw_pairs
from unimo.data.scenes.scene import COLORS, PLACES, SHAPES, Scene
from unimo.errors import RecordError
from unimo.settings import ScenesConfig

SENTENCES = 40


def drawn(count: int = 300) -> list[ScenePair]:
    return [pair for seed in range(count) for pair in draw_pairs(np.random.default_rng(seed))]


def is_true(text: str, left: Scene, right: Scene) -> bool:
    """Read a sentence and judge it by the objects of the scenes."""
    both = [left.objects, right.objects]
    if found := re.fullmatch(r"there (?:is|are) (\w+) (\w+) objects? in the left and the right \.", text):
        number, color = found.groups()
        return sum(item.color == color for items in both for item in items) == NUMBER_WORDS.index(number)
    if found := re.fullmatch(r"there is a (\w+ \w+) in one of the two \.", text):
        return sum(any(item.name == found[1] for item in items) for items in both) == 1
    if found := re.fullmatch(r"the object at the (.*) is of one (\w+) in the left and the right \.", text):
        (first,), (second,) = ([item for item in items if item.place == found[1]] for items in both)
        return getattr(first, found[2]) == getattr(second, found[2])
    found = re.fullmatch(r"the (\w+) in the left is of the color of the (\w+) in the right \.", text)
    (first,), (second,) = (
        [item for item in items if item.shape == shape]
        for shape, items in zip(found.groups(), both, strict=True)
    )
    return first.color == second.color


def test_sentences_are_as_labelled() -> None:
    pairs = drawn()
    assert all(pair.is_true == is_true(pair.text, pair.left, pair.right) for pair in pairs)
    assert sum(pair.is_true for pair in pairs) * 2 == len(pairs)


def test_every_kind_of_sentence_occurs_with_known_words() -> None:
    texts = [pair.text for pair in drawn()]
    assert set(" ".join(texts).split()) <= set(vocabulary())
    names = "|".join([*COLORS, *SHAPES, *PLACES, *NUMBER_WORDS])
    assert len({re.sub(rf"\b({names})\b", "", text) for text in texts}) >= len(STATEMENTS) + 2


def records(split: str = "train") -> list[Record]:
    return list(ScenesDataset("nlvr2", split, ScenesConfig(train_images=SENTENCES, val_images=SENTENCES)))


@pytest.mark.parametrize("seen", [(0,), (1,), ()], ids=["left", "right", "sentence"])
def test_what_one_picture_tells_is_chance(seen: tuple[int, ...]) -> None:
    """Even to a reader that knows all labels: with a sentence and the bytes of a picture, half are true."""
    labels = defaultdict(Counter)
    for record in records():
        labels[(record.text, *(record.images[side] for side in seen))][record.label] += 1
    assert all(counts[0] == counts[1] for counts in labels.values())
    assert sum(max(counts.values()) for counts in labels.values()) == 2 * SENTENCES


def test_both_pictures_tell_the_label() -> None:
    labels = defaultdict(set)
    for record in records():
        labels[(record.text, record.images)].add(record.label)
    assert len(labels) == 4 * SENTENCES and all(len(found) == 1 for found in labels.values())


def test_a_record_is_a_function_of_seed_split_and_index() -> None:
    first, again, other = (ScenesDataset("nlvr2", "val", ScenesConfig(seed=seed)) for seed in (0, 0, 1))
    assert [first[i] for i in (0, 7, 100)] == [again[i] for i in (0, 7, 100)]
    assert first[0].images != other[0].images != ScenesDataset("nlvr2", "train")[0].images


def test_pictures_and_samples_have_names() -> None:
    data = ScenesDataset("nlvr2", "val", ScenesConfig(val_images=3))
    assert (len(data), data.count_images(), data.count_texts()) == (12, 12, 12)
    names = [tuple(record.picture(side).image_id for side in (0, 1)) for record in data]
    assert names[:3] == [
        ("val-0-left-0", "val-0-right-0"),
        ("val-0-left-0", "val-0-right-1"),
        ("val-0-left-1", "val-0-right-0"),
    ]
    assert len({data[i].image_group for i in range(12)}) == 12
    assert [data[i].question_id for i in (0, 3, 4)] == ["val-0-0-0", "val-0-3-0", "val-1-0-0"]
    with pytest.raises(RecordError, match="a pair of images"):
        data.image_source(0)


def test_parts_of_val_hold_whole_sentences() -> None:
    config = ScenesConfig(val_images=10)
    parts = [open_scenes("nlvr2", split, config) for split in ("trainable_val", "rest_val", "val")]
    assert [len(part) for part in parts] == [32, 8, 40]
    assert parts[1][0] == parts[2][32]
