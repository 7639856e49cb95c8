"""From records of pairs to batches. `prepare` is for one sample, `collate` joins.

Legend: B batch, T longest text of the batch, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unimo.data.loading.batch import PairBatch
from unimo.data.processor import Processor, pad
from unimo.data.record import Record

Prepared = dict[str, Any]
"""Result of `prepare` for one record."""


class PairCollator:
    """Make a `PairBatch`. Base of the collators of tasks, which add fields (`join`) or read half a pair."""

    needs_false_image = False

    def __init__(self, processor: Processor, train: bool) -> None:
        self.processor = processor
        self.train = train

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Decode the image and tokenize the text of one record.

        Raises:
            RecordError: either is missing or broken.
        """
        ids, words = self.processor.ids_and_words(record.text)
        return {
            "record": record,
            "ids": ids,
            "words": words,
            "image": self.processor.image(record, rng, self.train),
        }

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> PairBatch:
        """Join prepared samples; texts are padded to the longest of them."""
        return PairBatch(**self.join(prepared))

    def join(self, prepared: Sequence[Prepared]) -> dict[str, Any]:
        """Return the fields of a `PairBatch`."""
        records = [sample["record"] for sample in prepared]
        return {
            "images": self.processor.join_images([sample["image"] for sample in prepared]),
            **pad([sample["ids"] for sample in prepared], self.processor.tokenizer.pad_token_id),
            "image_group": np.array([record.image_group for record in records], np.int64),
            "sample_ids": [record.sample_id for record in records],
        }
