"""Batches for captioning: captions to learn from in training, images with references in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unimo.data.loading.batch import Array, Batch, PairCollator, Prepared, RegionArrays
from unimo.data.record import Record
from unimo.data.tokenizers import Tokenizer
from unimo.tasks.generation import TargetBatch, join_targets

Objects = tuple[tuple[str, str], ...]


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


class CaptionCollator(PairCollator):
    """Make a `CaptionBatch`."""

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> CaptionBatch:
        texts = [sample["ids"] for sample in prepared]
        return CaptionBatch(
            images=self.processor.join_images([sample["image"] for sample in prepared]),
            **join_targets(texts, self.processor.tokenizer.pad_token_id),
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


class ReferenceCollator(PairCollator):
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
        )
