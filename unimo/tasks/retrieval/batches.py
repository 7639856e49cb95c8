"""Batches of captions with their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unimo.data.loading.batch import PairBatch, PairCollator, Prepared


@dataclass(kw_only=True)
class RetrievalBatch(PairBatch):
    """Captions with their images."""

    image_ids: list[str]
    """Names of the images, for result files; a sample without one counts as an image of its own."""


class RetrievalCollator(PairCollator):
    """Make a `RetrievalBatch`."""

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> RetrievalBatch:
        records = [sample["record"] for sample in prepared]
        names = [record.image_id or f"sample {record.sample_id}" for record in records]
        return RetrievalBatch(**self.join(prepared), image_ids=names)
