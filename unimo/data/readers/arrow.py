"""Arrow tables in the format of ViLT, METER, BridgeTower and VLMo: a row is an image with all its texts.

Columns: pairs `image, caption, image_id`; VQA `image, questions, answers, answer_labels, answer_scores,
image_id, question_id`; entailment `image, sentences, labels`. Further columns are ignored.

The index holds only list lengths. Images are read from the file by position and never through the
memory map, so resident memory does not grow with the number of images read.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unimo.data.readers.base import Dataset, Kind, check_index, check_text, read_at
from unimo.data.record import Record
from unimo.data.tables import column_names, open_table
from unimo.errors import DataError, RecordError, shown
from unimo.limits import ANSWERS
from unimo.metrics.vqa import answer_type

log = logging.getLogger(__name__)
# Missing for `images`: no text is read, and every row is one sample.
TEXT_COLUMN: dict[Kind, str] = {
    "pairs": "caption",
    "vqa": "questions",
    "entailment": "sentences",
    "texts": "caption",
}
_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "pairs": ("image", "image_id", "caption"),
    "vqa": (
        *("image", "image_id", "questions", "question_id"),
        *("answers", "answer_labels", "answer_scores"),
    ),
    "entailment": ("image", "image_id", "sentences", "labels"),
    "texts": ("image_id", "caption"),
    "images": ("image", "image_id"),
}


class ArrowDataset(Dataset):
    """One Arrow file, flattened to (image row, text index) samples.

    Raises:
        DataError: missing, truncated or damaged file, or columns of another kind.
    """

    def __init__(self, path: str | Path, kind: Kind, name: str = "") -> None:
        self.path = Path(path)
        self.kind = kind
        self.name = name or self.path.stem
        text = TEXT_COLUMN.get(kind)
        self._map, self._table = open_table(self.path, _COLUMNS[kind])
        needed = {"images": {"image"}, "texts": {text}}.get(kind, {"image", text})
        missing = needed - set(self._table.column_names)
        if missing:
            raise DataError(
                f"{self.path} has no column {' or '.join(sorted(missing))}; "
                f"found {', '.join(column_names(self.path))}"
            )
        self._starts = np.arange(len(self._table) + 1)
        if text is not None:
            # A list of nulls can be of any length without taking a byte.
            most = max(self._map.size(), self._table.column(text).nbytes)
            self._starts = _starts(self._table.column(text), f"{self.path}: column {text}", most)
        if kind != "texts":
            self._images = _ImageColumn(self.path, self._map, self._table.column("image"))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Record:
        row, which = self._locate(index)
        where = f"{self.path}, row {row}, text {which}"
        sample_id = f"{self.path.stem}:{row}#{which}"
        try:
            fields = self._fields(row, which, where, sample_id)
            image_id = self._image_id(row)
        except (UnicodeDecodeError, pa.ArrowException) as error:
            raise RecordError(f"{where}: not valid UTF-8: {error}") from error
        if self.kind != "texts":
            fields |= {"images": (self._images.read(row),), "image_id": image_id}
        return Record(sample_id, self.name, **fields)

    def image_source(self, index: int) -> bytes:
        row = self._locate(index)[0]
        if self.kind == "texts":
            raise RecordError(f"{self.path}: images are not read from a corpus of texts")
        return self._images.read(row)

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the image row and the text index of a sample."""
        check_index(index, len(self))
        row = int(np.searchsorted(self._starts, index, side="right")) - 1
        return row, index - int(self._starts[row])

    def _fields(self, row: int, which: int, where: str, sample_id: str) -> dict[str, Any]:
        if self.kind == "images":
            return {}
        text = self._item(TEXT_COLUMN[self.kind], row, which)
        if self.kind == "vqa":
            answers = self._item("answers", row, which) or []
            scores = self._item("answer_scores", row, which) or []
            if len(answers) != len(scores):
                raise RecordError(f"{where}: {len(answers)} answers but {len(scores)} scores")
            answer_scores = dict(zip(answers, scores, strict=True))
            question_id = self._item("question_id", row, which)
            return {
                "text": check_text(text, where),
                "question_id": sample_id if question_id is None else question_id,
                "answer_scores": answer_scores,
                "question_type": answer_type(answer_scores),
            }
        if self.kind == "entailment":
            if not isinstance(text, list) or len(text) != 2:
                raise RecordError(f"{where}: expected [premise, hypothesis], found {text!r}")
            return {"text": check_text(text[1], where), "label": self._item("labels", row, which)}
        return {"text": check_text(text, where)}

    def image_id(self, index: int) -> str:
        row = self._locate(index)[0]
        try:
            return self._image_id(row)
        except UnicodeDecodeError as error:
            raise RecordError(f"{self.path}, row {row}: image_id is not valid UTF-8: {error}") from error

    def _image_id(self, row: int) -> str:
        known = "image_id" in self._table.column_names
        value = self._table.column("image_id")[row].as_py() if known else None
        return f"{self.path.stem}:{row}" if value is None else str(value)

    def _item(self, column: str, row: int, which: int) -> Any:
        """Return entry `which` of a list column; None where the table has none (test splits)."""
        if column not in self._table.column_names:
            return None
        values = self._table.column(column)[row].values
        return values[which].as_py() if values is not None and which < len(values) else None

    def answers(self) -> dict[int, str]:
        """Return the VQA answer of each label id that occurs in this table.

        Raises:
            DataError: an answer without a label, a label that is no class, or an answer that is no text.
        """
        if not {"answers", "answer_labels"} <= set(self._table.column_names):
            return {}
        pairs: dict[int, str] = {}
        for batch in self._table.select(["answers", "answer_labels"]).to_batches():
            columns = (_leaves(batch.column(name)) for name in ("answer_labels", "answers"))
            try:
                found = dict(zip(*(column.to_pylist() for column in columns), strict=True))
            except (ValueError, TypeError, pa.ArrowException) as error:
                raise DataError(f"{self.path}: answers and answer_labels do not fit: {error}") from error
            for label, answer in found.items():
                if type(label) is not int or not 0 <= label < ANSWERS or not isinstance(answer, str):
                    raise DataError(
                        f"{self.path}: answer {shown(answer)} has the label {shown(label)}; expected a text "
                        f"and its class, 0 to {ANSWERS - 1:,}"
                    )
            pairs |= found
        return pairs


class _ImageColumn:
    """The image column, read by file position: pyarrow would read values through the memory map."""

    def __init__(self, path: Path, memory: pa.MemoryMappedFile, column: pa.ChunkedArray) -> None:
        width = {pa.binary(): np.int32, pa.large_binary(): np.int64}.get(column.type)
        if width is None:
            raise DataError(f"{path}: column image: expected binary, found {column.type}")
        self._path = path
        self._chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._first_rows = np.cumsum([0] + [len(chunk) for chunk in self._chunks])
        buffers = [chunk.buffers() for chunk in self._chunks]
        self._ends = [
            np.frombuffer(ends, width, len(chunk) + 1, chunk.offset * np.dtype(width).itemsize)
            for chunk, (_, ends, _) in zip(self._chunks, buffers, strict=True)
        ]
        # Position of each chunk's bytes in the file; None for compressed chunks, decompressed into memory.
        base = memory.read_buffer(1).address
        places = [values.address - base if values else 0 for _, _, values in buffers]
        self._places = [place if 0 <= place < memory.size() else None for place in places]

    def read(self, row: int) -> bytes:
        number = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        within = row - int(self._first_rows[number])
        begin, end = self._ends[number][within : within + 2].tolist()
        if begin >= end:
            raise RecordError(f"{self._path}, row {row}: the image has {end - begin} bytes")
        place = self._places[number]
        if place is None:
            return self._chunks[number][within].as_py()
        return read_at(self._path, place + begin, end - begin)


def _starts(column: pa.ChunkedArray, where: str, most: int) -> np.ndarray:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise DataError(f"{where}: expected a list for each image, found {column.type}")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    if starts[-1] > most:
        raise DataError(f"{where}: the file is damaged ({starts[-1]:,} texts in {most:,} bytes)")
    return starts


def _leaves(column: pa.Array) -> pa.Array:
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = column.flatten()
    return column
