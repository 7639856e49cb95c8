"""Records to pre-training batches of SemVLP."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unimo.data.loading.batch import Prepared
from unimo.data.loading.task_data import TaskData
from unimo.data.masking.maskers import RegionMasker
from unimo.data.processor import Processor, pad
from unimo.data.readers.answer_table import NO_ANSWER, AnswerTable, check_answers, open_answer_table
from unimo.data.record import Record
from unimo.data.regions.base import Regions
from unimo.errors import ConfigError, DataError
from unimo.models import collate
from unimo.models.collate import pretraining_data
from unimo.models.semvlp.batches import PretrainBatch
from unimo.models.semvlp.config import PretrainingConfig
from unimo.settings import RunConfig

logger = logging.getLogger(__name__)


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Open pairs, of whose images objects are masked too. `metadata.answers` are those that are learned."""
    opened = functools.cache(lambda: open_answer_table(run.task.answers, run.data))

    def collator(train: bool) -> PretrainCollator:
        if train:
            check_answers(opened(), run.task.answers, run.data)
        answers = opened() if train else scored_answers(opened, run.model.objective.answers)
        return PretrainCollator(processor, run.task, answers, run.model.objective.object_attributes, train)

    data = pretraining_data(run, processor)
    data.collator = collator
    if run.model.objective.answers:
        with contextlib.suppress(ConfigError, DataError):  # a model is evaluated without them
            data.metadata["answers"] = opened().answers
    return data


def scored_answers(opened: Callable[[], AnswerTable], learned: int) -> AnswerTable:
    """Return the answers that a model is evaluated on: none, where it learned a number of other ones."""
    try:
        table = opened() if learned else AnswerTable(())
    except (ConfigError, DataError) as error:
        logger.warning("no answers are scored: %s", error)
        return AnswerTable(())
    if len(table) in (0, learned):
        return table
    logger.warning("no answers are scored: the model learned %d, these data have %d", learned, len(table))
    return AnswerTable(())


class PretrainCollator(collate.PretrainCollator):
    """Make a `PretrainBatch`.

    Args:
        processor: reads regions and texts.
        options: shares of tokens and objects to mask.
        answers: classes of the answers to questions.
        attributes: read attributes of objects.
        train: draw one of several answers to a question, and leave out the targets of mismatched pairs.
            Evaluation asks for the best answer, and for all targets beside the image of their pair.
    """

    def __init__(
        self,
        processor: Processor,
        options: PretrainingConfig,
        answers: AnswerTable,
        attributes: bool = False,
        train: bool = True,
    ) -> None:
        super().__init__(processor, train, options)
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
        prepared |= {"masked": masked, "targets": targets, "qa_label": self.answer(record, rng)}
        if self.has_attributes:
            prepared["attributes"] = self.processor.visual.attributes(record)
        return prepared

    def answer(self, record: Record, rng: np.random.Generator) -> int:
        """Return the class of the answer to a question; `NO_ANSWER` if there is none."""
        if self.train:
            return self.answers.draw(record, rng)
        scores = self.answers.scores(record)
        return max(scores, key=scores.get, default=NO_ANSWER)

    def sources(self) -> dict[str, Callable[[Record], Any]]:
        """Return what files beside the corpora add to a record: features of objects, classes of answers."""
        return {**super().sources(), "task.answers": self.answers.scores}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> PretrainBatch:
        """Join prepared samples, and in training drop the targets of pairs that are mismatched."""
        pairs = vars(super().collate(prepared, rng))
        matched = (pairs["itm_labels"] == 1) | (not self.train)
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
