"""Images per second of an extraction, beside a plain loop over the same network.

    python -m ppdet_features.benchmark --images DIR --detector CONFIG [--weights FILE] [--count 200]

Both sides run in this process on the same images, taking turns part by part so that other load on the
machine affects both; prints one JSON object.
"""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppdet_features import extract as extraction
from ppdet_features.extract import ExtractionSettings, detect_all
from unimo import cli
from unimo.data.image_list import ImageList, open_images
from unimo.data.regions.shard import ShardReader, Skipped
from unimo.data.regions.store import shard_path
from unimo.jobs import Shard
from unimo.progress import Progress
from unimo.ranges import Size
from unimo.training.memory import memory

SIDES = ("one_by_one", "extraction")


def compare(
    images: ImageList, extractor: extraction.Extractor, count: int, settings: ExtractionSettings
) -> dict[str, Any]:
    """Time both sides on the first `count` images, rounded up to whole files, file by file.

    Returns:
        Images per second of both, their ratio, and the largest difference of a feature.
    """
    one_by_one, size = ExtractionSettings(batch_size=1, look_ahead=1), settings.images_per_shard
    read = partial(extraction.read_image, images, extractor)
    files = [range(len(images))[i : i + size] for i in range(0, count, size)]
    spent, alone, together = np.zeros((2, 2)), {}, {}
    list(detect_all([read(0)], extractor, one_by_one))  # the first run allocates
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            start = _clocks()
            for index in file:
                alone.update(detect_all([read(index)], extractor, one_by_one))
            middle = _clocks()
            part = Shard(number, -(-len(images) // size))
            extraction.extract(
                images, extractor, Path(folder), settings, part, partial(Progress, "images", quiet=True)
            )
            spent += [middle - start, _clocks() - middle]
            with ShardReader(shard_path(Path(folder), number)) as reader:
                together |= {image.image_id: image for image in reader.images()}
    pairs = [(a, together[a.image_id]) for a in alone.values() if not isinstance(a, Skipped)]
    same = [(a, b) for a, b in pairs if a.regions.features.shape == b.regions.features.shape]
    differences = [
        float(np.abs(a.regions.features.astype(np.float32) - b.regions.features).max()) for a, b in same
    ]
    count = len(alone)
    return {
        "pictures": count,
        "regions": sum(len(a.regions) for a, _ in pairs),
        "pictures_per_second": dict(zip(SIDES, np.round(count / spent[:, 0], 3).tolist(), strict=True)),
        "cpu_seconds_a_picture": dict(zip(SIDES, np.round(spent[:, 1] / count, 4).tolist(), strict=True)),
        "ratio": round(float(spent[0, 0] / spent[1, 0]), 3),
        "pictures_with_equal_regions": len(same),
        "largest_difference_fp16": max(differences, default=0.0),
    }


def _clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Compare both sides and print the result."""
    parser = cli.arguments(
        "Images per second of an extraction and of a loop over single images.",
        "python -m ppdet_features.benchmark --images DIR --detector CONFIG --weights FILE",
    )
    parser.add_argument("--images", required=True)
    parser.add_argument("--detector", required=True, help="YAML file")
    parser.add_argument("--weights", help="file of weights; random ones from seed 0 without it")
    parser.add_argument("--count", type=cli.number(Size), default=200, help="rounded up to whole files")
    parser.add_argument("--batch-size", type=cli.number(Size), default=8)
    parser.add_argument("--images-per-shard", type=cli.number(Size), default=50)
    args = parser.parse_args()
    import paddle

    paddle.seed(0)
    images = open_images(args.images)
    extractor = extraction.load_extractor(args.detector, args.weights)
    before, _ = memory()
    settings = ExtractionSettings(batch_size=args.batch_size, images_per_shard=args.images_per_shard)
    found = compare(images, extractor, min(args.count, len(images)), settings)
    used = {"before": int(before), "peak": int(memory()[1])}
    print(json.dumps({**found, "batch_size": args.batch_size, "memory_mb": used}))


if __name__ == "__main__":
    cli.run(main)
