"""Arrow tables in the format of ViLT, METER, BridgeTower and VLMo: a row is an image with all its texts.

Columns: pairs `image, caption, image_id`; VQA `image, questions, answers, answer_labels, answer_scores,
image_id, question_id`, of GQA also the fields of `QuestionFacts`; entailment `image, sentences, labels`;
NLVR2, where a row is two images, `image_0, image_1, questions, answers, identifier`, and `question_id` in
tables made here; segmentation `image, class_map, image_id`, two images of one size. A column `split` divides
a file whose name says none. Further columns are ignored.

The index holds only list lengths. Images are read from the file by position and never through the
memory map, so resident memory does not grow with the number of images read.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unimo.data.checks import check_id, check_text
from unimo.data.readers.answers import check_facts, check_label, check_scores, check_truth
from unimo.data.readers.base import QUESTIONS, Dataset, Kind, check_index, read_at
from unimo.data.record import Record, pair_id
from unimo.data.splits import check_said_split, read_split
from unimo.data.tables import column_names, open_table
from unimo.errors import DataError, RecordError, shown, visible
from unimo.limits import ANSWERS, IMAGE_BYTES
from unimo.metrics.gqa import QuestionFacts
from unimo.metrics.vqa import answer_type

log = logging.getLogger(__name__)
# Missing for `images` and `segmentation`: no text is read, and every row is one sample.
TEXT_COLUMN: dict[Kind, str] = {
    "pairs": "caption",
    "vqa": "questions",
    "gqa": "questions",
    "entailment": "sentences",
    "nlvr2": "questions",
    "texts": "caption",
}
PAIR_OF_IMAGES = ("image_0", "image_1")
"""Columns of the two images of a row of NLVR2; other kinds have `image`."""
CLASS_MAP = "class_map"
"""Column of segmentation beside `image`: the class of each pixel, as the file of an image."""
_FACTS = {name: 1 + isinstance(value, tuple) for name, value in vars(QuestionFacts()).items()}
"""Columns of GQA's facts, and the lists that their values lie in."""
_QUESTIONS = (
    *("image", "image_id", "split", "questions", "question_id"),
    *("answers", "answer_labels", "answer_scores"),
)
_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "pairs": ("image", "image_id", "split", "caption"),
    "vqa": _QUESTIONS,
    "gqa": (*_QUESTIONS, *_FACTS),
    "entailment": ("image", "image_id", "split", "sentences", "labels"),
    "nlvr2": (*PAIR_OF_IMAGES, "split", "questions", "answers", "identifier", "question_id"),
    "texts": ("image_id", "split", "caption"),
    "images": ("image", "image_id", "split"),
    "segmentation": ("image", CLASS_MAP, "image_id", "split"),
}
# Lists that a value of a column lies in. The lists of the texts decide how many samples there are.
_ANSWERS = {"question_id": 1, "answers": 2, "answer_labels": 2, "answer_scores": 2}
_DEPTHS: dict[Kind, dict[str, int]] = {
    "vqa": _ANSWERS,
    "gqa": _ANSWERS | _FACTS,
    "entailment": {"labels": 1},
    "nlvr2": {"answers": 1, "question_id": 1},
}


_UNREADABLE = (ValueError, OverflowError, pa.ArrowException)
"""Errors of values that Python does not have: bytes that are not UTF-8, times beyond the year 9999."""


class ArrowDataset(Dataset):
    """One Arrow file, flattened to (image row, text index) samples.

    Raises:
        DataError: missing, truncated or damaged file, or columns of another kind.
    """

    def __init__(self, path: str | Path, kind: Kind, name: str = "") -> None:
        self.path = Path(path)
        self.kind, self.may_share = kind, kind != "texts"
        self.name = name or self.path.stem
        text = TEXT_COLUMN.get(kind)
        self._map, self._table = open_table(self.path, _COLUMNS[kind])
        images = {"nlvr2": PAIR_OF_IMAGES, "texts": ()}.get(kind, ("image",))
        maps = (CLASS_MAP,) if kind == "segmentation" else ()
        needed = {*images, *maps, *([] if text is None else [text])}
        missing = needed - set(self._table.column_names)
        if missing:
            raise DataError(
                f"{self.path} has no column {' or '.join(sorted(missing))}; "
                f"found {', '.join(map(visible, column_names(self.path)))}"
            )
        self._split = read_split(self.path.stem)
        self._said = self._table.column("split") if "split" in self._table.column_names else None
        self._says_splits = self._said is not None and _says_any(self._said)
        self._starts = np.arange(len(self._table) + 1)
        if text is not None:
            # A list of nulls can be of any length without taking a byte.
            most = max(self._map.size(), self._table.column(text).nbytes)
            self._starts = _starts(self._table.column(text), f"{self.path}: column {text}", most)
        for column, depth in _DEPTHS.get(kind, {}).items():
            if column in self._table.column_names:
                _check_depth(self._table.column(column).type, depth, f"{self.path}: column {column}")
        self._images, self._maps = (
            [_ImageColumn(self.path, self._map, self._table, column) for column in columns]
            for columns in (images, maps)
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def count_images(self) -> int:
        return len(self._images) * len(self._table)

    def count_texts(self) -> int:
        return len(self) if self.kind in TEXT_COLUMN else 0

    def __getitem__(self, index: int) -> Record:
        row, which = self._locate(index)
        where = f"{self.path}, row {row}, text {which}"
        sample_id = self.sample_id(index)
        try:
            if self._says_splits:
                check_said_split(self._said[row].as_py(), self._split, where, needed=self._split is None)
            fields = self._fields(row, which, where, sample_id)
            image_id = self._image_id(row)
        except _UNREADABLE as error:
            raise RecordError(f"{where}: {_reason(error)}") from error
        if self.kind != "texts":
            images = tuple(column.read(row) for column in self._images)
            fields |= {"images": images, "image_id": image_id}
        return Record(sample_id, self.name, **fields)

    def image_source(self, index: int) -> bytes:
        row = self._locate(index)[0]
        if len(self._images) != 1:
            raise RecordError(f"{self.path}: no single image is read from a corpus of {self.kind}")
        return self._images[0].read(row)

    def sample_id(self, index: int) -> str:
        row, which = self._locate(index)
        return f"{self.path.stem}:{row}#{which}"

    def said_splits(self) -> Sequence[object]:
        if not self._says_splits:
            return ()
        said = list(map(_readable, self._said))
        return [said[row] for row in np.repeat(np.arange(len(said)), np.diff(self._starts))]

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the image row and the text index of a sample."""
        check_index(index, len(self))
        row = int(np.searchsorted(self._starts, index, side="right")) - 1
        return row, index - int(self._starts[row])

    def _fields(self, row: int, which: int, where: str, sample_id: str) -> dict[str, Any]:
        if self.kind not in TEXT_COLUMN:
            return {"class_map": self._maps[0].read(row)} if self._maps else {}
        text = self._item(TEXT_COLUMN[self.kind], row, which, where)
        if self.kind in QUESTIONS:
            answers = self._item("answers", row, which, where) or []
            scores = self._item("answer_scores", row, which, where) or []
            if len(answers) != len(scores):
                raise RecordError(f"{where}: {len(answers)} answers but {len(scores)} scores")
            answer_scores = check_scores(zip(answers, scores, strict=True), where)
            question_id = self._item("question_id", row, which, where)
            fields = {
                "text": check_text(text, where),
                "question_id": sample_id if question_id is None else check_id(question_id, where),
                "answer_scores": answer_scores,
                "question_type": answer_type(answer_scores),
            }
            if self.kind == "gqa":
                facts = {name: self._item(name, row, which, where) for name in _FACTS}
                fields["facts"] = check_facts(facts, where)
            return fields
        if self.kind == "entailment":
            if not isinstance(text, list) or len(text) != 2:
                raise RecordError(f"{where}: expected [premise, hypothesis], found {shown(text)}")
            label = check_label(self._item("labels", row, which, where), where)
            return {"text": check_text(text[1], where), "label": label}
        if self.kind == "nlvr2":
            identifier = self._item("question_id", row, which, where)
            # Tables of ViLT name the pair only.
            identifier = f"{self._pair(row)}-{which}" if identifier is None else check_id(identifier, where)
            label = check_truth(self._item("answers", row, which, where), where)
            return {"text": check_text(text, where), "label": label, "question_id": identifier}
        return {"text": check_text(text, where)}

    def image_id(self, index: int) -> str:
        row = self._locate(index)[0]
        try:
            return self._image_id(row)
        except _UNREADABLE as error:
            raise RecordError(f"{self.path}, row {row}, image_id: {_reason(error)}") from error

    def _pair(self, row: int) -> str:
        """Return the name of a pair of images of NLVR2, such as `dev-850-0`."""
        known = "identifier" in self._table.column_names
        value = self._table.column("identifier")[row].as_py() if known else None
        return f"{self.path.stem}:{row}" if value is None else str(check_id(value, f"{self.path}, row {row}"))

    def _image_id(self, row: int) -> str:
        if self.kind == "nlvr2":
            return pair_id(*(f"{self._pair(row)}-img{side}.png" for side in (0, 1)))
        known = "image_id" in self._table.column_names
        value = self._table.column("image_id")[row].as_py() if known else None
        if value is None:
            return f"{self.path.stem}:{row}"
        return str(check_id(value, f"{self.path}, row {row}, image_id"))

    def _item(self, column: str, row: int, which: int, where: str) -> Any:
        """Return entry `which` of a list column; None where the table has none (test splits).

        Raises:
            RecordError: the list has entries for other texts of the row, and none for this one.
        """
        if column not in self._table.column_names:
            return None
        cell = self._table.column(column)[row]
        values = cell.values if cell.is_valid else ()
        if not len(values):
            return None
        if which >= len(values):
            raise RecordError(f"{where}: column {column} has only {len(values)} entries in this row")
        return values[which].as_py()

    def answers(self) -> dict[int, str]:
        """Return the VQA answer of each label id that occurs in this table.

        Answers that are null or empty are left out: reading their questions reports them.

        Raises:
            DataError: an answer without a label, a label that is no class, or two answers of one label.
        """
        if not {"answers", "answer_labels"} <= set(self._table.column_names):
            return {}
        found: dict[int, str] = {}
        for batch in self._table.select(["answers", "answer_labels"]).to_batches():
            pairs = _leaves(batch.column("answers"), batch.column("answer_labels"), self.path)
            for answer, label in dict.fromkeys(pairs):
                try:
                    answer = check_text(answer)
                except RecordError:
                    continue
                if type(label) is not int or not 0 <= label < ANSWERS:
                    raise DataError(
                        f"{self.path}: answer {shown(answer)} has the label {shown(label)}; expected a text "
                        f"and its class, 0 to {ANSWERS - 1:,}"
                    )
                if found.setdefault(label, answer) != answer:
                    raise DataError(
                        f"{self.path}: answer {label} is {shown(answer)} in one row and "
                        f"{shown(found[label])} in another; make the table again"
                    )
        return found


class _ImageColumn:
    """The image column, read by file position: pyarrow would read values through the memory map.

    Views and dictionaries, which give no such position, are read through it.
    """

    def __init__(self, path: Path, memory: pa.MemoryMappedFile, table: pa.Table, name: str) -> None:
        column = table.column(name)
        inner = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if inner not in (pa.binary(), pa.large_binary(), pa.binary_view()):
            raise DataError(
                f"{path}: column {name}: expected binary, the bytes of image files; found {column.type}"
            )
        self._path = path
        self._chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._first_rows = np.cumsum([0] + [len(chunk) for chunk in self._chunks])
        self._ends: list[np.ndarray] = []
        width = {pa.binary(): np.int32, pa.large_binary(): np.int64}.get(column.type)
        if width is None:
            return
        buffers = [chunk.buffers() for chunk in self._chunks]
        self._ends = [
            np.frombuffer(ends, width, len(chunk) + 1, chunk.offset * np.dtype(width).itemsize)
            for chunk, (_, ends, _) in zip(self._chunks, buffers, strict=True)
        ]
        # Position of each chunk's bytes in the file; None for compressed chunks, decompressed into memory.
        memory.seek(0)
        base = memory.read_buffer(1).address
        places = [values.address - base if values else 0 for _, _, values in buffers]
        self._places = [place if 0 <= place < memory.size() else None for place in places]

    def read(self, row: int) -> bytes:
        number = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        within = row - int(self._first_rows[number])
        if not self._ends:
            content = self._chunks[number][within].as_py()
            if not content or len(content) > IMAGE_BYTES:
                size = f"{len(content or b''):,} bytes; expected 1 to {IMAGE_BYTES:,}"
                raise RecordError(f"{self._path}, row {row}: the image has {size}")
            return content
        begin, end = self._ends[number][within : within + 2].tolist()
        if begin >= end:
            raise RecordError(f"{self._path}, row {row}: the image has {end - begin} bytes")
        place = self._places[number]
        if place is None:
            return self._chunks[number][within].as_py()
        return read_at(self._path, place + begin, end - begin, IMAGE_BYTES)


def _starts(column: pa.ChunkedArray, where: str, most: int) -> np.ndarray:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise DataError(f"{where}: expected a list for each image, found {column.type}")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    if starts[-1] > most:
        raise DataError(f"{where}: the file is damaged ({starts[-1]:,} texts in {most:,} bytes)")
    return starts


def _check_depth(kind: pa.DataType, depth: int, where: str) -> None:
    """Raise DataError unless values lie in so many lists; columns of nulls have any type."""
    inner = kind
    for _ in range(depth):
        if pa.types.is_null(inner):
            return
        if not (pa.types.is_list(inner) or pa.types.is_large_list(inner)):
            expected = "a list for each text in " * (depth - 1) + "a list for each image"
            raise DataError(f"{where}: expected {expected}, found {kind}")
        inner = inner.value_type


def _leaves(answers: pa.Array, labels: pa.Array, path: Path) -> Iterator[tuple[Any, Any]]:
    """Return the (answer, label) pairs of a batch, whose lists must have the same lengths."""
    for _ in range(_DEPTHS["vqa"]["answers"]):
        counts = [_lengths(part) for part in (answers, labels)]
        if counts[0] != counts[1]:
            raise DataError(
                f"{path}: answers and answer_labels do not fit: a question has more of one of them"
            )
        if not any(counts[0]):
            return iter(())
        answers, labels = answers.flatten(), labels.flatten()
    if not (pa.types.is_integer(labels.type) or pa.types.is_null(labels.type)):
        raise DataError(f"{path}: answer_labels: expected whole numbers, found {labels.type}")
    try:
        names = answers.to_pylist() if not pa.types.is_nested(answers.type) else [None] * len(answers)
    except UnicodeDecodeError:
        names = list(map(_readable, answers))
    return zip(names, labels.to_pylist(), strict=True)


def _lengths(lists: pa.Array) -> list[int]:
    if pa.types.is_null(lists.type):
        return [0] * len(lists)
    return pc.fill_null(pc.list_value_length(lists), 0).to_pylist()


def _reason(error: Exception) -> str:
    what = "not valid UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be read"
    return f"{what}: {error}"


def _says_any(column: pa.ChunkedArray) -> bool:
    """Return whether a column has values that are neither null nor an empty text."""
    values = column if pa.types.is_nested(column.type) else column.unique()
    return any(value.is_valid and _readable(value) != "" for value in values)


def _readable(value: pa.Scalar) -> Any:
    """Return a value; None for a text that is not UTF-8, or a time beyond Python's."""
    with contextlib.suppress(*_UNREADABLE):
        return value.as_py()
    return None
