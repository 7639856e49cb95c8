"""The commands of tools/extract_features.py: each takes its arguments, does the work and reports results."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ppdet_features import extract as extraction
from ppdet_features.config import read_names
from ppdet_features.convert_tsv import convert_tsv
from ppdet_features.draw import draw_regions
from ppdet_features.image_list import ImageList, open_images
from ppdet_features.preprocess import Prepared
from unimo.data.images.open import open_image
from unimo.data.record import Record
from unimo.data.regions.shard import Skipped, StoredImage
from unimo.data.regions.store import INDEX, RegionStore
from unimo.data.regions.tsv import TsvRegions, write_tsv
from unimo.errors import ConfigError, DataError, RecordError
from unimo.jobs import Shard

logger = logging.getLogger("unimo.ppdet_features")
MakeProgress = Callable[[int, int], Any]
"""Makes a progress bar from the numbers of all images and of those done."""


def extract(args: argparse.Namespace, progress: MakeProgress) -> None:
    """Extract features, and draw what `--draw` asks for.

    Raises:
        UnimoError: see `extraction.extract`.
    """
    wants_number = (args.draw or "").isdigit()
    if not args.images and (not args.draw or wants_number):
        raise ConfigError("expected --images FOLDER (and --draw N), or --draw FILE for one image alone")
    fields = extraction.ExtractionSettings.__dataclass_fields__
    settings = extraction.ExtractionSettings(**{name: getattr(args, name) for name in fields})
    images = open_images(args.images, args.kind, args.split, args.scenes_images) if args.images else None
    extractor = extraction.load_extractor(args.detector, args.weights)
    out = Path(args.out)
    if args.draw and not wants_number:
        print(_draw_file(Path(args.draw), extractor, out))
    if images is None:
        return
    part = Shard.of_rank()
    counts = extraction.extract(images, extractor, out, settings, part, progress)
    if counts is None and part.rank > 0:
        return
    if counts is None:
        logger.info("this rank has finished its part; waiting for the others")
        while not (out / INDEX).exists():  # a rank that fails ends the others
            time.sleep(0.5)
        counts = RegionStore(out).counts
    if wants_number:
        _draw_first(int(args.draw), images, out)
    print(_summary(counts, out))


def draw(args: argparse.Namespace, progress: MakeProgress) -> None:
    """Draw the regions that a store has of an image file.

    Raises:
        DataError: one of them cannot be read.
    """
    path, store = Path(args.picture), RegionStore(args.store)
    found = store.image_of(Record(args.picture, store.where, (path,), image_id=args.picture))
    _save(open_image(path), found, store.classes, store.attributes, Path(args.png))
    print(args.png)


def to_tsv(args: argparse.Namespace, progress: MakeProgress) -> None:
    """Convert a store to TSV.

    Raises:
        DataError: see `write_tsv`.
    """
    store = RegionStore(args.store)
    with progress(len(store), 0) as bar:

        def counted() -> Any:
            for image in store.images():
                yield image
                bar.update(1)

        count = write_tsv(Path(args.tsv), counted(), args.order, args.stems)
    print(f"{count} images in {args.tsv}; to read them: data.regions={args.tsv}")


def from_tsv(args: argparse.Namespace, progress: MakeProgress) -> None:
    """Convert a TSV file to a store.

    Raises:
        ConfigError, DataError: see `read_names`, `convert_tsv`.
    """
    classes = read_names(Path(args.classes)) if args.classes else []
    settings = (args.background, args.images_per_shard, args.max_bad_rate)
    table = TsvRegions(args.tsv, args.order)
    print(_summary(convert_tsv(table, Path(args.store), classes, *settings, progress), Path(args.store)))


def _summary(counts: dict[str, int], out: Path) -> str:
    mean = counts["regions"] / max(1, counts["images"])
    lines = [f"{counts['images']} images, {mean:.1f} regions each, {counts['skipped']} skipped, in {out}"]
    if counts["skipped"]:
        lines.append(f"skipped ones and why: `skipped` in {out / 'index.json'}")
    own = "data.pairs=DATA data.texts=[] data.images=[] data.tokenizer=FOLDER"
    lines.append(f"next: bash scripts/run_pretrain.sh unimo_tiny data.regions={out} {own}")
    lines.append("(DATA: captions of these images, FOLDER: tokenizer files; see unimo/data/README.md)")
    return "\n".join(lines)


def _draw_file(path: Path, extractor: extraction.Extractor, out: Path) -> Path:
    picture = open_image(path)
    prepared = Prepared(0, path.name, picture.size, extractor.prepare(picture))
    ((_, found),) = extractor.run([prepared])
    if isinstance(found, Skipped):
        raise DataError(found.reason)
    png = out / f"{path.stem}.regions.png"
    _save(picture, found, extractor.names["classes"], extractor.names["attributes"], png)
    return png


def _draw_first(count: int, images: ImageList, out: Path) -> None:
    store = RegionStore(out)
    for number in range(min(count, len(images))):
        try:
            picture = open_image(images.source(number))
            found = store.image_of(Record(f"{number}", images.name, image_id=images.image_id(number)))
        except RecordError:
            continue  # it was skipped
        png = out / "pictures" / f"{number:06d}.png"
        _save(picture, found, store.classes, store.attributes, png)
        print(png)


def _save(picture: Any, found: StoredImage, classes: Any, attributes: Any, png: Path) -> None:
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        draw_regions(picture, found, classes, attributes).save(png, format="PNG")
    except OSError as error:
        raise DataError(f"cannot write {png}: {error.strerror or error}") from error
