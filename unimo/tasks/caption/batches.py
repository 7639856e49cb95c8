"""Collators for captioning: what the next token is in training, images and references in evaluation.

Legend: B batch, T longest input of the batch, S image side, N target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unimo.data.loading.batch import Array, Batch, RegionArrays
from unimo.data.loading.collate import PairCollator, Prepared
from unimo.data.processor import pad
from unimo.data.record import Record
from unimo.data.tokenizers import Tokenizer

Objects = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CaptionRecord(Record):
    """An image with all of its captions."""

    references: tuple[str, ...] = ()
    """Human captions that a generated one is compared with."""
    objects: Objects | None = None
    """Colour and shape of everything in a picture of `scenes`; None for other corpora."""


@dataclass(kw_only=True)
class CaptionBatch(Batch):
    """Captions to learn from: each token predicts the one after it."""

    images: Array | RegionArrays
    """Pixels [B, 3, S, S] float32, or regions for models that read those."""
    input_ids: Array
    """[B, T] int64 tokens of the captions without `</s>`, which is a target only."""
    attention_mask: Array
    """[B, T] int64, 1 = token."""
    target_positions: Array
    """[N] int64, flat positions b * T + t of the tokens."""
    target_labels: Array
    """[N] int64, the token that follows each."""


class CaptionCollator(PairCollator):
    """Make a `CaptionBatch`."""

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> CaptionBatch:
        """Join prepared samples; inputs are padded to the longest of them."""
        rows = [sample["ids"] for sample in prepared]
        inputs = pad([ids[:-1] for ids in rows], self.processor.tokenizer.pad_token_id)
        return CaptionBatch(
            images=self.processor.join_images([sample["image"] for sample in prepared]),
            **inputs,
            target_positions=np.flatnonzero(inputs["attention_mask"]),
            target_labels=np.concatenate([np.array(ids[1:], np.int64) for ids in rows]),
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
    """Turns generated ids into text; a task knows ids only."""
    objects: list[Objects] | None = None
    """Colour and shape of everything in each image of `scenes`; None for other corpora."""


class ReferenceCollator(PairCollator):
    """Make a `ReferenceBatch`."""

    def prepare(self, record: CaptionRecord, rng: np.random.Generator) -> Prepared:
        """Decode the image of one record.

        Raises:
            RecordError: there is no image, or it is broken.
        """
        return {"record": record, "image": self.processor.image(record, rng, self.train)}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> ReferenceBatch:
        """Join prepared samples."""
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
