"""Pre-training batches of three kinds of corpora: pairs, texts alone and images alone."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from unimo.data.images.transforms import build_transform
from unimo.data.loading.collate import Batch, Prepared
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.data.record import Record
from unimo.errors import RecordError
from unimo.models.batches import PretrainCollator
from unimo.models.pretrain_data import is_mixed, pretraining_data
from unimo.models.unimo2.config import PretrainingConfig
from unimo.settings import RunConfig

DEFAULT_OPTIONS = PretrainingConfig()


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Pairs, and for training texts and images alone; with these, training batches have parts."""
    if is_mixed(run) or not run.data.pairs:
        return pretraining_data(run, processor, lambda: UnpairedCollator(processor, run.task))
    return pretraining_data(run, processor)


class UnpairedCollator(PretrainCollator):
    """A batch of up to three parts; what a record has decides which part it goes to.

    `pairs` is the batch of `PretrainCollator` with `image_index` int64 [B], equal for texts of the same
    image, on whichever rank. `texts` has `input_ids`, `attention_mask` and the `mlm_*`
    arrays. `images` has `pixels` and `pixels_2` [B, 3, S, S], two views of each image. A part without
    samples is absent. `sample_ids` are those of all parts.

    Args:
        processor: image transform and tokenizer.
        options: how texts are masked, and the transform that makes the views.
    """

    def __init__(self, processor: Processor, options: PretrainingConfig = DEFAULT_OPTIONS) -> None:
        super().__init__(processor, True, options)
        self.view = build_transform(options.view_transform, processor.config.image_size)

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Decode and augment what there is of an image, tokenize and mask what there is of a text.

        Raises:
            RecordError: it has neither, or something is broken.
        """
        if record.image is not None and record.text is not None:
            return {"part": "pairs", **super().prepare(record, rng)}
        if record.text is not None:
            return {"part": "texts", **self.prepare_text(record, rng)}
        if record.image is None:
            raise RecordError(f"sample {record.sample_id} has neither image nor text")
        image = self.processor.open(record.image)
        first, second = (self.processor.pixels(image, rng, transform=self.view) for _ in range(2))
        return {"part": "images", "record": record, "pixels": first, "pixels_2": second}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        """Join the samples of each part."""
        parts = {name: [sample for sample in prepared if sample["part"] == name] for name in JOIN}
        batch = {name: JOIN[name](self, samples, rng) for name, samples in parts.items() if samples}
        return {**batch, "sample_ids": [sample["record"].sample_id for sample in prepared]}

    def _join_pairs(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        """Groups of images are named by numbers that all ranks would give, for contrast between them."""
        records = [sample["record"] for sample in prepared]
        names = [record.image_id or f"sample {record.sample_id}" for record in records]
        group = [
            zlib.crc32(f"{record.corpus}/{name}".encode())
            for record, name in zip(records, names, strict=True)
        ]
        return {**super().collate(prepared, rng), "image_index": np.array(group, np.int64)}

    def _join_texts(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        return self.join_texts(prepared)

    def _join_images(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        return {name: np.stack([sample[name] for sample in prepared]) for name in ("pixels", "pixels_2")}


JOIN = {
    "pairs": UnpairedCollator._join_pairs,
    "texts": UnpairedCollator._join_texts,
    "images": UnpairedCollator._join_images,
}
