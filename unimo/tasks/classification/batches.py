"""Batches for classification: texts alone or images alone, with a class or a score.

Legend: B batch, T longest text of the batch, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unimo.data.checks import check_text
from unimo.data.loading.batch import Array, Batch, PairCollator, Prepared, RegionArrays
from unimo.data.processor import Processor, pad
from unimo.data.record import Record
from unimo.data.tokenizers import Tokenizer
from unimo.errors import RecordError, shown
from unimo.tasks.classification.mixing import Mixing

NO_LABEL = -1
"""Label of a sample whose file has none (the test files of GLUE)."""
NO_MIXING = Mixing()


@dataclass(kw_only=True)
class TextBatch(Batch):
    """Sentences or pairs of sentences."""

    input_ids: Array
    """[B, T] int64 token ids, special ones included."""
    attention_mask: Array
    """[B, T] int64, 1 = token."""
    parts: list[str]
    """Names under which accuracy is broken down."""
    question_ids: list[int | str | None]
    """Numbers of the samples in a file of GLUE's; None of other texts."""
    labels: Array | None = None
    """[B] int64, `NO_LABEL` where there is none; None with regression."""
    scores: Array | None = None
    """[B] float32 regression targets, NaN where there is none; None with classes."""


class TextCollator(PairCollator):
    """Make a `TextBatch`; without classes, for regression. In training, labels and scores must be there.

    `separators` is that of `join_pair`.
    """

    def __init__(self, processor: Processor, num_classes: int, train: bool, separators: int) -> None:
        super().__init__(processor, train)
        self.num_classes, self.separators = num_classes, separators

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        value = record.label if self.num_classes else record.score
        if value is None and self.train:
            raise RecordError(f"sample {record.sample_id} has no {'label' if self.num_classes else 'score'}")
        if value is not None and self.num_classes:
            check_label(record, self.num_classes)
        if record.text_pair is None:
            ids = self.processor.ids(record.text)
        else:
            texts = check_text(record.text), check_text(record.text_pair)
            most = self.processor.config.max_text_len
            ids = join_pair(self.processor.tokenizer, *texts, most, self.separators)
        return {"record": record, "ids": ids}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> TextBatch:
        records = [sample["record"] for sample in prepared]
        labels = [NO_LABEL if record.label is None else record.label for record in records]
        scores = [np.nan if record.score is None else record.score for record in records]
        return TextBatch(
            **pad([sample["ids"] for sample in prepared], self.processor.tokenizer.pad_token_id),
            parts=[record.question_type for record in records],
            question_ids=[record.question_id for record in records],
            labels=np.array(labels, np.int64) if self.num_classes else None,
            scores=None if self.num_classes else np.array(scores, np.float32),
            sample_ids=[record.sample_id for record in records],
        )


def join_pair(tokenizer: Tokenizer, first: str, second: str, max_length: int, separators: int) -> list[int]:
    """Encode two texts as one sequence of at most `max_length` tokens, `<s> first </s> second </s>`.

    The longer text loses tokens at its end, the second where both are as long, until both fit.

    Args:
        separators: number of end tokens between the texts (`Paper.pair_separators`).
    """
    # A cut sentence never needs more tokens than the whole sequence may have.
    left, right = (tokenizer.encode(text, max_length)[1:-1] for text in (first, second))
    room = max(0, max_length - 2 - separators)
    left = left[: max((room + 1) // 2, room - len(right))]
    right = right[: room - len(left)]
    end = tokenizer.eos_token_id
    return [tokenizer.bos_token_id, *left, *[end] * separators, *right, end]


@dataclass(kw_only=True)
class ImageBatch(Batch):
    """Images with a class each."""

    images: Array | RegionArrays
    """Pixels [B, 3, S, S] float32, or regions for models that read those."""
    labels: Array
    """[B] int64."""
    share: float = 1.0
    """Share of its own class that each image has; the rest is of the class of the image at the same place
    from the end of the batch, with which it is mixed."""


class ImageCollator(PairCollator):
    """Make an `ImageBatch`; every record must have the label of a class. Images are mixed in training."""

    def __init__(
        self, processor: Processor, num_classes: int, train: bool, mixing: Mixing = NO_MIXING
    ) -> None:
        super().__init__(processor, train)
        self.num_classes, self.mixing = num_classes, mixing if train and mixing.alphas else None

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        check_label(record, self.num_classes)
        return {"record": record, "image": self.processor.image(record, rng, self.train)}

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> ImageBatch:
        images = self.processor.join_images([sample["image"] for sample in prepared])
        share = self.mixing(images, rng) if self.mixing else 1.0
        return ImageBatch(
            images=images,
            share=share,
            labels=np.array([sample["record"].label for sample in prepared], np.int64),
            sample_ids=[sample["record"].sample_id for sample in prepared],
        )


def check_label(record: Record, num_classes: int) -> None:
    """Check the label of a record.

    Raises:
        RecordError: it is not one of the classes.
    """
    if record.label not in range(num_classes):
        raise RecordError(
            f"sample {record.sample_id} has the label {shown(record.label)}; expected 0 to {num_classes - 1}"
        )
