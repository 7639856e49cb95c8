"""Records to pre-training batches of SemVLP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unimo.data.loading.batch import Prepared
from unimo.data.loading.task_data import TaskData
from unimo.data.masking.maskers import RegionMasker
from unimo.data.processor import Processor, pad
from unimo.data.readers.answer_table import NO_ANSWER, AnswerTable, open_answer_table
from unimo.data.record import Record
from unimo.data.regions.base import Regions
from unimo.models import collate
from unimo.models.collate import pretraining_data
from unimo.models.semvlp.batches import PretrainBatch
from unimo.models.semvlp.config import PretrainingConfig
from unimo.settings import RunConfig


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Open pairs; in training batches objects are masked too."""
    return pretraining_data(
        run,
        processor,
        lambda: PretrainCollator(
            processor,
            run.task,
            open_answer_table(run.task.answers, run.data),
            run.model.objective.object_attributes,
        ),
    )


class PretrainCollator(collate.PretrainCollator):
    """Make a `PretrainBatch`.

    Args:
        processor: reads regions and texts.
        options: shares of tokens and objects to mask.
        answers: classes of the answers to questions.
        attributes: read attributes of objects.
    """

    def __init__(
        self,
        processor: Processor,
        options: PretrainingConfig,
        answers: AnswerTable,
        attributes: bool = False,
    ) -> None:
        super().__init__(processor, True, options)
        self.share, self.answers = options.object_mask_probability, answers
        self.has_attributes = attributes
        self.hide = RegionMasker(self.share) if options.mask_overlapping else None

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Read and mask the objects and the text.

        Raises:
            RecordError: something is missing or broken.
        """
        prepared = super().prepare(record, rng)
        regions: Regions = prepared["image"]
        if self.hide is not None:
            masked = self.hide(regions.boxes, rng)
            targets = self.hide.unseen(regions.boxes, masked)
        else:
            masked = targets = rng.random(len(regions)) < self.share
        prepared |= {"masked": masked, "targets": targets, "qa_label": self.answers.draw(record, rng)}
        if self.has_attributes:
            prepared["attributes"] = self.processor.visual.attributes(record)
        return prepared

    def sources(self) -> dict[str, Callable[[Record], Any]]:
        """Return what files beside the corpora add to a record: features of objects, classes of answers."""
        return {**super().sources(), "task.answers": self.answers.scores}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> PretrainBatch:
        """Join prepared samples, and drop the targets of pairs that are mismatched."""
        pairs = vars(super().collate(prepared, rng))
        matched = pairs["itm_labels"] == 1
        kept = matched[pairs["mlm_positions"] // pairs["input_ids"].shape[1]]
        pairs |= {name: pairs[name][kept] for name in ("mlm_positions", "mlm_labels")}
        masked = [sample["masked"] for sample in prepared]
        pairs["images"] = pairs["images"] | {"masked": pad(masked, 0)["input_ids"]}
        labels = np.array([sample["qa_label"] for sample in prepared], np.int64)
        hidden = [sample["targets"] & own for sample, own in zip(prepared, matched, strict=True)]
        attributes = None
        if self.has_attributes:
            chosen = [sample["attributes"][row] for sample, row in zip(prepared, hidden, strict=True)]
            attributes = np.concatenate(chosen).astype(np.int64)
        return PretrainBatch(
            **pairs,
            **object_targets([sample["image"] for sample in prepared], hidden),
            attribute_labels=attributes,
            qa_labels=np.where(matched, labels, NO_ANSWER),
        )


def object_targets(images: Sequence[Regions], hidden: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the `object_*` and `label_*` fields of a batch.

    Args:
        images: the regions of each image.
        hidden: which of them are to be predicted, bool [R_b] each; none of an image with another's text.
    """
    rows = 1 + max(len(regions) for regions in images)
    places = [np.flatnonzero(chosen) for chosen in hidden]
    positions = np.concatenate([row * rows + 1 + found for row, found in enumerate(places)])
    pairs = list(zip(images, places, strict=True))
    features = np.concatenate([image.features[found] for image, found in pairs]).astype(np.float32)
    known, labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if images[0].class_probs is not None:
        probabilities = np.concatenate([image.class_probs[found] for image, found in pairs])
        there = probabilities.max(axis=1, initial=0) > 0
        known, labels = positions[there], probabilities[there].argmax(axis=1).astype(np.int64)
    return {
        "object_positions": positions,
        "object_features": features,
        "label_positions": known,
        "label_labels": labels,
    }
