"""Pre-training batches of SemVLP.

Legend: B batch, R most objects of an image, M masked objects that are predicted, K those of them with a
label, F width of a feature. Row 0 of an image is [IMG], so object r is row 1 + r. In training only pairs
that match have targets (section 3.3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from unimo.data.loading.batch import Array
from unimo.models import batches


@dataclass(kw_only=True)
class PretrainBatch(batches.PretrainBatch):
    """Pairs, some of whose tokens and objects are masked; `images` have `masked` objects."""

    object_positions: Array
    """[M] int64, flat positions b * (1 + R) + 1 + r of the masked objects that are predicted."""
    object_features: Array
    """[M, F] float32, what they are like."""
    label_positions: Array
    """[K] int64, those of `object_positions` that the detector has a label for."""
    label_labels: Array
    """[K] int64, the likeliest class of each."""
    attribute_labels: Array | None = None
    """[M] int64, the likeliest attribute of each masked object; None unless attributes are learned."""
    qa_labels: Array
    """[B] int64, class of the answer to a question; -1 for captions, unknown answers and, in training,
    mismatched pairs."""
