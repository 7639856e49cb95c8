"""Records to pre-training batches of VLMo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.images.transforms import bytes_to_pixels
from unimo.data.loading.batch import Prepared
from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.masking.blocks import BlockMasker
from unimo.data.processor import Processor
from unimo.data.record import Record
from unimo.errors import ConfigError, RecordError
from unimo.models import collate
from unimo.models.batches import MaskedImageBatch
from unimo.models.collate import pretraining_data
from unimo.models.vlmo.batches import PretrainBatch
from unimo.models.vlmo.config import Config
from unimo.settings import RunConfig


class PretrainCollator(collate.PretrainCollator):
    """Make a `PretrainBatch` of pairs."""

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> PretrainBatch:
        """Join prepared samples."""
        config = self.processor.config
        scale, shift = bytes_to_pixels(config.train_transform if self.train else config.eval_transform)
        return PretrainBatch(**vars(super().collate(prepared, rng)), pixel_scale=scale, pixel_shift=shift)


class MaskedImageCollator:
    """Make a `MaskedImageBatch` of images alone.

    Args:
        processor: image transforms.
        train: use the training transform.
        config: the grid of patches.
    """

    needs_false_image = False

    def __init__(self, processor: Processor, train: bool, config: Config) -> None:
        self.processor, self.train = processor, train
        self.masker = BlockMasker(config.vision.grid)

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Decode the image of one record and mask its patches.

        Raises:
            RecordError: the image is missing or broken.
        """
        if record.image is None:
            raise RecordError(f"sample {record.sample_id} has no image")
        masked = self.masker(rng).reshape(-1)
        pixels = self.processor.pixels(record.image, rng, self.train)
        return {"record": record, "masked": masked, "pixels": pixels}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> MaskedImageBatch:
        """Join prepared samples."""
        masked = np.stack([sample["masked"] for sample in prepared])
        return MaskedImageBatch(
            images=np.stack([sample["pixels"] for sample in prepared]),
            masked=masked,
            mim_positions=np.flatnonzero(masked).astype(np.int64),
            sample_ids=[sample["record"].sample_id for sample in prepared],
        )


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Open images alone for the vision stage, and pairs or texts alone for the others.

    Raises:
        ConfigError: the vision stage without images.
    """
    if run.task.stage == "vision":
        if not run.data.images:
            raise ConfigError(
                "task.stage=vision learns from images alone, and data.images is empty; name a folder of "
                "pictures or another corpus with images, e.g. data.images=[DIR]"
            )
        return corpus_data(
            run,
            run.data.images,
            "images",
            processor,
            lambda train: MaskedImageCollator(processor, train, run.model),
        )
    train = (lambda: PretrainCollator(processor, True, run.task)) if run.data.pairs else None
    return pretraining_data(run, processor, train)
