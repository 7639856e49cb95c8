"""Pairs with mismatched ones to rank them above (UNIMO's retrieval, facts 1.7).

The release draws the mismatched images and captions of each caption from the whole data set, and reads 21
pairs for each. Here they are drawn from the batch, which is itself a random sample, so that each image is
read once; a batch of too few images is filled up with samples of the data set, which are negatives only.

Legend: B pairs to learn from, F samples that fill up, N mismatched images (and captions) of a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unimo.data.loading.collate import Batch, Prepared
from unimo.data.loading.sampler import SampleKey
from unimo.data.processor import Processor
from unimo.data.readers.base import Dataset
from unimo.errors import DataError, RecordError
from unimo.tasks.retrieval.batches import RetrievalCollator, image_key

DRAWS = 50
"""Samples that are tried for each one that is wanted."""


class NegativesCollator(RetrievalCollator):
    """Captions as `RetrievalCollator` joins them, of B + F samples; `sample_ids` are those of the B.

    Adds `negative_images` and `negative_texts` int64 [B, N], rows of the batch whose image is another than
    the pair's own: each row once, or by independent draws, as in the release, where there are fewer than N.

    Args:
        processor: reads images and texts.
        negatives: N.
    """

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
        """Samples of other images, so many that every pair has N of those in the batch.

        They are drawn uniformly from the corpora of the batch, each as often as it gave a sample.

        Raises:
            DataError: the data hold too few images.
        """
        seen = {image_key(sample["record"]) for sample in prepared}
        missing = 1 + self.negatives - len(seen)
        added: list[Prepared] = []
        for _ in range(DRAWS * max(missing, 0)):
            if len(added) == missing:
                break
            dataset = datasets[keys[int(rng.integers(len(keys)))].corpus]
            try:
                record = dataset[int(rng.integers(len(dataset)))]
                if image_key(record) not in seen:
                    added.append(self.prepare(record, rng) | {"fills": True})
                    seen.add(image_key(record))
            except RecordError:
                continue
        if len(seen) < 2:
            raise DataError(
                f"{', '.join(sorted(datasets))}: found a single image; mismatched pairs need others"
            )
        return added

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        """Join prepared samples, those that fill up last, and draw the mismatched ones."""
        own = [sample for sample in prepared if "fills" not in sample]
        batch = super().collate([*own, *(sample for sample in prepared if "fills" in sample)], rng)
        image = batch["image_index"]
        rows = [np.flatnonzero(image != image[row]) for row in range(len(own))]
        for name in ("negative_images", "negative_texts"):
            batch[name] = np.stack(
                [rng.choice(others, self.negatives, len(others) < self.negatives) for others in rows]
            )
        return batch | {"sample_ids": batch["sample_ids"][: len(own)]}
