"""Pictures and texts of the built-in corpus as files, which stand in for files of the user's own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unimo.data.prepare.writer import Progress, no_progress
from unimo.data.readers.base import Kind
from unimo.data.readers.jsonl import HASHED_SPLITS, hash_split
from unimo.data.record import Record
from unimo.data.scenes.dataset import ScenesDataset
from unimo.errors import ConfigError
from unimo.files import make_folder, write_text
from unimo.settings import ScenesConfig

KINDS: tuple[Kind, ...] = ("pairs", "vqa", "gqa", "entailment", "nlvr2")
_SIDES = ("left", "right")


def prepare_scenes(
    out: str | Path, kind: Kind = "pairs", count: int = 100, progress: Progress = no_progress
) -> dict[str, Any]:
    """Write training pictures of `scenes` to `<out>/images/` and their texts to `<out>/<kind>.jsonl`.

    No file name says which split it is, so that readers deal the pictures out by hash. Lines of `nlvr2` say
    their split: the four pairs of a sentence are of one, as each picture is in two of them.

    Args:
        count: number of pictures; of `nlvr2` the number of sentences, each with two left and two right
            pictures.

    Returns:
        The numbers of pictures and texts, and the file of texts.

    Raises:
        ConfigError: no such kind, or `out` cannot be written to.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind {kind!r} of scenes has no files; known: {', '.join(KINDS)}")
    images = make_folder(Path(out) / "images", "--out")
    scenes, lines, written = ScenesDataset(kind, "train", ScenesConfig(train_images=count)), [], set()
    numbers = list(map(str, range(count)))
    split_of = {place: split for split in HASHED_SPLITS for place in hash_split(numbers, split).tolist()}
    for number in progress(range(count), total=count, what="draw"):
        for turn in range(scenes.texts_per_image):
            record = scenes[number * scenes.texts_per_image + turn]
            names = [f"images/{number}.bmp"]
            if kind == "nlvr2":
                sides = zip(_SIDES, divmod(turn, 2), strict=True)
                names = [f"images/{number}-{side}-{which}.bmp" for side, which in sides]
            for name, content in zip(names, record.images, strict=True):
                if name not in written:
                    (images.parent / name).write_bytes(content)
                    written.add(name)
            shown = {"image": names[0]} if len(names) == 1 else {"images": names, "split": split_of[number]}
            lines.append(json.dumps(shown | _texts(kind, record)))
    listing = images.parent / f"{kind}.jsonl"
    write_text(listing, "\n".join(lines) + "\n")
    return {"pictures": len(written), "texts": len(lines), "file": str(listing)}


def _texts(kind: Kind, record: Record) -> dict[str, Any]:
    if kind == "vqa":
        return {
            "question": record.text,
            "answer": record.best_answer,
            "question_type": record.question_type,
        }
    if kind == "gqa":
        facts = asdict(record.facts)
        types = {name: facts.pop(name) for name in ("structural", "semantic", "detailed")}
        own = {"question_id": record.question_id, "groups": {"global": facts.pop("group") or None}}
        said = {"question": record.text, "answer": record.best_answer, "isBalanced": facts.pop("balanced")}
        return {**said, "types": types, **own, **facts}
    if kind == "nlvr2":
        return {"text": record.text, "label": bool(record.label), "identifier": record.question_id}
    return {"text": record.text} | ({"label": record.label} if kind == "entailment" else {})
