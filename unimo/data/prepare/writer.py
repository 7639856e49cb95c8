"""Writing Arrow tables in bounded memory; a file gets its name only when it is complete."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
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
        stem: file name without suffix.
        schema: columns.
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
        self._sink: pa.NativeFile | None = None
        self._writer: pa.RecordBatchFileWriter | None = None

    @property
    def file_names(self) -> list[str]:
        """Names of the finished files."""
        return [path.name for path in self.files]

    def __enter__(self) -> ArrowWriter:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise self._error(error) from error
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row, a mapping of columns to values.

        Raises:
            DataError: the file cannot be written.
        """
        if self.rows_per_file and self.rows and self.rows % self.rows_per_file == 0:
            self._guarded(self._close_file)
            self._guarded(self._open)
        self._buffer.append(row)
        self._buffer_bytes += len(row["image"])
        self.rows += 1
        if self._buffer_bytes >= _BATCH_BYTES or len(self._buffer) >= _BATCH_ROWS:
            self._guarded(self._flush)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._close_file()
                self._publish()
                return
            except OSError as failure:
                self._discard()
                raise self._error(failure) from failure
        self._discard()

    def _open(self) -> None:
        path = self.folder / f".{self.stem}_{len(self._temporary)}.arrow.tmp"
        self._temporary.append(path)
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self.schema)

    def _flush(self) -> None:
        if self._buffer:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._buffer, schema=self.schema))
        self._buffer, self._buffer_bytes = [], 0

    def _close_file(self) -> None:
        self._flush()
        self._writer.close()
        self._sink.close()
        sync(self._temporary[-1])

    def _publish(self) -> None:
        names = [
            f"{self.stem}_{i}.arrow" if self.rows_per_file else f"{self.stem}.arrow"
            for i in range(len(self._temporary))
        ]
        for path in self.folder.glob(f"{self.stem}*.arrow"):
            if re.fullmatch(re.escape(self.stem) + r"(_\d+)?\.arrow", path.name) and path.name not in names:
                log.info("removing %s of an earlier run", path)
                path.unlink()
        for temporary, name in zip(self._temporary, names, strict=True):
            temporary.replace(self.folder / name)
            self.files.append(self.folder / name)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            raise self._error(error) from error

    def _discard(self) -> None:
        for resource in (self._writer, self._sink):
            try:
                if resource is not None:
                    resource.close()
            except (OSError, pa.ArrowException):
                log.debug("cannot close %s after an earlier error", self.stem)
        for path in self._temporary:
            path.unlink(missing_ok=True)

    def _error(self, error: OSError) -> DataError:
        return DataError(f"cannot write {self.folder / self.stem}.arrow: {error}; nothing of it was kept")


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
