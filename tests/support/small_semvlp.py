"""A small SemVLP, and batches for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from small_models import set_parameters
from small_unimo import CLASSES, FEATURE, REGIONS, TEXT, VOCABULARY, regions, texts

from unimo import registry
from unimo.config import merge_into
from unimo.models.semvlp import SIZES
from unimo.models.semvlp.batches import PretrainBatch
from unimo.models.semvlp.config import Config
from unimo.models.semvlp.model import SemVlp
from unimo.tasks.base import to_tensors

ANSWERS, ATTRIBUTES = 3, 4


def small_config(**overrides: Any) -> Config:
    """4 layers of width 16 with 2 heads, L_s = 2, 60 tokens, features of 12 numbers, 5 classes, 4 attributes,
    3 answers; attributes are learned too."""
    parts: dict[str, Any] = {
        "text": {
            "hidden_size": 16,
            "num_layers": 4,
            "num_heads": 2,
            "intermediate_size": 32,
            "vocab_size": VOCABULARY,
            "max_position": 40,
        },
        "regions": {"feature_size": FEATURE, "num_classes": CLASSES, "num_attributes": ATTRIBUTES},
        "objective": {"answers": ANSWERS, "object_attributes": True},
    }
    for name, value in overrides.items():
        parts[name] = {**parts.get(name, {}), **value}
    return merge_into(SIZES["semvlp_tiny"], parts)


def small_semvlp(seed: int = 0, **overrides: Any) -> SemVlp:
    """The network of `small_config` with parameters from NumPy, N(0, 0.3), norm scales around 1."""
    model = registry.build_model(small_config(**overrides))
    set_parameters(model, seed)
    model.eval()
    return model


def pretrain_batch() -> PretrainBatch:
    """Four pairs: the first two match, the others have each other's image; the second text is a question."""
    masked = np.zeros((4, REGIONS), np.int64)
    masked[:, 1] = masked[1, 4] = 1
    images, words = regions(4), texts(4)
    ids = words["input_ids"].numpy()
    positions = np.array([1, TEXT + 2, TEXT + 4])
    hidden = ids.copy()
    hidden.reshape(-1)[positions] = VOCABULARY - 1
    rows = 1 + REGIONS
    objects = np.array([2, rows + 2, rows + 5])
    features = images["features"].numpy()
    batch = PretrainBatch(
        images=images | {"masked": masked},
        **words,
        image_group=np.arange(4),
        mlm_input_ids=hidden,
        mlm_positions=positions,
        mlm_labels=ids.reshape(-1)[positions],
        itm_image_index=np.array([0, 1, 3, 2]),
        itm_labels=np.array([1, 1, 0, 0]),
        object_positions=objects,
        object_features=features[[0, 1, 1], [1, 1, 4]],
        label_positions=objects[:2],
        label_labels=np.array([4, 0]),
        attribute_labels=np.array([3, 0, 1]),
        qa_labels=np.array([-1, 2, -1, -1]),
        sample_ids=[str(row) for row in range(4)],
    )
    return to_tensors(batch)
