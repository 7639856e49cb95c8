"""The commands of tools/extract_features.py: each takes its arguments, does the work and reports results."""

from __future__ import annotations

import argparse
import colorsys
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ppdet_features import extract as extraction
from ppdet_features.config import read_names
from unimo.data.image_list import ImageList, open_images
from unimo.data.images.open import open_image
from unimo.data.record import Record
from unimo.data.regions.shard import Skipped, StoredImage, Widths, halve
from unimo.data.regions.store import INDEX, RegionStore
from unimo.data.regions.tsv import TsvRegions, write_tsv
from unimo.errors import ConfigError, DataError, RecordError
from unimo.files import make_folder
from unimo.jobs import Shard
from unimo.progress import Progress

logger = logging.getLogger("unimo.ppdet_features")
MakeProgress = Callable[[int, int], Progress]
"""Makes a progress from the numbers of all images and of those done."""
MIN_SIDE = 600
"""Drawn images whose longer side is shorter, in pixels, are enlarged to it."""
_KEPT = {"none": slice(None), "first": slice(1, None), "last": slice(None, -1)}
"""Columns of class probabilities that are kept for each `--background`."""


def extract(args: argparse.Namespace, progress: MakeProgress) -> None:
    """Extract features, and draw what `--draw` asks for; errors are those of `extraction.extract`."""
    wants_number = (args.draw or "").isdecimal()
    if not args.images and (not args.draw or wants_number):
        raise ConfigError("expected --images FOLDER (and --draw N), or --draw FILE for one image alone")
    out = make_folder(args.out, "--out")
    fields = extraction.ExtractionSettings.__dataclass_fields__
    settings = extraction.ExtractionSettings(**{name: getattr(args, name) for name in fields})
    images = open_images(args.images, args.kind, args.split, args.scenes_images) if args.images else None
    extractor = extraction.load_extractor(args.detector, args.weights)
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
    """Convert a store to TSV; errors are those of `write_tsv`."""
    store = RegionStore(args.store)
    with progress(len(store), 0) as bar:

        def counted() -> Iterator[StoredImage]:
            for image in store.images():
                yield image
                bar.update(1)

        count = write_tsv(Path(args.tsv), counted(), args.order, args.stems)
    print(f"{count} images in {args.tsv}; to read them: data.regions={args.tsv}")


def from_tsv(args: argparse.Namespace, progress: MakeProgress) -> None:
    """Convert a TSV file of the released format to a store, or resume a killed conversion.

    Raises:
        ConfigError: the names of classes cannot be read, or are not as many as the classes.
        DataError: the folder holds the work of another job, or too many lines are broken.
    """
    classes = read_names(Path(args.classes)) if args.classes else []
    table, out, kept = TsvRegions(args.tsv, args.order), Path(args.store), _KEPT[args.background]
    names = table.names()
    widths = Widths(table.feature_size, len(range(table.num_classes)[kept]))
    if classes and len(classes) != widths.classes:
        raise ConfigError(
            f"{len(classes)} names of classes, but {table.path} has {widths.classes} class probabilities "
            "(--background says whether one of them is the background)"
        )
    job = {"tsv": extraction.file_digest(table.path), "order": table.order, "background": args.background}
    shape = (len(names), args.images_per_shard, widths, {"classes": classes})
    writer = extraction.StoreWriter(out, job, *shape, label_score=0.2, part=Shard())
    missing = writer.missing()
    with progress(len(names), len(names) - sum(map(len, missing.values()))) as bar:
        for shard, numbers in missing.items():
            writer.write(shard, [_converted(table, names[i], widths, kept) for i in numbers])
            bar.update(len(numbers))
    print(_summary(writer.finish(args.max_bad_rate), out))


def _converted(table: TsvRegions, name: str, widths: Widths, kept: slice) -> StoredImage | Skipped:
    where = f"{table.path}, line {(table.find(name) or 0) + 1}"
    try:
        found = table.image(name)
        if found.regions.class_probs is not None:
            probs = found.regions.class_probs[:, kept]
            regions = dataclasses.replace(found.regions, class_probs=probs)
            labels = probs.argmax(1).astype(np.int32)
            found = dataclasses.replace(found, regions=regions, labels=labels, scores=probs.max(1))
        return halve(found, widths)
    except RecordError as error:
        reason = str(error)
        return Skipped(name, reason if reason.startswith(where) else f"{where}: {reason}")


def _summary(counts: dict[str, int], out: Path) -> str:
    mean = counts["regions"] / max(1, counts["images"])
    lines = [f"{counts['images']} images, {mean:.1f} regions each, {counts['skipped']} skipped, in {out}"]
    if counts["skipped"]:
        lines.append(f"skipped ones and why: `skipped` in {out / 'index.json'}")
    own = "data.pairs=DATA data.texts=[] data.images=[] data.tokenizer=FOLDER"
    lines.append(f"next: bash scripts/run_pretrain.sh unimo_tiny data.regions={out} {own}")
    lines.append("(DATA: captions of these images, FOLDER: tokenizer files; see docs/guides/data.md)")
    return "\n".join(lines)


def _draw_file(path: Path, extractor: extraction.Extractor, out: Path) -> Path:
    picture = open_image(path)
    prepared = extraction.Prepared(0, path.name, picture.size, extractor.prepare(picture))
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


def _save(
    picture: Image.Image, found: StoredImage, classes: Sequence[str], attributes: Sequence[str], png: Path
) -> None:
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        draw_regions(picture, found, classes, attributes).save(png, format="PNG")
    except OSError as error:
        raise DataError(f"cannot write {png}: {error.strerror or error}") from error


def draw_regions(
    image: Image.Image,
    found: StoredImage,
    classes: Sequence[str],
    attributes: Sequence[str] = (),
    least_score: float = 0.2,
) -> Image.Image:
    """Draw the box of each region with its attribute, class and probability into an RGB copy of the image.

    Regions of probabilities below `least_score` are left out, but not the best one, and attributes below 0.1.
    Names are empty where regions have none.
    """
    scale = max(1.0, MIN_SIDE / max(image.size))
    size = (round(image.width * scale), round(image.height * scale))
    canvas = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    shown = [i for i, score in enumerate(found.scores) if score >= least_score or i == found.scores.argmax()]
    for region in reversed(shown):  # the best ones on top
        label = int(found.labels[region])
        color = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(label * 0.618 % 1, 0.85, 0.8))
        x1, y1, x2, y2 = (float(side) * scale for side in found.regions.boxes[region])
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=2)
        text = f"{classes[label] if classes else ''} {found.scores[region]:.2f}"
        if found.attributes is not None and attributes:
            best = found.attributes[region].argmax()
            if found.attributes[region, best] >= 0.1:
                text = f"{attributes[best]} {text}"
        left, top, right, bottom = draw.textbbox((x1, y1), text, font=font)
        draw.rectangle((left, top - 1, right + 4, bottom + 1), fill=color)
        draw.text((x1 + 2, y1), text, font=font, fill="white")
    return canvas
