"""From records of pairs to batches. `prepare` is for one sample, `collate` joins.

Legend: B batch, T longest text of the batch, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unimo.data.processor import Processor, pad
from unimo.data.record import Record

Prepared = dict[str, Any]
Batch = dict[str, Any]


class PairCollator:
    """Images and texts: `pixels` [B, 3, S, S], `input_ids` and `attention_mask` [B, T], `sample_ids`.

    In place of `pixels` stand `regions` where the processor reads those (`visual.py`).
    Base of the others, and all that prediction needs.

    Args:
        processor: image transform and tokenizer.
        train: use the training transform of images.
    """

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

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        """Join prepared samples; texts are padded to the longest of them."""
        return {
            **self.processor.join_images([sample["image"] for sample in prepared]),
            **pad([sample["ids"] for sample in prepared], self.processor.tokenizer.pad_token_id),
            "sample_ids": [sample["record"].sample_id for sample in prepared],
        }
