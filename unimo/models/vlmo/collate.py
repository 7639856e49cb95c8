"""Records to pre-training batches of VLMo."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

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
from unimo.models.paper import PretrainConfig
from unimo.models.vlmo.batches import PretrainBatch
from unimo.models.vlmo.config import Config
from unimo.models.vlmo.image_views import teacher_view
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
        config: the grid of patches, and what gives the targets.

    Raises:
        ConfigError: the transform shows a teacher another image, or there is no such teacher.
    """

    needs_false_image = False

    def __init__(self, processor: Processor, train: bool, config: Config) -> None:
        self.processor, self.train = processor, train
        self.masker = BlockMasker(config.vision.grid)
        view = teacher_view(config)
        name = processor.config.train_transform if train else processor.config.eval_transform
        self.target = None if view is None else view.transform(name)

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Decode the image of one record and mask its patches.

        Raises:
            RecordError: the image is missing or broken.
        """
        if record.image is None:
            raise RecordError(f"sample {record.sample_id} has no image")
        prepared = {"record": record, "masked": self.masker(rng).reshape(-1)}
        image = self.processor.open(record.image)
        if self.target is not None:
            # The same numbers by chance take the same part of the image.
            prepared["target"] = self.target(image, copy.deepcopy(rng))
        return {**prepared, "pixels": self.processor.pixels(image, rng, self.train)}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> MaskedImageBatch:
        """Join prepared samples."""
        masked = np.stack([sample["masked"] for sample in prepared])
        return MaskedImageBatch(
            images=np.stack([sample["pixels"] for sample in prepared]),
            masked=masked,
            mim_positions=np.flatnonzero(masked).astype(np.int64),
            target_images=None if self.target is None else np.stack([x["target"] for x in prepared]),
            sample_ids=[sample["record"].sample_id for sample in prepared],
        )


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Open what the stage learns from: images alone, texts alone, or pairs.

    Raises:
        ConfigError: there is none of it.
    """
    stage = run.task.stage
    (kind,) = run.task.kinds
    corpora = getattr(run.data, kind)
    if not corpora:
        raise ConfigError(
            f"task.stage={stage} learns from {kind}, and data.{kind} is empty; name a corpus, e.g. "
            f"data.{kind}=DIR"
        )
    if stage == "vision":
        return corpus_data(
            run,
            corpora,
            kind,
            processor,
            lambda train: MaskedImageCollator(processor, train, run.model),
        )
    others = {other: [] for other in PretrainConfig().kinds if other != kind}
    run = replace(run, data=replace(run.data, **others))
    train = (lambda: PretrainCollator(processor, True, run.task)) if kind == "pairs" else None
    return pretraining_data(run, processor, train)
