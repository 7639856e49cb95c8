"""Pictures and texts of the built-in corpus as files, which stand in for files of the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unimo.data.prepare.writer import Progress, no_progress
from unimo.data.readers.base import Kind
from unimo.data.record import Record
from unimo.data.scenes.dataset import ScenesDataset
from unimo.errors import ConfigError
from unimo.files import make_folder, write_text
from unimo.settings import ScenesConfig

KINDS: tuple[Kind, ...] = ("pairs", "vqa", "entailment")


def prepare_scenes(
    out: str | Path, kind: Kind = "pairs", count: int = 100, progress: Progress = no_progress
) -> dict[str, Any]:
    """Write training pictures of `scenes` to `<out>/images/` and their texts to `<out>/<kind>.jsonl`.

    No file name says which split it is, so that readers deal the pictures out by hash.

    Args:
        count: number of pictures.

    Returns:
        The numbers of pictures and texts, and the file of texts.

    Raises:
        ConfigError: no such kind, or `out` cannot be written to.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind {kind!r} of scenes has no files; known: {', '.join(KINDS)}")
    images = make_folder(Path(out) / "images", "--out")
    scenes, lines = ScenesDataset(kind, "train", ScenesConfig(train_images=count)), []
    for number in progress(range(count), total=count, what="draw"):
        name = f"images/{number}.bmp"
        first = number * scenes.texts_per_image
        records = [scenes[first + turn] for turn in range(scenes.texts_per_image)]
        (images.parent / name).write_bytes(records[0].image)
        lines += [json.dumps({"image": name, **_texts(kind, record)}) for record in records]
    listing = images.parent / f"{kind}.jsonl"
    write_text(listing, "\n".join(lines) + "\n")
    return {"pictures": count, "texts": len(lines), "file": str(listing)}


def _texts(kind: Kind, record: Record) -> dict[str, Any]:
    if kind == "vqa":
        return {
            "question": record.text,
            "answer": next(iter(record.answer_scores)),
            "question_type": record.question_type,
        }
    return {"text": record.text} | ({"label": record.label} if kind == "entailment" else {})
