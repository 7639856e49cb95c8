"""Records to pre-training batches of SemVLP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.loading.batch import Prepared
from unimo.data.loading.task_data import TaskData
from unimo.data.masking.maskers import RegionMasker
from unimo.data.processor import Processor, pad
from unimo.data.record import Record
from unimo.data.regions.base import Regions
from unimo.errors import RecordError
from unimo.models import collate
from unimo.models.collate import pretraining_data
from unimo.models.semvlp.batches import PretrainBatch
from unimo.models.semvlp.config import PretrainingConfig
from unimo.settings import RunConfig


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Open pairs; in training batches objects are masked too."""
    answers = run.model.objective.answers
    return pretraining_data(run, processor, lambda: PretrainCollator(processor, run.task, answers))


class PretrainCollator(collate.PretrainCollator):
    """Make a `PretrainBatch`.

    Args:
        processor: reads regions and texts.
        options: shares of tokens and objects to mask.
        answers: number of classes of answers; 0 reads none.
    """

    def __init__(self, processor: Processor, options: PretrainingConfig, answers: int = 0) -> None:
        super().__init__(processor, True, options)
        self.share, self.answers = options.object_mask_probability, answers
        self.hide = RegionMasker(self.share) if options.mask_overlapping else None

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Read and mask the objects and the text.

        Raises:
            RecordError: something is missing or broken, or the answer is no class.
        """
        prepared = super().prepare(record, rng)
        regions: Regions = prepared["image"]
        if self.hide is not None:
            masked = self.hide(regions.boxes, rng)
        else:
            masked = rng.random(len(regions)) < self.share
        return {**prepared, "masked": masked, "qa_label": self.answer(record)}

    def answer(self, record: Record) -> int:
        """Return the class of the answer to a question; -1 for a caption.

        Raises:
            RecordError: it is no class of the model.
        """
        if not self.answers or record.label is None:
            return -1
        if not 0 <= record.label < self.answers:
            raise RecordError(
                f"sample {record.sample_id} has the answer {record.label}; expected a class from 0 to "
                f"{self.answers - 1} (model.objective.answers)"
            )
        return record.label

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> PretrainBatch:
        """Join prepared samples, and drop the targets of pairs that are mismatched."""
        pairs = vars(super().collate(prepared, rng))
        matched = pairs["itm_labels"] == 1
        kept = matched[pairs["mlm_positions"] // pairs["input_ids"].shape[1]]
        pairs |= {name: pairs[name][kept] for name in ("mlm_positions", "mlm_labels")}
        masked = [sample["masked"] for sample in prepared]
        pairs["images"] = pairs["images"] | {"masked": pad(masked, 0)["input_ids"]}
        labels = np.array([sample["qa_label"] for sample in prepared], np.int64)
        return PretrainBatch(
            **pairs,
            **object_targets([sample["image"] for sample in prepared], masked, matched),
            qa_labels=np.where(matched, labels, -1),
        )


def object_targets(
    images: Sequence[Regions], masked: Sequence[np.ndarray], matched: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the `object_*` and `label_*` fields of a batch.

    Args:
        images: the regions of each image.
        masked: which of them are masked, bool [R_b] each.
        matched: which images are shown with their own text, bool [B]; the others have no targets.
    """
    rows = 1 + max(len(regions) for regions in images)
    hidden = [np.flatnonzero(chosen) if own else [] for chosen, own in zip(masked, matched, strict=True)]
    hidden = [np.asarray(found, np.int64) for found in hidden]
    positions = np.concatenate([row * rows + 1 + found for row, found in enumerate(hidden)])
    pairs = list(zip(images, hidden, strict=True))
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
