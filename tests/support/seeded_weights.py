"""Weights by seed: the same numbers wherever they are made, so that no file of them is stored."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]


def seeded(shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw float32 tensors in the order of their names.

    Factors of norms, layer scales and logarithms of scales are around 1, other numbers around 0. Matrices
    keep the scale of what they map, so that no layer is lost among the others.
    """
    rng, tensors = np.random.default_rng(seed), {}
    for name in sorted(shapes):
        shape = shapes[name]
        is_factor = len(shape) < 2 and not name.endswith("bias") and "embedding" not in name
        is_map = len(shape) in (2, 4) and "embeddings" not in name and "table" not in name
        spread = prod(shape[1:]) ** -0.5 if is_map else 0.3
        tensors[name] = rng.normal(float(is_factor), spread, shape).astype(np.float32).reshape(shape)
    return tensors
