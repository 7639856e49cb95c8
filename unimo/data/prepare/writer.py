"""What preparations share: writing Arrow tables in bounded memory, and reading folders of image files.

A file gets its name only when it is complete. Messages help when a path is wrong.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from unimo.data.images.open import open_image
from unimo.data.prepare.broken import BrokenRecords
from unimo.data.prepare.pictures import Pictures
from unimo.errors import DataError, RecordError
from unimo.files import checked_path, read_bytes, sync, write_text
from unimo.limits import IMAGE_BYTES
from unimo.metrics.gqa import QuestionFacts

log = logging.getLogger(__name__)
Progress = Callable[..., Iterable]
"""Wraps an iterable as `unimo.progress.tracked` does."""

TEXTS = pa.list_(pa.string())
SCHEMAS = {
    "pairs": pa.schema(
        {"image": pa.binary(), "caption": TEXTS, "image_id": pa.string(), "split": pa.string()}
    ),
    "vqa": pa.schema(
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
    ),
    "gqa": pa.schema(
        {
            "image": pa.binary(),
            "questions": TEXTS,
            "answers": pa.list_(TEXTS),
            "answer_labels": pa.list_(pa.list_(pa.int64())),
            "answer_scores": pa.list_(pa.list_(pa.float64())),
            "image_id": pa.string(),
            "question_id": TEXTS,
            "split": pa.string(),
            **dict.fromkeys(("structural", "semantic", "detailed", "group"), TEXTS),
            "entailed": pa.list_(TEXTS),
            "balanced": pa.list_(pa.bool_()),
            **dict.fromkeys(("valid", "plausible"), pa.list_(TEXTS)),
        }
    ),
    "entailment": pa.schema(
        {"image": pa.binary(), "sentences": pa.list_(TEXTS), "labels": pa.list_(pa.int64())}
    ),
    "nlvr2": pa.schema(
        {
            "image_0": pa.binary(),
            "image_1": pa.binary(),
            "questions": TEXTS,
            "answers": TEXTS,
            "identifier": pa.string(),
            "question_id": TEXTS,
        }
    ),
    "segmentation": pa.schema({"image": pa.binary(), "class_map": pa.binary(), "image_id": pa.string()}),
}
"""Columns of the tables of each kind of samples."""
_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 1000


def no_progress(items: Iterable, **_: Any) -> Iterable:
    """Return the items without showing progress."""
    return items


def facts_columns(facts: Sequence[QuestionFacts]) -> dict[str, list[Any]]:
    """Return the columns of GQA's facts in a row of an image, from those of its questions."""
    return {name: [getattr(one, name) for one in facts] for name in vars(QuestionFacts())}


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
            for old in self.folder.glob(f".{glob.escape(self.stem)}_[0-9]*.arrow.tmp"):
                old.unlink(missing_ok=True)  # of a process that was killed
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
            self._buffer_bytes += sum(len(value) for value in row.values() if isinstance(value, bytes))
            self.rows += 1
            if self._buffer_bytes >= _BATCH_BYTES or len(self._buffer) >= _BATCH_ROWS:
                self._flush()

    def check_some(self, left_out: str) -> None:
        """Check at the end that anything was written: an empty table would only fail in training.

        Args:
            left_out: which records are left out, for the message.

        Raises:
            DataError: no row was written; earlier files of the same stem stay.
        """
        if not self.rows:
            raise DataError(f"nothing is left to write to {self.stem}.arrow: {left_out}")

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


_CHECK_SIZE = 32
Names = tuple[str, ...]
Row = tuple[Names | Mapping[str, Names], Mapping[str, Any]]
"""Candidate names of the image, or of the images by their columns, and the other columns."""


def check_folder(path: str | Path, what: str) -> Path:
    """Return the path of an existing folder.

    Raises:
        DataError: it does not exist.
    """
    path = checked_path(path, DataError, "the folder")
    if not path.is_dir():
        raise DataError(f"no folder {path} with {what}; give the folder that holds them")
    return path


class ImageFolder:
    """The image files of a corpus, with a record of missing and broken ones.

    Args:
        what: description of them, for the message if there is no such folder.
        max_missing_rate: share of the requested images that may be missing or broken.
        refuse_shared: see `Pictures`.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(
        self, root: str | Path, what: str, max_missing_rate: float, refuse_shared: bool = False
    ) -> None:
        self.root, self.max_missing_rate = check_folder(root, what), max_missing_rate
        self.missing: set[str] = set()
        self.broken: dict[str, str] = {}
        self.pictures = Pictures(refuse_shared)
        self._sound: set[str] = set()

    def read(self, *candidates: str) -> bytes | None:
        """Read the first existing candidate, relative to the root; None (and counted) if it is unusable.

        An image is decoded once, at low resolution, to check that it is complete.
        """
        name = self._find(candidates)
        if name is None:
            self.missing.add(candidates[0])
            return None
        try:
            content = read_bytes(self.root / name, IMAGE_BYTES)
            if name not in self._sound:
                open_image(content, target=_CHECK_SIZE)
                self._sound.add(name)
        except (OSError, RecordError) as error:
            self.broken[name] = str(error)
            return None
        return content

    def _find(self, candidates: Iterable[str]) -> str | None:
        # Unlike `Path.is_file`, it takes names that are too long for a file.
        return next((name for name in candidates if os.path.isfile(self.root / name)), None)

    def check_present(self, wanted: Iterable[tuple[str, str, tuple[str, ...]]]) -> None:
        """Check before anything is written that enough images exist, and that each has one identity.

        Args:
            wanted: split, id and candidate names of each.

        Raises:
            DataError: more than `max_missing_rate` of them are missing; one has two ids, an id stands
                for two, or, with `refuse_shared`, one is in two splits.
        """
        total, lost = 0, []
        for split, image_id, names in wanted:
            name = self._find(names)
            self.pictures.add(split, image_id, None if name is None else self.root / name)
            total += 1
            lost += [names[0]] if name is None else []
        if total and len(lost) == total:
            raise DataError(
                f"annotations without images: none of the {total} annotated images is in {self.root}, "
                f"for example {lost[0]}; give their folder with --images"
            )
        self._check_rate(lost, total, "missing from")

    def write(self, writer: ArrowWriter, split: str, rows: Iterable[Row], texts: str, left_out: str) -> int:
        """Write rows, without those whose image is unusable; return the number of texts in a column.

        Args:
            split: what they belong to.
            rows: what to write; see `Row`.
            texts: that column.
            left_out: which records are no rows, for the message if there are none.

        Raises:
            DataError: more than `max_missing_rate` of the images read so far were missing or broken, no row
                is left, or the file cannot be written; it is removed then.
        """
        count = 0
        with writer:
            for names, columns in rows:
                wanted = names if isinstance(names, Mapping) else {"image": names}
                images = {column: self.read(*candidates) for column, candidates in wanted.items()}
                if None in images.values():
                    continue
                for column, image in images.items():
                    self.pictures.compare(split, image, wanted[column][0])
                writer.write({**images, **columns})
                count += len(columns[texts])
            lost = [*self.missing, *self.broken]
            self._check_rate(lost, len(lost) + len(self._sound), "missing or broken in")
            writer.check_some(f"{left_out}, and images that are missing or broken are left out")
        return count

    def _check_rate(self, lost: list[str], total: int, how: str) -> None:
        if total and len(lost) / total > self.max_missing_rate:
            raise DataError(
                f"{len(lost)} of {total} images are {how} {self.root} "
                f"({len(lost) / total:.1%}, allowed {self.max_missing_rate:.1%}), for example {lost[0]}; "
                "complete the folder or raise --max-missing-rate"
            )

    def finish(self, out: str | Path, summary: dict[str, Any], broken: BrokenRecords) -> dict[str, Any]:
        """Add the counts of lost images and broken records, with the first few; write `summary.json`."""
        examples = [f"{name}: not found" for name in sorted(self.missing)[:5]]
        examples += [f"{name}: {reason}" for name, reason in sorted(self.broken.items())[:5]]
        summary |= {
            "images_missing": len(self.missing),
            "images_broken": len(self.broken),
            "images_in_two_splits": self.pictures.copies,
            "broken": broken.count,
            "examples": examples + broken.examples[:5],
        }
        write_json(Path(out) / "summary.json", summary)
        return summary
