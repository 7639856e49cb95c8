"""Pairs of padded texts and pictures, run through a converted model and, one at a time, through a reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle

Expected = Callable[[np.ndarray, np.ndarray], Any]
"""Token ids [T] and pixels [3, S, S] of one pair -> what the reading makes of it."""


class Pairs:
    """Two pairs, with texts of different lengths and a second picture each.

    Args:
        ids: smallest and largest token id, the latter left out.
        padding: id behind the shorter text.
    """

    def __init__(self, ids: tuple[int, int], padding: int, lengths: Sequence[int] = (9, 4)) -> None:
        rng = np.random.default_rng(0)
        self.ids, self.longest, self.padding = [rng.integers(*ids, n) for n in lengths], max(lengths), padding
        self.pixels, self.second = rng.normal(size=(2, len(lengths), 3, 24, 24)).astype("float32")

    def encoded(self, model: Any, **options: bool) -> tuple[Any, Any]:
        """Encode the texts, padded, and the first pictures."""
        mask = np.arange(self.longest) < np.array([len(ids) for ids in self.ids])[:, None]
        ids = np.full(mask.shape, self.padding, np.int64)
        ids[mask] = np.concatenate(self.ids)
        text = model.encode_text(*map(paddle.to_tensor, (ids, mask.astype("int64"))), **options)
        return text, model.encode_image(paddle.to_tensor(self.pixels), **options)

    def each(self, expected: Expected) -> list[Any]:
        """Compute something of each pair alone, without padding."""
        return list(map(expected, self.ids, self.pixels))

    def close(self, found: paddle.Tensor, expected: Expected | list[Any]) -> None:
        """Compare each sample, without padding, with the reading of it alone."""
        expected = expected if isinstance(expected, list) else self.each(expected)
        for row, ids, wanted in zip(found.numpy(), self.ids, expected, strict=True):
            if wanted.ndim == 2 and len(row) > len(wanted):  # padding behind the text
                row = np.concatenate([row[: len(ids)], row[self.longest :]])
            assert np.abs(row - wanted).max() < 2e-5 < np.abs(wanted).max() / 1000

    def close_of_two_pictures(self, reading: Any, made: Any) -> None:
        """Compare the logits of the task nlvr2."""
        with paddle.no_grad():
            text, image = self.encoded(made.model)
            second = made.model.encode_image(paddle.to_tensor(self.second), second=True)
            pooled = [made.model.fuse(text, one).pooled for one in (image, second)]
            logits = made.classifier(paddle.concat(pooled, axis=1))
        others = iter(self.second)

        def expected(ids: np.ndarray, pixels: np.ndarray) -> np.ndarray:
            both = reading.pooled(ids, pixels), reading.pooled(ids, next(others), 2)
            return reading.classify(np.concatenate(both), "nlvr2_classifier")

        self.close(logits, expected)
