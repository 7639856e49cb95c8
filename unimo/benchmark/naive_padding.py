"""UNIMO as described in appendix A: every sample is an image and a text of full length, pseudo parts masked.

This is the slow side of the benchmark of sequences, and shows that the fast side computes the same: a batch
of `UnifiedCollator` padded to full length, and a model that adds a pseudo image to every text alone and a
pseudo text to every image alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from unimo.models.base import Outputs
from unimo.models.unimo.batches import UnifiedBatch, UnifiedPart
from unimo.models.unimo.model import Unimo
from unimo.nn.outputs import Encoded


class PaddedUnimo:
    """A model without its short cut for single modalities; everything else is the model's own.

    Args:
        model: the model.
        regions: number of regions of an image, without [IMG].
        tokens: number of tokens of a text.

    Attributes:
        pseudo_ids: token ids of a pseudo text, [1, tokens], which do not affect any result.
        pseudo_features: features of a pseudo image, [1, regions, F], which do not affect any result.
    """

    def __init__(self, model: Unimo, regions: int, tokens: int) -> None:
        self.model = model
        self.pseudo_ids = paddle.full([1, tokens], model.config.text.padding_id, "int64")
        self.pseudo_features = paddle.zeros([1, regions, model.config.regions.feature_size])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def fuse(self, text: Encoded | None, image: Encoded | None, *, outputs: Outputs = "all") -> Encoded:
        """Fuse like the model, but always both parts: a missing one is a pseudo part, masked out."""
        model = self.model
        if text is not None and image is not None:
            return model.fuse(text, image, outputs=outputs)
        if text is None:
            ids = self.pseudo_ids.expand([image.image.shape[0], -1])
            pseudo = model.encode_text(ids, paddle.zeros_like(ids))
            states = model.fuse(pseudo, image, outputs="text").fused_image
            return Encoded(fused_image=states, pooled=model.image_pooler(states))
        features = self.pseudo_features.expand([text.text.shape[0], -1, -1])
        rows, count, _ = features.shape
        places, mask = paddle.zeros([rows, count, 5]), paddle.zeros([rows, count])
        vectors, mask = model.regions({"features": features, "locations": places, "mask": mask})
        pseudo = Encoded(image=vectors, image_mask=paddle.zeros_like(mask))
        states = model.fuse(text, pseudo, outputs="text").fused_text
        return Encoded(fused_text=states, pooled=model.text_pooler(states))

    def text_vector(self, text: Encoded) -> Tensor:
        """Return the pooled h_[CLS] [B, H] next to a pseudo image."""
        return self.fuse(text, None).pooled

    def image_vector(self, image: Encoded) -> Tensor:
        """Return the pooled h_[IMG] [B, H] next to a pseudo text."""
        return self.fuse(None, image).pooled


def pad_batch(batch: UnifiedBatch, regions: int, tokens: int, padding_id: int) -> UnifiedBatch:
    """Return the same samples and targets in arrays of full length.

    Args:
        batch: NumPy arrays.
        regions: number of regions of every image; no image has more.
        tokens: number of tokens of every text; no text has more.
        padding_id: id of the padding token and of its position.
    """

    def pad_text(text: Mapping[str, Any]) -> dict[str, np.ndarray]:
        fills = {"input_ids": padding_id, "positions": padding_id}
        fields = ("input_ids", "attention_mask", "positions", "is_target")
        known = [name for name in fields if text.get(name) is not None]
        return {name: _widen(text[name], tokens, fills.get(name, 0)) for name in known}

    def pad_regions(pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: _widen(array, regions, 0) for name, array in pictures.items()}

    def pad_part(part: UnifiedPart | None) -> UnifiedPart | None:
        if part is None:
            return None
        language, vision, contrast = part.language, part.vision, part.contrast
        if language is not None:
            width = language.input_ids.shape[1]
            language = replace(
                language,
                **pad_text(vars(language)),
                mlm_positions=_moved(language.mlm_positions, width, tokens),
                seq2seq_positions=_moved(language.seq2seq_positions, width, tokens),
            )
        if vision is not None:
            positions = _moved(vision.positions, 1 + vision.regions["mask"].shape[1], 1 + regions)
            vision = replace(vision, regions=pad_regions(vision.regions), positions=positions)
        if contrast is not None:
            contrast = replace(
                contrast,
                regions=pad_regions(contrast.regions),
                captions=pad_text(contrast.captions),
                related=contrast.related and pad_text(contrast.related),
            )
        return replace(part, language=language, vision=vision, contrast=contrast)

    return replace(
        batch, pairs=pad_part(batch.pairs), texts=pad_part(batch.texts), images=pad_part(batch.images)
    )


def _widen(array: np.ndarray, width: int, fill: int) -> np.ndarray:
    """Pad [B, N, ...] to [B, width, ...]."""
    missing = [(0, 0), (0, width - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, missing, constant_values=fill)


def _moved(places: np.ndarray, width: int, new_width: int) -> np.ndarray:
    """Convert flat indices into rows of `width` to flat indices into rows of `new_width`."""
    return places // width * new_width + places % width
