"""Batches of pairs with mismatched images and captions, for the retrieval of UNIMO and UNIMO-2.

Their releases draw the mismatched images and captions of each caption from the whole data set, and read 21
pairs for each. Here they are drawn from the batch, itself a random sample, so that each image is read once; a
batch of too few images is filled up with samples of the data set, which are negatives only.

Legend: B pairs to learn from, F samples that fill up, N mismatched images (and captions) of a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unimo.data.loading.batch import Array, Prepared
from unimo.data.loading.sampler import SampleKey
from unimo.data.processor import Processor
from unimo.data.readers.base import Dataset
from unimo.errors import DataError, RecordError
from unimo.tasks.retrieval.batches import RetrievalBatch, RetrievalCollator

DRAWS = 50
"""Largest number of samples that are tried for each one that is missing."""


@dataclass(kw_only=True)
class NegativesBatch(RetrievalBatch):
    """B pairs to learn from, and F samples that are negatives only; `sample_ids` are those of the B.

    Negatives of a pair are rows of the batch with another image: each row once or, where there are fewer than
    N, by independent draws, as in the release.
    """

    negative_images: Array
    """[B, N] int64, rows of mismatched images."""
    negative_texts: Array
    """[B, N] int64, rows of mismatched captions."""


class NegativesCollator(RetrievalCollator):
    """Make a `NegativesBatch` with N = `negatives`."""

    def __init__(self, processor: Processor, negatives: int) -> None:
        super().__init__(processor, train=True)
        self.negatives = negatives

    def fill(
        self,
        keys: Sequence[SampleKey],
        prepared: Sequence[Prepared],
        datasets: Mapping[str, Dataset],
        rng: np.random.Generator,
    ) -> list[Prepared]:
        """Draw samples of other images until every pair has N other images in the batch.

        They come from the corpora of the batch, in the proportions of the batch.

        Raises:
            DataError: the data hold too few images.
        """
        seen = {sample["record"].image_group for sample in prepared}
        missing = 1 + self.negatives - len(seen)
        added: list[Prepared] = []
        for _ in range(DRAWS * max(missing, 0)):
            if len(added) == missing:
                break
            dataset = datasets[keys[int(rng.integers(len(keys)))].corpus]
            try:
                record = dataset[int(rng.integers(len(dataset)))]
                if record.image_group not in seen:
                    added.append(self.prepare(record, rng) | {"fills": True})
                    seen.add(record.image_group)
            except RecordError:
                continue
        if len(seen) < 2:
            raise DataError(
                f"{', '.join(sorted(datasets))}: found a single image; mismatched pairs need others"
            )
        return added

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> NegativesBatch:
        """Join prepared samples, those that fill up last, and draw the mismatched ones."""
        own = [sample for sample in prepared if "fills" not in sample]
        joined = super().collate([*own, *(sample for sample in prepared if "fills" in sample)], rng)
        group = joined.image_group
        rows = [np.flatnonzero(group != group[row]) for row in range(len(own))]
        images, texts = (
            np.stack([rng.choice(others, self.negatives, len(others) < self.negatives) for others in rows])
            for _ in range(2)
        )
        batch = NegativesBatch(**vars(joined), negative_images=images, negative_texts=texts)
        batch.sample_ids = batch.sample_ids[: len(own)]
        return batch
