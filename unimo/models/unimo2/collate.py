"""Records to pre-training batches of UNIMO-2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.images.transforms import build_transform
from unimo.data.loading.batch import Prepared
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.data.record import Record
from unimo.errors import RecordError
from unimo.models.collate import PretrainCollator, is_mixed, pretraining_data
from unimo.models.unimo2.batches import UnpairedBatch, ViewsBatch
from unimo.models.unimo2.config import PretrainingConfig
from unimo.settings import RunConfig

DEFAULT_OPTIONS = PretrainingConfig()


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Open pairs, and for training texts and images alone; with these, training batches have parts."""
    if is_mixed(run) or not run.data.pairs:
        return pretraining_data(run, processor, lambda: UnpairedCollator(processor, run.task))
    return pretraining_data(run, processor)


class UnpairedCollator(PretrainCollator):
    """Make an `UnpairedBatch`; what a record has decides which part it goes to.

    Args:
        processor: image transform and tokenizer.
        options: how texts are masked, and the transform that makes the views.
    """

    def __init__(self, processor: Processor, options: PretrainingConfig = DEFAULT_OPTIONS) -> None:
        super().__init__(processor, True, options)
        self.view = build_transform(options.view_transform, processor.config.image_size)

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Decode and augment the image, tokenize and mask the text, of those that the record has.

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

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> UnpairedBatch:
        """Join the samples of each part."""
        pairs, texts, images = (
            [sample for sample in prepared if sample["part"] == part] for part in ("pairs", "texts", "images")
        )
        return UnpairedBatch(
            pairs=super().collate(pairs, rng) if pairs else None,
            texts=self.join_texts(texts) if texts else None,
            images=_join_views(images) if images else None,
            sample_ids=[sample["record"].sample_id for sample in prepared],
        )


def _join_views(prepared: Sequence[Prepared]) -> ViewsBatch:
    names = [sample["record"].sample_id for sample in prepared]
    views = {name: np.stack([sample[name] for sample in prepared]) for name in ("pixels", "pixels_2")}
    return ViewsBatch(**views, sample_ids=names)
