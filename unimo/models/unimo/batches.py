"""Pre-training batches of UNIMO: pairs, texts and images, each masked for its own losses (sections 2.2, 2.3).

Legend: B samples of a part, R most regions of an image, T longest text, N and M targets, F width of a
feature, C classes of the detector; P pairs, I images, K captions, Q rewritten captions, L related texts, c
and d related images and texts of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

from unimo.data.loading.batch import Array, Batch, RegionArrays, TextArrays


@dataclass(kw_only=True)
class LanguageBatch:
    """Masked texts: some to predict masked tokens of (MLM), some to generate fragments of (seq2seq)."""

    input_ids: Array
    """[B, T] int64; of a text to generate from, what is left of it and behind that its fragments."""
    attention_mask: Array
    """[B, T] int64, 1 = token."""
    positions: Array
    """[B, T] int64 rows of the position table."""
    is_target: Array | None = None
    """[B, T] int64, 1 = token of a fragment, which only later tokens of its own may see; None without any."""
    mlm_positions: Array
    """[N] int64, flat positions b * T + t of masked tokens."""
    mlm_labels: Array
    """[N] int64, the tokens that were there."""
    seq2seq_positions: Array
    """[M] int64, flat positions b * T + t of states from which tokens of fragments are predicted."""
    seq2seq_labels: Array
    """[M] int64, these tokens."""


@dataclass(kw_only=True)
class VisionBatch:
    """Masked images of a part. Row 0 of an image is [IMG], so region r is row 1 + r."""

    regions: RegionArrays
    """Regions [B, R], with `masked`."""
    positions: Array
    """[N] int64, flat positions b * (1 + R) + 1 + r of the hidden regions."""
    features: Array
    """[N, F] float32, features of the hidden regions."""
    class_probs: Array | None = None
    """[N, C] float32, the detector's distribution over classes; None without a detector."""


@dataclass(kw_only=True)
class ContrastBatch:
    """Rows of contrastive learning, each image and text once.

    Images come with those that are related to them, captions with rewritten ones and related texts.
    """

    regions: RegionArrays
    """Regions [I, R] of all images."""
    image_group: Array
    """[I] int64, equal for equal images of whichever corpus and rank."""
    captions: TextArrays
    """[K + Q, T] own captions, and behind them rewritten ones."""
    related: TextArrays | None = None
    """[L, T] related texts; None without any."""
    text_ids: Array
    """[K + L] int64 of own captions and related texts, equal for equal texts."""
    image_row: Array
    """[P] int64, row of each pair's image."""
    text_row: Array
    """[P] int64, row of each pair's caption."""
    related_images: Array
    """[P, c] int64, `image_group` of the images related to each pair; -1 where there are fewer."""
    related_texts: Array
    """[P, d] int64, `text_ids` of the texts related to each pair; -1 where there are fewer."""
    rewrite_pair: Array
    """[Q'] int64, the pair that a rewritten caption belongs to. Captions of other images of the
    batch that an image is read with besides count as rewritten ones that are not true."""
    rewrite_row: Array
    """[Q'] int64, its row in `captions`."""
    rewrite_positive: Array
    """[Q'] int64, 1 = still true of the image."""


@dataclass(kw_only=True)
class UnifiedPart:
    """Pairs, texts or images of a batch; what the part does not have is None."""

    language: LanguageBatch | None = None
    vision: VisionBatch | None = None
    contrast: ContrastBatch | None = None
    """Pairs only: what cross-modal contrastive learning compares."""
    itm_image_index: Array | None = None
    """Pairs only: [B] int64, the pair of the part whose image text b is shown with for matching."""
    itm_labels: Array | None = None
    """Pairs only: [B] int64, 1 = match."""


@dataclass(kw_only=True)
class UnifiedBatch(Batch):
    """A batch of up to three parts; `sample_ids` are those of all parts."""

    pairs: UnifiedPart | None = None
    texts: UnifiedPart | None = None
    images: UnifiedPart | None = None
