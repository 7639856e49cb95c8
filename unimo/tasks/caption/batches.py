"""Collators for captioning: what the next token is in training, images and references in evaluation.

Legend: B batch, T longest input of the batch, S image side, N target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unimo.data.loading.collate import Batch, PairCollator, Prepared
from unimo.data.processor import pad
from unimo.data.record import Record

Objects = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CaptionRecord(Record):
    """An image with all of its captions."""

    references: tuple[str, ...] = ()
    """Human captions that a generated one is compared with."""
    objects: Objects | None = None
    """Colour and shape of everything in a picture of `scenes`; None for other corpora."""


class CaptionCollator(PairCollator):
    """Captions to learn from: each token predicts the one after it.

    `input_ids` and `attention_mask` [B, T] hold a caption without its `</s>`, which only is a target.
    Adds `target_positions` [N], flat places b*T+t of the inputs that are tokens, and `target_labels`
    [N], the token that follows each.
    """

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        """Join prepared samples; inputs are padded to the longest of them."""
        rows = [sample["ids"] for sample in prepared]
        inputs = pad([ids[:-1] for ids in rows], self.processor.tokenizer.pad_token_id)
        return {
            **self.processor.join_images([sample["image"] for sample in prepared]),
            **inputs,
            "target_positions": np.flatnonzero(inputs["attention_mask"]),
            "target_labels": np.concatenate([np.array(ids[1:], np.int64) for ids in rows]),
            "sample_ids": [sample["record"].sample_id for sample in prepared],
        }


class ReferenceCollator(PairCollator):
    """Images to describe: `pixels` [B, 3, S, S], `sample_ids`, and for each image an entry in the lists
    `image_ids`, `references` (its human captions) and, for `scenes`, `objects` (pairs of colour and shape).

    `tokenizer` is what turns generated ids into text; a task knows ids only.
    """

    def prepare(self, record: CaptionRecord, rng: np.random.Generator) -> Prepared:
        """Decode the image of one record.

        Raises:
            RecordError: there is no image, or it is broken.
        """
        return {"record": record, "image": self.processor.image(record, rng, self.train)}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        """Join prepared samples."""
        records: list[CaptionRecord] = [sample["record"] for sample in prepared]
        batch = {
            **self.processor.join_images([sample["image"] for sample in prepared]),
            "sample_ids": [record.sample_id for record in records],
            "image_ids": [record.image_id or record.sample_id for record in records],
            "references": [record.references for record in records],
            "tokenizer": self.processor.tokenizer,
        }
        if all(record.objects is not None for record in records):
            batch["objects"] = [record.objects for record in records]
        return batch
