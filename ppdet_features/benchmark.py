"""Images per second of an extraction, beside a plain loop over the same network.

    python -m ppdet_features.benchmark --images DIR --detector CONFIG [--weights FILE] [--count 200]

Both sides run in this process on the same images, taking turns part by part so that other load on the
machine affects both; prints one JSON object.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppdet_features.extract import (
    ExtractionSettings,
    Extractor,
    detect_all,
    extract,
    load_extractor,
    read_image,
)
from ppdet_features.image_list import ImageList, open_images
from ppdet_features.jobs import Progress
from unimo import cli
from unimo.data.regions.shard import Skipped
from unimo.data.regions.store import RegionStore
from unimo.jobs import Shard
from unimo.training.callbacks import memory


def compare(
    images: ImageList, extractor: Extractor, count: int, settings: ExtractionSettings
) -> dict[str, Any]:
    """Time both sides on the first `count` images, in parts of one file each.

    Returns:
        Images per second of both, their ratio, and the largest difference of a feature.
    """
    one_by_one = ExtractionSettings(batch_size=1, look_ahead=1)
    read = partial(read_image, images, extractor.prepare)
    seconds, cpu = {"one_by_one": 0.0, "extraction": 0.0}, {"one_by_one": 0.0, "extraction": 0.0}
    alone = {}
    list(detect_all([read(0)], extractor, one_by_one))  # the first run allocates
    parts = [
        range(count)[i : i + settings.images_per_shard] for i in range(0, count, settings.images_per_shard)
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(parts):
            start = time.perf_counter(), time.process_time()
            for index in part:
                alone.update(detect_all([read(index)], extractor, one_by_one))
            middle = time.perf_counter(), time.process_time()
            out = Path(folder) / str(number)
            extract(_Part(images, part), extractor, out, settings, Shard(), partial(Progress, quiet=True))
            end = time.perf_counter(), time.process_time()
            for name, begin, stop in (("one_by_one", start, middle), ("extraction", middle, end)):
                seconds[name] += stop[0] - begin[0]
                cpu[name] += stop[1] - begin[1]
        stores = [RegionStore(Path(folder) / str(number)) for number in range(len(parts))]
        together = {i.image_id: i for i in itertools.chain.from_iterable(s.images() for s in stores)}
    pairs = [(a, together[a.image_id]) for a in alone.values() if not isinstance(a, Skipped)]
    same = [(a, b) for a, b in pairs if a.regions.features.shape == b.regions.features.shape]
    differences = [
        float(np.abs(a.regions.features.astype(np.float32) - b.regions.features).max()) for a, b in same
    ]
    return {
        "pictures": count,
        "regions": sum(len(a.regions) for a, _ in pairs),
        "pictures_per_second": {name: round(count / spent, 3) for name, spent in seconds.items()},
        "cpu_seconds_a_picture": {name: round(spent / count, 4) for name, spent in cpu.items()},
        "ratio": round(seconds["one_by_one"] / seconds["extraction"], 3),
        "pictures_with_equal_regions": len(same),
        "largest_difference_fp16": max(differences, default=0.0),
    }


class _Part(ImageList):
    """Consecutive images of another list."""

    def __init__(self, whole: ImageList, numbers: range) -> None:
        self.dataset = whole.dataset
        self._indices = whole._indices[numbers.start : numbers.stop]
        self.fingerprint = f"{whole.fingerprint} {numbers}"


def main() -> None:
    """Compare both sides and print the result."""
    parser = cli.arguments(
        "Images per second of an extraction and of a loop over single images.",
        "python -m ppdet_features.benchmark --images DIR --detector CONFIG --weights FILE",
    )
    parser.add_argument("--images", required=True)
    parser.add_argument("--detector", required=True, help="YAML file")
    parser.add_argument("--weights", help="file of weights; random ones from seed 0 without it")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--images-per-shard", type=int, default=50)
    args = parser.parse_args()
    import paddle

    paddle.seed(0)
    images = open_images(args.images)
    extractor = load_extractor(args.detector, args.weights)
    before, _ = memory()
    settings = ExtractionSettings(batch_size=args.batch_size, images_per_shard=args.images_per_shard)
    found = compare(images, extractor, min(args.count, len(images)), settings)
    used = {"before": int(before), "peak": int(memory()[1])}
    print(json.dumps({**found, "batch_size": args.batch_size, "memory_mb": used}))


if __name__ == "__main__":
    cli.run(main)
