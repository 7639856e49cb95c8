"""Writing Arrow tables in bounded memory; a file gets its name only when it is complete."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from unimo.errors import DataError
from unimo.files import sync, write_text

log = logging.getLogger(__name__)
Progress = Callable[..., Iterable]
"""Wraps an iterable as tqdm does: `progress(items, total=..., desc=...)`."""

TEXTS = pa.list_(pa.string())
PAIRS_SCHEMA = pa.schema(
    {"image": pa.binary(), "caption": TEXTS, "image_id": pa.string(), "split": pa.string()}
)
VQA_SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "questions": TEXTS,
        "answers": pa.list_(TEXTS),
        "answer_labels": pa.list_(pa.list_(pa.int64())),
        "answer_scores": pa.list_(pa.list_(pa.float64())),
        "image_id": pa.int64(),
        "question_id": pa.list_(pa.int64()),
        "split": pa.string(),
    }
)
SNLI_SCHEMA = pa.schema({"image": pa.binary(), "sentences": pa.list_(TEXTS), "labels": pa.list_(pa.int64())})
_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 1000


def no_progress(items: Iterable, **_: Any) -> Iterable:
    """Return the items without showing progress."""
    return items


class ArrowWriter:
    """Context manager that writes rows to `<folder>/<stem>.arrow`, or numbered files of limited size.

    Files are flushed to disk and renamed when the block ends, and removed when it raises. They replace files
    of the same stem from an earlier run.

    Args:
        folder: folder to write to, created if needed.
        rows_per_file: rows of each of `<stem>_0.arrow`, `<stem>_1.arrow`, ...; 0 means one file.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: str | Path, stem: str, schema: pa.Schema, rows_per_file: int = 0) -> None:
        self.folder, self.stem, self.schema = Path(folder), stem, schema
        self.rows_per_file = rows_per_file
        self.rows = 0
        self.files: list[Path] = []
        self._temporary: list[Path] = []
        self._buffer: list[Mapping[str, Any]] = []
        self._buffer_bytes = 0
        self._opened = contextlib.ExitStack()

    @property
    def file_names(self) -> list[str]:
        """Names of the finished files."""
        return [path.name for path in self.files]

    def __enter__(self) -> ArrowWriter:
        with self._named_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open()
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row, a mapping of columns to values.

        Raises:
            DataError: the file cannot be written.
        """
        with self._named_errors():
            if self.rows_per_file and self.rows and self.rows % self.rows_per_file == 0:
                self._close_file()
                self._open()
            self._buffer.append(row)
            self._buffer_bytes += len(row["image"])
            self.rows += 1
            if self._buffer_bytes >= _BATCH_BYTES or len(self._buffer) >= _BATCH_ROWS:
                self._flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with self._named_errors():
                    self._close_file()
                    self._publish()
        finally:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._opened.close()
            for path in self._temporary:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            file = self.folder / self.stem
            raise DataError(f"cannot write {file}.arrow: {error}; nothing of it was kept") from error

    def _open(self) -> None:
        path = self.folder / f".{self.stem}_{len(self._temporary)}.arrow.tmp"
        self._temporary.append(path)
        sink = self._opened.enter_context(pa.OSFile(str(path), "wb"))
        self._writer = self._opened.enter_context(pa.ipc.new_file(sink, self.schema))

    def _flush(self) -> None:
        if self._buffer:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._buffer, schema=self.schema))
        self._buffer, self._buffer_bytes = [], 0

    def _close_file(self) -> None:
        self._flush()
        self._opened.close()
        sync(self._temporary[-1])

    def _publish(self) -> None:
        numbers = [f"_{number}" if self.rows_per_file else "" for number in range(len(self._temporary))]
        names = [f"{self.stem}{number}.arrow" for number in numbers]
        for path in self.folder.glob(f"{self.stem}*.arrow"):
            if re.fullmatch(re.escape(self.stem) + r"(_\d+)?\.arrow", path.name) and path.name not in names:
                log.info("removing %s of an earlier run", path)
                path.unlink()
        for temporary, name in zip(self._temporary, names, strict=True):
            temporary.replace(self.folder / name)
            self.files.append(self.folder / name)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all; its folder is created if needed.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
