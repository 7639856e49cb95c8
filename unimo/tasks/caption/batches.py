"""Batches for captioning: captions to learn from in training, images with references in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unimo.data.loading.batch import Array, Batch, PairCollator, Prepared, RegionArrays
from unimo.data.processor import Processor, pad
from unimo.data.record import Record
from unimo.data.tokenizers import Tokenizer
from unimo.tasks.generation import TargetBatch, join_targets

Objects = tuple[tuple[str, str], ...]
Tags = tuple[np.ndarray, np.ndarray]
"""Token ids and position ids of the object tags of an image, int32."""
NO_TAGS: Tags = (np.zeros(0, np.int32), np.zeros(0, np.int32))
TagArrays = dict[str, Array]
"""Tags of B images, int64 [B, O]: `ids`, `positions` and `mask`, 1 = token."""


@dataclass(frozen=True)
class CaptionRecord(Record):
    """An image with all of its captions."""

    references: tuple[str, ...] = ()
    """Human captions that a generated one is compared with."""
    objects: Objects | None = None
    """Colour and shape of everything in a picture of `scenes`; None for other corpora."""


@dataclass(kw_only=True)
class CaptionBatch(TargetBatch):
    """Captions to learn from."""

    images: Array | RegionArrays
    """Pixels [B, 3, S, S] float32, or regions for models that read those."""
    tags: TagArrays | None = None
    """Object tags that the captions are read behind; None if there are none."""


class TaggedCollator(PairCollator):
    """Base of the collators of captions.

    Args:
        processor, train: as of `PairCollator`.
        tags_of: returns the object tags of a record; None without tags.
    """

    def __init__(
        self, processor: Processor, train: bool, tags_of: Callable[[Record], Tags] | None = None
    ) -> None:
        super().__init__(processor, train)
        self.tags_of = tags_of

    def sources(self) -> dict[str, Callable[[Record], Any]]:
        """Return what stored regions and the file of tags add to a record."""
        return super().sources() | ({"task.tags": self.tags_of} if self.tags_of else {})

    def join_tags(self, prepared: Sequence[Prepared]) -> TagArrays | None:
        """Pad the tags of B images, ids and positions with the id of padding; None if all have none."""
        if self.tags_of is None:
            return None
        tags = [self.tags_of(sample["record"]) for sample in prepared]
        pad_id = self.processor.tokenizer.pad_token_id
        ids, positions = (pad([row.tolist() for row in rows], pad_id) for rows in zip(*tags, strict=True))
        if not ids["input_ids"].size:
            return None
        return {"ids": ids["input_ids"], "mask": ids["attention_mask"], "positions": positions["input_ids"]}


class CaptionCollator(TaggedCollator):
    """Make a `CaptionBatch`."""

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> CaptionBatch:
        texts = [sample["ids"] for sample in prepared]
        return CaptionBatch(
            images=self.processor.join_images([sample["image"] for sample in prepared]),
            **join_targets(texts, self.processor.tokenizer.pad_token_id),
            tags=self.join_tags(prepared),
            sample_ids=[sample["record"].sample_id for sample in prepared],
        )


@dataclass(kw_only=True)
class ReferenceBatch(Batch):
    """Images to describe, with human captions to compare with."""

    images: Array | RegionArrays
    """Pixels [B, 3, S, S] float32, or regions for models that read those."""
    image_ids: list[str]
    references: list[tuple[str, ...]]
    """Human captions of each image."""
    tokenizer: Tokenizer
    """Turns generated ids into text."""
    objects: list[Objects] | None = None
    """Colour and shape of everything in each image of `scenes`; None for other corpora."""
    tags: TagArrays | None = None
    """Object tags that the captions are written behind; None if there are none."""


class ReferenceCollator(TaggedCollator):
    """Make a `ReferenceBatch`."""

    def prepare(self, record: CaptionRecord, rng: np.random.Generator) -> Prepared:
        return {"record": record, "image": self.processor.image(record, rng, self.train)}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> ReferenceBatch:
        records: list[CaptionRecord] = [sample["record"] for sample in prepared]
        objects = [record.objects for record in records]
        return ReferenceBatch(
            images=self.processor.join_images([sample["image"] for sample in prepared]),
            sample_ids=[record.sample_id for record in records],
            image_ids=[record.image_id or record.sample_id for record in records],
            references=[record.references for record in records],
            tokenizer=self.processor.tokenizer,
            objects=None if None in objects else objects,
            tags=self.join_tags(prepared),
        )
