"""Pre-training batches of UNIMO-2: pairs, texts alone and images alone."""

from __future__ import annotations

from dataclasses import dataclass

from unimo.data.loading.batch import Array, Batch
from unimo.models.batches import MaskedTextBatch, PretrainBatch


@dataclass(kw_only=True)
class ViewsBatch(Batch):
    """Images alone, in two views each."""

    pixels: Array
    """[B, 3, S, S] float32, first view."""
    pixels_2: Array
    """[B, 3, S, S] float32, second view."""


@dataclass(kw_only=True)
class UnpairedBatch(Batch):
    """A batch of up to three parts; `sample_ids` are those of all parts."""

    pairs: PretrainBatch | None = None
    texts: MaskedTextBatch | None = None
    images: ViewsBatch | None = None
