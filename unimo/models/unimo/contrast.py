"""What cross-modal contrastive learning compares: each image and text of a batch once (UNIMO, section 2.1).

Legend: P pairs, I images, K captions, Q rewritten captions, L related texts, c and d related ones of a pair,
R regions, T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unimo.data.loading.batch import TextArrays
from unimo.data.processor import Processor, pad
from unimo.data.record import Record
from unimo.data.regions.base import Regions
from unimo.models.unimo.augmented import Augmentations
from unimo.models.unimo.batches import ContrastBatch
from unimo.models.unimo.config import AugmentConfig

Key = tuple[str | int, ...]
NONE = -1
"""Stands for no image or text."""


@dataclass
class Contrast:
    """One pair and its extras, read and tokenized."""

    image_group: int
    """Identity of the image, by its content."""
    regions: Regions
    text: list[int]
    positives: list[list[int]] = field(default_factory=list)
    negatives: list[list[int]] = field(default_factory=list)
    related_texts: list[list[int]] = field(default_factory=list)
    related_images: dict[int, Regions] = field(default_factory=dict)
    """By their ids."""


class ContrastCollator:
    """Draw the extras of each pair and make a `ContrastBatch`.

    Args:
        processor: reads regions and texts.
        config: how many extras a pair gets.
        extras: where they are from.
    """

    def __init__(self, processor: Processor, config: AugmentConfig, extras: Augmentations) -> None:
        self.processor, self.config, self.extras = processor, config, extras

    def prepare(self, record: Record, regions: Regions, ids: list[int], rng: np.random.Generator) -> Contrast:
        """Draw, tokenize and read the extras of one pair.

        Raises:
            RecordError: a broken line, or a related image without regions.
        """
        found, config = self.extras.of(record), self.config

        def draw(texts: Sequence[str], count: int) -> list[list[int]]:
            drawn = [self.processor.ids(texts[i]) for i in _some(len(texts), count, rng)]
            return [other for other in drawn if other != ids]  # what differs may have been cut off

        prepared = Contrast(
            image_group=image_group(regions),
            regions=regions,
            text=ids,
            positives=draw(found.positives, config.positives),
            negatives=draw(found.negatives, config.negatives),
            related_texts=draw(found.texts, config.related_texts),
        )
        for i in _some(len(found.images), config.related_images, rng):
            related = self.processor.image(found.images[i])
            prepared.related_images[image_group(related)] = related
        return prepared

    def collate(self, prepared: Sequence[Contrast], rng: np.random.Generator) -> ContrastBatch:
        """Join the pairs of a batch, and draw the captions of others that each image is read with."""
        images = {pair.image_group: pair.regions for pair in prepared}
        captions = {_own(pair.text): pair.text for pair in prepared}
        related: dict[Key, list[int]] = {}
        for pair in prepared:
            images |= {key: seen for key, seen in pair.related_images.items() if key not in images}
            related |= {_own(ids): ids for ids in pair.related_texts if _own(ids) not in captions}
        texts = [*captions.values(), *related.values()]
        rewrites = [
            (row, ("rewritten", *ids), ids, is_true)
            for row, pair in enumerate(prepared)
            for is_true, found in ((1, pair.positives), (0, pair.negatives))
            for ids in found
        ]
        captions |= {key: ids for _, key, ids, _ in rewrites}
        rewrites += [
            (row, _own(ids), ids, 0)
            for row in range(len(prepared))
            for ids in self._mismatched(prepared, row, rng)
        ]
        row_of_image = {key: row for row, key in enumerate(images)}
        row_of_text = {key: row for row, key in enumerate(captions)}
        return ContrastBatch(
            regions=self.processor.join_images(list(images.values())),
            image_group=_integers(images),
            captions=self._pad(captions),
            related=self._pad(related) if related else None,
            text_ids=_integers(map(text_id, texts)),
            image_row=_integers(row_of_image[pair.image_group] for pair in prepared),
            text_row=_integers(row_of_text[_own(pair.text)] for pair in prepared),
            related_images=_filled(
                [list(pair.related_images) for pair in prepared], self.config.related_images
            ),
            related_texts=_filled(
                [[text_id(ids) for ids in pair.related_texts] for pair in prepared],
                self.config.related_texts,
            ),
            rewrite_pair=_integers(row for row, *_ in rewrites),
            rewrite_row=_integers(row_of_text[key] for _, key, *_ in rewrites),
            rewrite_positive=_integers(is_true for *_, is_true in rewrites),
        )

    def _mismatched(
        self, prepared: Sequence[Contrast], row: int, rng: np.random.Generator
    ) -> list[list[int]]:
        """Captions of other images, by lot, but for those that are known to be true or alike."""
        pair = prepared[row]
        same = [other for other in prepared if other.image_group == pair.image_group]
        spared = [text for one in same for text in (one.text, *one.positives, *one.related_texts)]
        others = {tuple(other.text): other.text for other in prepared if other.text not in spared}
        choice = list(others.values())
        return [choice[i] for i in _some(len(choice), self.config.mismatched, rng)]

    def _pad(self, texts: Mapping[Key, list[int]]) -> TextArrays:
        return pad(list(texts.values()), self.processor.tokenizer.pad_token_id)


def image_group(regions: Regions) -> int:
    """Return the identity of an image in [0, 2^62), equal for images that show the same at the same places.

    Related images come from other corpora than the pairs and under other names, so it is the content that
    identifies an image here, not `Record.image_group`.
    """
    return _number(regions.features, regions.boxes)


def text_id(ids: Sequence[int]) -> int:
    """Return the identity of a text in [0, 2^62), equal for equal texts."""
    return _number(np.asarray(ids, np.int64))


def _number(*arrays: np.ndarray) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return int.from_bytes(digest.digest(), "big") >> 2


def _own(ids: Sequence[int]) -> Key:
    """Key of a caption or related text, apart from rewritten ones, which are never encoded alone."""
    return ("own", *ids)


def _filled(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Rows of ids filled up with -1: int64 [P, width]."""
    filled = np.full((len(rows), width), NONE, np.int64)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row
    return filled


def _integers(values: Iterable[int]) -> np.ndarray:
    return np.fromiter(values, np.int64)


def _some(size: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` different places of a list of `size`, or all there are, by lot."""
    return rng.permutation(size)[:count].tolist()
