"""Made-up region features, and stores of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unimo.data.regions.base import Regions
from unimo.data.regions.shard import Skipped, StoredImage, Widths, halve, write_shard
from unimo.data.regions.store import RegionStore, shard_path, write_index

WIDTHS = Widths(6, 3, 2)
NAMES = {"classes": ["dog", "grass", "cat"], "attributes": ["big", "red"]}


def sample(image_id: str, number: int, **changes: Any) -> StoredImage:
    """A picture of 40 x 30 pixels whose numbers follow from `number`; it has `number` % 3 + 2 regions."""
    rng = np.random.default_rng(number)
    count = len(changes.get("scores", changes.get("features", range(number % 3 + 2))))
    corners = rng.uniform(0, 15, (count, 4)).astype(np.float32)
    values = {
        "features": rng.normal(size=(count, 6)),
        "boxes": corners + np.float32([0, 0, 15, 15]),
        "class_probs": rng.uniform(size=(count, 3)),
        "scores": np.sort(rng.uniform(0.3, 1, count))[::-1],
        "labels": np.arange(count) % 3,
        **changes,
    }
    numbers = {name: np.asarray(value, np.float32) for name, value in values.items()}
    regions = Regions(numbers["features"], numbers["boxes"], 40, 30, numbers["class_probs"])
    attributes = rng.uniform(size=(count, 2)).astype(np.float32)
    return StoredImage(image_id, regions, numbers["labels"].astype(np.int32), numbers["scores"], attributes)


def write_store(folder: Path, images: list[str] | list[StoredImage], per_shard: int = 2) -> RegionStore:
    """A finished store of pictures (names stand for samples 0, 1, ...), and one that was skipped."""
    folder.mkdir(exist_ok=True)
    found = [
        sample(image, number) if isinstance(image, str) else image for number, image in enumerate(images)
    ]
    shards = -(-len(found) // per_shard)
    for shard in range(shards):
        part = [halve(image, WIDTHS) for image in found[shard * per_shard : (shard + 1) * per_shard]]
        skipped = [] if shard else [Skipped("broken.jpg", "damaged")]
        write_shard(shard_path(folder, shard), part, skipped, WIDTHS)
    write_index(folder, shards, WIDTHS, NAMES, 0.2)
    return RegionStore(folder)
