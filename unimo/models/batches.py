"""Pre-training batches that several papers read: masked texts for MLM, masked images, and pairs for ITM.

Legend: B batch, T longest text of the batch, S image side, N masked tokens, F false images, P patches of an
image, M masked patches of all images.
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
class MaskedImageBatch(Batch):
    """Images alone, some of whose patches are masked."""

    images: Array
    """[B, 3, S, S] float32, whole."""
    masked: Array
    """[B, P] bool, True = hidden from the model."""
    mim_positions: Array
    """[M] int64, flat positions b * P + p of the masked patches."""
    target_images: Array | None = None
    """[B, 3, S', S'] float32, the same parts of the images as a frozen network reads them that gives the
    targets; None where the targets are pixels."""


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
