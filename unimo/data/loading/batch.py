"""Batches: dataclasses that say shape, type and meaning of each field once, and the maker of pairs.

A batch holds NumPy arrays until `to_tensors` (unimo/tasks/base.py) replaces them by tensors. Each objective
and task declares its own batch beside the code that reads it.

Legend: B batch, T longest text of the batch, S image side, R most regions of an image, F width of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Union

import numpy as np

from unimo.data.processor import Processor, pad
from unimo.data.record import Record
from unimo.data.regions.store import StoredRegions

if TYPE_CHECKING:
    from paddle import Tensor

Array = Union[np.ndarray, "Tensor"]


class RegionArrays(TypedDict, total=False):
    """Regions of B images, padded to R."""

    features: Array
    """[B, R, F] float32."""
    locations: Array
    """[B, R, 5] float32: x1 / w, y1 / h, x2 / w, y2 / h and the share of the image's area."""
    mask: Array
    """[B, R] int64, 1 = region."""
    masked: Array
    """[B, R] int64, 1 = hidden from the model; only in pre-training."""


class TextArrays(TypedDict):
    """B texts, padded to T."""

    input_ids: Array
    """[B, T] int64 token ids, `<s>` and `</s>` included."""
    attention_mask: Array
    """[B, T] int64, 1 = token."""


@dataclass(kw_only=True)
class Batch:
    """Base of all batches."""

    sample_ids: list[str]
    """Names of the samples, for messages and result files."""


@dataclass(kw_only=True)
class PairBatch(Batch):
    """Images with a text each."""

    images: Array | RegionArrays
    """Pixels [B, 3, S, S] float32, or regions for models that read those."""
    input_ids: Array
    """[B, T] int64 token ids, `<s>` and `</s>` included."""
    attention_mask: Array
    """[B, T] int64, 1 = token."""
    image_group: Array
    """[B] int64, equal for samples that show the same image, in whichever batch and on whichever rank
    (`Record.image_group`)."""


Prepared = dict[str, Any]
"""Result of `prepare` for one record."""


class PairCollator:
    """Make a `PairBatch`. Base of the collators of tasks, which add fields (`join`) or read half a pair."""

    needs_false_image = False

    def __init__(self, processor: Processor, train: bool) -> None:
        self.processor = processor
        self.train = train

    def sources(self) -> dict[str, Callable[[Record], Any]]:
        """Return what files beside the corpora add to a record, by the setting that names them.

        A run that is resumed must find them as they were.
        """
        stored = self.processor.visual and self.processor.visual.source
        return {"data.regions": stored.of} if isinstance(stored, StoredRegions) else {}

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Decode the image and tokenize the text of one record.

        Raises:
            RecordError: either is missing or broken.
        """
        ids, words = self.processor.ids_and_words(record.text)
        return {
            "record": record,
            "ids": ids,
            "words": words,
            "image": self.processor.image(record, rng, self.train),
        }

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> PairBatch:
        """Join prepared samples; texts are padded to the longest of them."""
        return PairBatch(**self.join(prepared))

    def join(self, prepared: Sequence[Prepared]) -> dict[str, Any]:
        """Return the fields of a `PairBatch`."""
        records = [sample["record"] for sample in prepared]
        return {
            "images": self.processor.join_images([sample["image"] for sample in prepared]),
            **pad([sample["ids"] for sample in prepared], self.processor.tokenizer.pad_token_id),
            "image_group": np.array([record.image_group for record in records], np.int64),
            "sample_ids": [record.sample_id for record in records],
        }
