"""Batches of captions with their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.loading.collate import Batch, PairCollator, Prepared
from unimo.data.record import Record


class RetrievalCollator(PairCollator):
    """Captions: adds `image_ids`, and `image_index` int64 [B], equal for texts of the same image."""

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        """Join prepared samples; `image_key` tells which images are the same."""
        records = [sample["record"] for sample in prepared]
        keys = [image_key(record) for record in records]
        groups = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        index = np.array([groups[key] for key in keys], np.int64)
        return {**super().collate(prepared, rng), "image_index": index, "image_ids": keys}


def image_key(record: Record) -> str:
    """Equal for the texts of one image; samples without an image id count as images of their own."""
    return record.image_id or f"sample {record.sample_id}"
