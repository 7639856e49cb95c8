"""Batches: dataclasses that say shape, type and meaning of each field once.

A batch holds NumPy arrays until `to_tensors` (unimo/tasks/base.py) replaces them by tensors. Each objective
and task declares its own batch beside the code that reads it.

Legend: B batch, T longest text of the batch, S image side, R most regions of an image, F width of a feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, Union

import numpy as np

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
