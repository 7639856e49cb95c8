"""Pre-training batches that several papers read: masked texts for MLM, and pairs for ITM.

Legend: B batch, T longest text of the batch, S image side, N masked tokens, F false images.
"""

from __future__ import annotations

from dataclasses import dataclass

from unimo.data.loading.batch import Array, Batch, PairBatch


@dataclass(kw_only=True)
class MaskedTextBatch(Batch):
    """Texts alone, masked for MLM."""

    input_ids: Array
    """[B, T] int64 token ids, `<s>` and `</s>` included."""
    attention_mask: Array
    """[B, T] int64, 1 = token."""
    mlm_input_ids: Array
    """[B, T] int64, `input_ids` with some tokens masked."""
    mlm_positions: Array
    """[N] int64, flat positions b * T + t of the masked tokens."""
    mlm_labels: Array
    """[N] int64, the tokens that were there."""


@dataclass(kw_only=True)
class PretrainBatch(PairBatch, MaskedTextBatch):
    """Pairs, masked for MLM and matched for ITM."""

    itm_image_index: Array
    """[B] int64, the image that text b is shown with for ITM: a row of `images`, or of `images` followed by
    `false_pixels`."""
    itm_labels: Array
    """[B] int64, 1 = match."""
    false_pixels: Array | None = None
    """[F, 3, S, S] float32, mismatched images from elsewhere in the corpus (`false_images="dataset"`)."""
