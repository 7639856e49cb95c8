"""One sample or more a line: JSON with a folder of images, or plain sentences.

`{"image": "images/1.jpg", "text": "..."}`, one image a line. Paths are relative to the jsonl file. Lines are
located when the file is opened and parsed when read. The other keys, which the json members of tar shards
have, too:

pairs       {"text": "..."} or {"texts": ["...", "..."]} (also `caption`, `captions`)
vqa         {"question": "...", "answer": "yes"} or {"answers": [strings of the annotators]} or
            {"answers": {"yes": 1.0, "no": 0.3}}; optional question_id, question_type
gqa         as vqa; optional types, groups, entailed, isBalanced, as in GQA's own files, and valid, plausible
nlvr2       {"images": ["left.jpg", "right.jpg"], "text": "sentence", "label": true | false}, without "image";
            optional identifier
texts       as pairs, without an image
images      an image; texts with it are ignored
entailment  {"text": "hypothesis", "label": "entailment" | "neutral" | "contradiction" | 2 | 1 | 0}

A list holds several samples of one image. `split` in any of them divides a file whose name says none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unimo.data.checks import check_id, check_path, check_text
from unimo.data.readers.answers import check_label, check_scores, check_truth, read_facts
from unimo.data.readers.base import QUESTIONS, Dataset, Kind, LineFile, TextDataset, check_index
from unimo.data.record import Record, pair_id, picture_name
from unimo.data.splits import check_said_split, read_split
from unimo.errors import DataError, RecordError, shown, visible
from unimo.files import decode, parse_json, read_json
from unimo.metrics.vqa import answer_type, soft_scores

HASHED_SPLITS = ("train", "val", "test")
"""Splits that images are divided into where file names name none."""
HELD_OUT_SHARE = 0.05
"""Share of the images in val, and also in test, where file names name no split."""
MAY_SAY_SPLIT = re.compile(rb'"split"|\\u00[5-7]')
"""What any JSON text with a key `split` contains; its letters may be escaped."""


def split_item(item: Any, kind: Kind, where: str) -> list[dict[str, Any]]:
    """Split an item into one mapping for each sample, without checking texts and labels.

    They are checked by `record_fields`, so that a bad text affects only its own sample.

    Raises:
        RecordError: not a mapping, or without the key that `kind` needs.
    """
    if isinstance(item, list) and kind != "images":
        return [sample for part in item for sample in split_item(part, kind, where)]
    if not isinstance(item, Mapping):
        raise RecordError(f"{where}: expected a JSON object, found {shown(item)}")
    if kind == "images":
        return [{}]
    said = {"split": item["split"]} if "split" in item else {}
    if kind not in ("pairs", "texts"):
        key = "question" if kind in QUESTIONS else "text"
        if key not in item:
            raise RecordError(f"{where}: no {key!r}; found {', '.join(map(str, item)) or 'nothing'}")
        return [dict(item)]
    for key in ("texts", "captions"):
        if isinstance(item.get(key), list):
            return [{"text": text, **said} for text in item[key]]
    for key in ("text", "caption"):
        if key in item:
            return [{"text": item[key], **said}]
    raise RecordError(f"{where}: no 'text' or 'texts'; found {', '.join(map(str, item)) or 'nothing'}")


def count_samples(content: bytes, kind: Kind) -> int:
    """Count the samples of a JSON text; 1 if it is broken, so that reading it reports the error."""
    try:
        return len(split_item(parse_json(content, "", RecordError), kind, ""))
    except RecordError:
        return 1


def record_fields(sample: Mapping[str, Any], kind: Kind, where: str, sample_id: str) -> dict[str, Any]:
    """Convert one sample of `split_item` to fields of `Record`.

    A question without id gets that of the sample, so that predictions can be distinguished.

    Raises:
        RecordError: empty text, bad answers or unknown label.
    """
    if kind == "images":
        return {}
    if kind in ("pairs", "texts"):
        return {"text": check_text(sample["text"], where)}
    if kind == "entailment":
        return {"text": check_text(sample["text"], where), "label": check_label(sample.get("label"), where)}
    if kind == "nlvr2":
        identifier = sample.get("identifier")
        identifier = sample_id if identifier is None else check_id(identifier, f"{where}, 'identifier'")
        label = check_truth(sample.get("label"), where)
        return {"text": check_text(sample["text"], where), "label": label, "question_id": identifier}
    scores = _answer_scores(sample, where)
    question_id, group = sample.get("question_id"), sample.get("question_type")
    facts = {"facts": read_facts(sample, where)} if kind == "gqa" else {}
    return facts | {
        "text": check_text(sample["question"], where),
        "question_id": sample_id if question_id is None else check_id(question_id, f"{where}, 'question_id'"),
        "answer_scores": scores,
        "question_type": check_text(group, f"{where}, 'question_type'") if group else answer_type(scores),
    }


def _answer_scores(sample: Mapping[str, Any], where: str) -> dict[str, float]:
    """Return the scores of a question's answers; none only if the sample has no key for them, as in test."""
    answers = sample.get("answers")
    answers = sample.get("answer") if answers is None else answers
    if answers is None:
        return {}
    if not answers:
        raise RecordError(f"{where}: no answers; leave the key out of questions that have none, as in test")
    if isinstance(answers, str):
        return {check_text(answers, f"{where}, answer"): 1.0}
    if isinstance(answers, list):
        return soft_scores([check_text(answer, f"{where}, answer") for answer in answers])
    if isinstance(answers, Mapping):
        return check_scores(answers.items(), where)
    raise RecordError(f"{where}: expected answers as text, list or mapping, found {shown(answers)}")


def _is_object(item: Any) -> bool:
    return isinstance(item, dict)


class _ItemFile:
    """The objects of a JSON list, as `LineFile` has the lines of a file: annotations as ALBEF's."""

    def __init__(self, path: Path, keep: Callable[[int, bytes], bool]) -> None:
        content = read_json(path, DataError)
        if not isinstance(content, list) or (content and not any(map(_is_object, content))):
            raise DataError(
                f'{path}: expected a JSON list of objects such as {{"image": "1.jpg", "caption": "..."}}, '
                f"found {shown(content)}; of Karpathy's, VQA's and other files make tables: "
                "tools/prepare_data.py"
            )
        self.path = path
        self._items: list[tuple[int, bytes]] = []
        for number, item in enumerate(content, start=1):
            if _is_object(item) and isinstance(item.get("caption"), list):
                item["captions"] = item.pop("caption")
            line = json.dumps(item).encode()
            if keep(number, line):
                self._items.append((number, line))

    def where(self, index: int) -> str:
        return f"{self.path}, item {self._items[index][0]}"

    def sample_id(self, index: int) -> str:
        return f"{self.path.stem}:{self._items[index][0]}"

    def content(self, index: int) -> bytes:
        return self._items[index][1]


class _TokenFile(LineFile):
    """The lines of a `.token` file of Flickr8k and Flickr30k, `1.jpg#0`, TAB, caption, as objects."""

    def content(self, index: int) -> bytes:
        line = decode(super().content(index), self.where(index), RecordError)
        name, _, text = line.rstrip("\r\n").partition("\t")
        return json.dumps({"image": name.rpartition("#")[0], "text": text}).encode()


class JsonlDataset(Dataset):
    """One jsonl file, a `.json` file with a list of the same objects, or a `.token` file of Flickr30k.

    Args:
        image_root: folder that image paths are relative to; that of the file when None.

    Raises:
        DataError: missing file, or none of a sample of its images exists.
    """

    def __init__(self, path: str | Path, kind: Kind, name: str = "", image_root: Path | None = None) -> None:
        self.path = Path(path)
        self.kind, self.may_share = kind, kind != "texts"
        self.name = name or self.path.stem
        self.image_root = Path(image_root) if image_root is not None else self.path.parent
        self._split, self._says_splits = read_split(self.path.stem), False
        # For each sample its line, and its index among the samples of the line.
        self._line_of, self._which = array("q"), array("i")
        opened = {".json": _ItemFile, ".token": _TokenFile}.get(self.path.suffix.lower(), LineFile)
        self._lines = opened(self.path, self._count)
        if kind != "texts":
            self._check_images_exist()

    def _count(self, _: int, line: bytes) -> bool:
        """Add the samples of a line; return whether it has any."""
        if not line.strip():
            return False
        if not (self._split or self._says_splits) and MAY_SAY_SPLIT.search(line):
            with contextlib.suppress(RecordError):
                item = parse_json(line, "", RecordError)
                self._says_splits = isinstance(item, dict) and item.get("split") not in (None, "")
        several = self.kind != "images" and (b'"texts"' in line or b'"captions"' in line)
        count = count_samples(line, self.kind) if several else 1
        index = self._line_of[-1] + 1 if self._line_of else 0
        self._line_of.extend([index] * count)
        self._which.extend(range(count))
        return count > 0

    def _check_images_exist(self, probes: int = 20) -> None:
        missing = []
        for index in np.linspace(0, len(self) - 1, min(probes, len(self))).astype(int):
            try:
                image = self._image_names(self._item(index), self.where(index))[0]
            except RecordError:
                continue
            if os.path.isfile(self.image_root / image):  # False also for a name that is too long
                return
            missing.append(image)
        if missing:
            raise DataError(
                f"{self.path} has annotations without images: {self.image_root / missing[0]} and "
                f"{len(missing) - 1} others looked for are missing; image paths start from {self.image_root}"
            )

    def __len__(self) -> int:
        return len(self._which)

    def count_images(self) -> int | None:
        """Return None: lines may share an image."""
        return 0 if self.kind == "texts" else None

    def count_texts(self) -> int:
        return 0 if self.kind == "images" else len(self)

    def where(self, index: int) -> str:
        """Return file and line number of a sample."""
        return self._lines.where(self._line_of[index])

    def sample_id(self, index: int) -> str:
        check_index(index, len(self))
        return f"{self._lines.sample_id(self._line_of[index])}#{self._which[index]}"

    def said_splits(self) -> Sequence[object]:
        if not self._says_splits:
            return ()
        said: list[object] = []
        for index, line in enumerate(self._line_of):
            try:
                again = index and line == self._line_of[index - 1]
                said.append(said[-1] if again else self._parsed(index).get("split"))
            except RecordError:
                said.append(None)
        return said

    def image_names(self) -> list[str | None]:
        """Return the `picture_name` of each sample; None where there is none or the line is broken."""
        names: list[str | None] = []
        for index in range(len(self)):
            try:
                names.append(picture_name(self.image_id(index)))
            except RecordError:
                names.append(None)
        return names

    def image_id(self, index: int) -> str:
        check_index(index, len(self))
        item, where = self._item(index), self.where(index)
        return self._image_id(item, self._image_names(item, where), where)

    def _image_id(self, item: dict, images: Sequence[str], where: str) -> str:
        """Return the id that a line gives, or the paths of its images."""
        if self.kind != "nlvr2" and item.get("image_id") is not None:
            return str(check_id(item["image_id"], f"{where}, 'image_id'"))
        names = [self._below_root(image) for image in images]
        return pair_id(*names) if self.kind == "nlvr2" else names[0]

    def _below_root(self, image: str) -> str:
        """Return the path of an image, from the root if it lies below."""
        if os.path.isabs(image):
            below = os.path.relpath(image, self.image_root)
            image = image if below.startswith(os.pardir) else below
        return os.path.normpath(image)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        where, item, which = self.where(index), self._item(index), self._which[index]
        sample_id = self.sample_id(index)
        fields = record_fields(split_item(item, self.kind, where)[which], self.kind, where, sample_id)
        if self.kind != "texts":
            images = self._image_names(item, where)
            fields["images"] = tuple(self._image_path(image, where) for image in images)
            fields["image_id"] = self._image_id(item, images, where)
        return Record(sample_id, self.name, **fields)

    def image_source(self, index: int) -> Path:
        check_index(index, len(self))
        where = self.where(index)
        if self.kind == "nlvr2":
            raise RecordError(f"{where}: a pair of images; read the sample")
        return self._image_path(self._image_names(self._item(index), where)[0], where)

    def _image_path(self, image: str, where: str) -> Path:
        path = self.image_root / image
        try:
            size = path.stat().st_size
        except OSError as error:
            raise RecordError(f"{where}: cannot read image {visible(str(path))}: {error.strerror}") from error
        if size == 0:
            raise RecordError(f"{where}: image {visible(str(path))} has 0 bytes")
        return path

    def _item(self, index: int) -> dict:
        item = self._parsed(index)
        check_said_split(item.get("split"), self._split, self.where(index), self._says_splits)
        return item

    def _parsed(self, index: int) -> dict:
        item = parse_json(self._lines.content(self._line_of[index]), self.where(index), RecordError)
        if not isinstance(item, dict):
            raise RecordError(f"{self.where(index)}: expected a JSON object, found {shown(item)}")
        return item

    def _image_names(self, item: dict, where: str) -> tuple[str, ...]:
        """Return the paths that a line gives: of one image, of NLVR2 two."""
        names = [item.get("image")]
        if self.kind == "nlvr2":
            names = item.get("images")
            if not isinstance(names, list) or len(names) != 2:
                raise RecordError(
                    f"{where}: expected 'images': a list of two paths, the left and the right picture; found "
                    f"{shown(names if names is not None else item.get('image'))}"
                )
        return tuple(str(Path(check_path(name, where, "'image': a path"))) for name in names)


class TextLinesDataset(TextDataset):
    """A UTF-8 file with one sentence a line; empty lines are skipped.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self._lines = LineFile(path)
        self.name = name or path.stem

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self))
        text = check_text(self._lines.text(index), self._lines.where(index))
        return Record(self.sample_id(index), self.name, text=text)

    def sample_id(self, index: int) -> str:
        check_index(index, len(self))
        return self._lines.sample_id(index)


def hash_split(names: Sequence[str | None], split: str) -> np.ndarray:
    """Return indices (int64, ascending) of `split` where file names name none: 90% train, 5% val, 5% test.

    The split of an image follows from the hash of its name alone, so it does not change when other images
    are added. From three images on, val and test have at least one image each.

    Args:
        names: name of each sample's image; None for broken ones, which go to train, where the loader counts
            them.
    """
    # File names may hold bytes that are not UTF-8.
    keys = {name: hashlib.sha256(os.fsencode(name)).hexdigest() for name in names if name}
    place = {name: int(key[:16], 16) / 2**64 for name, key in keys.items()}
    ordered = sorted(place, key=place.__getitem__)
    shares = [int(value / HELD_OUT_SHARE) for value in place.values()]
    val, test = (max(1, shares.count(share)) for share in (0, 1)) if len(ordered) >= 3 else (0, 0)
    splits: dict[str | None, str] = dict.fromkeys(ordered[:val], "val")
    splits.update(dict.fromkeys(ordered[val : val + test], "test"))
    return np.array([i for i, name in enumerate(names) if splits.get(name, "train") == split], np.int64)
