"""Rows of cross-modal contrastive learning: each image and text of a batch once (UNIMO, section 2.1).

Legend: P pairs, I images, K captions, Q rewritten captions, L related texts, c and d related ones of a pair,
R regions, T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unimo.data.loading.batch import TextArrays
from unimo.data.processor import Processor, pad
from unimo.data.record import Record
from unimo.data.regions.base import Regions
from unimo.models.unimo.augmented import Augmentations
from unimo.models.unimo.batches import ContrastBatch
from unimo.models.unimo.config import AugmentConfig

NONE = -1
"""Stands for no image or text."""


@dataclass
class Contrast:
    """One pair and its extras, read and tokenized."""

    image_group: int
    """Identity of the image, by its content."""
    regions: Regions
    text: list[int]
    positives: list[list[int]]
    negatives: list[list[int]]
    related_texts: list[list[int]]
    related_images: dict[int, Regions]
    """By their identity."""


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

        positives = draw(found.positives, config.positives)
        negatives = draw(found.negatives, config.negatives)
        related_texts = draw(found.texts, config.related_texts)
        drawn = _some(len(found.images), config.related_images, rng)
        related = [self.processor.image(found.images[i]) for i in drawn]
        related_images = {image_group(image): image for image in related}
        return Contrast(
            image_group(regions), regions, ids, positives, negatives, related_texts, related_images
        )

    def collate(self, prepared: Sequence[Contrast], rng: np.random.Generator) -> ContrastBatch:
        """Join the pairs of a batch, and draw the captions of others that each image is read with.

        A rewritten caption is never encoded alone, so it has a row of its own even if it equals a caption.
        """
        images = {pair.image_group: pair.regions for pair in prepared}
        captions = {tuple(pair.text): pair.text for pair in prepared}
        related: dict[tuple[int, ...], list[int]] = {}
        for pair in prepared:
            images |= {key: seen for key, seen in pair.related_images.items() if key not in images}
            related |= {tuple(ids): ids for ids in pair.related_texts if tuple(ids) not in captions}
        rewritten = {tuple(ids): ids for pair in prepared for ids in (*pair.positives, *pair.negatives)}
        row_of_image = {key: row for row, key in enumerate(images)}
        row_of_text = {key: row for row, key in enumerate(captions)}
        row_of_rewritten = {key: len(captions) + row for row, key in enumerate(rewritten)}
        rewrites = [
            (row, row_of_rewritten[tuple(ids)], is_true)
            for row, pair in enumerate(prepared)
            for is_true, found in ((1, pair.positives), (0, pair.negatives))
            for ids in found
        ]
        rewrites += [
            (row, row_of_text[tuple(ids)], 0)
            for row in range(len(prepared))
            for ids in self._mismatched(prepared, row, rng)
        ]
        rewrite_pair, rewrite_row, rewrite_positive = np.array(rewrites, np.int64).reshape(-1, 3).T.copy()
        return ContrastBatch(
            regions=self.processor.join_images(list(images.values())),
            image_group=np.array(list(images), np.int64),
            captions=self._pad([*captions.values(), *rewritten.values()]),
            related=self._pad([*related.values()]) if related else None,
            text_ids=np.array([text_id(ids) for ids in (*captions, *related)], np.int64),
            image_row=np.array([row_of_image[pair.image_group] for pair in prepared], np.int64),
            text_row=np.array([row_of_text[tuple(pair.text)] for pair in prepared], np.int64),
            related_images=_filled([[*pair.related_images] for pair in prepared], self.config.related_images),
            related_texts=_filled(
                [[text_id(ids) for ids in pair.related_texts] for pair in prepared],
                self.config.related_texts,
            ),
            rewrite_pair=rewrite_pair,
            rewrite_row=rewrite_row,
            rewrite_positive=rewrite_positive,
        )

    def _mismatched(
        self, prepared: Sequence[Contrast], row: int, rng: np.random.Generator
    ) -> list[list[int]]:
        """Draw captions of other images, except those that are known to be true of this one or alike."""
        group = prepared[row].image_group
        same = [other for other in prepared if other.image_group == group]
        spared = [text for one in same for text in (one.text, *one.positives, *one.related_texts)]
        choice = list(
            {tuple(other.text): other.text for other in prepared if other.text not in spared}.values()
        )
        return [choice[i] for i in _some(len(choice), self.config.mismatched, rng)]

    def _pad(self, texts: Sequence[list[int]]) -> TextArrays:
        return pad(texts, self.processor.tokenizer.pad_token_id)


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


def _filled(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Fill up rows of identities with -1: int64 [P, width]."""
    filled = np.full((len(rows), width), NONE, np.int64)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row
    return filled


def _some(size: int, count: int, rng: np.random.Generator) -> list[int]:
    """Draw `count` different places of a list of `size`, or all of them if they are fewer."""
    return rng.permutation(size)[:count].tolist()
