"""Records to pre-training batches of VLMo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.images.transforms import bytes_to_pixels
from unimo.data.loading.batch import Prepared
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.models import collate
from unimo.models.collate import pretraining_data
from unimo.models.vlmo.batches import PretrainBatch
from unimo.settings import RunConfig


class PretrainCollator(collate.PretrainCollator):
    """Make a `PretrainBatch` of pairs."""

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> PretrainBatch:
        """Join prepared samples."""
        config = self.processor.config
        scale, shift = bytes_to_pixels(config.train_transform if self.train else config.eval_transform)
        return PretrainBatch(**vars(super().collate(prepared, rng)), pixel_scale=scale, pixel_shift=shift)


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Open pairs, or texts alone."""
    train = (lambda: PretrainCollator(processor, True, run.task)) if run.data.pairs else None
    return pretraining_data(run, processor, train)
