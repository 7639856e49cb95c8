"""The file of metrics, `metrics.jsonl`: a line for each log line and each evaluation."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, TextIO

from unimo import distributed
from unimo.errors import DataError
from unimo.files import parse_json, read_bytes, write_text
from unimo.limits import LOG_BYTES
from unimo.training.state import Callback, TrainState

FILE_NAME = "metrics.jsonl"


class JsonLines(Callback):
    """Writes training and evaluation metrics to a file in the output folder, on rank 0.

    A resumed run first removes the lines written after its checkpoint, so that the file reads as if the run
    had never stopped.
    """

    def __init__(self, name: str = FILE_NAME) -> None:
        self._name = name
        self._file: TextIO | None = None
        self._last: tuple[int, str] | None = None

    def on_start(self, state: TrainState) -> None:
        """Open the file, without lines of steps that will be repeated."""
        if distributed.rank() == 0:
            path = state.output_dir / self._name
            rows = cut_after(path, state.step)
            self._last = (rows[-1]["step"], rows[-1].get("split", "")) if rows else None
            self._file = path.open("a", encoding="utf8")

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        self._write({"step": state.step, "split": "train", **values})

    def on_evaluate(self, state: TrainState, split: str, values: dict[str, float]) -> None:
        """Write an evaluation line, unless a finished run that is started again would repeat its last one."""
        if self._last != (state.step, split):
            self._write({"step": state.step, "split": split, **values})

    def close(self, state: TrainState) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, row: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()


def cut_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Remove lines of later steps, an unfinished last line and what is no line; return the rows that stay.

    Raises:
        DataError: the file cannot be read, or is larger than `LOG_BYTES`.
    """
    if not path.exists():
        return []
    try:
        content = read_bytes(path, LOG_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; move it away") from error
    kept = []
    for line in content.splitlines():
        with contextlib.suppress(DataError):
            row = parse_json(line, path, DataError)
            number = row.get("step") if isinstance(row, dict) else None
            if isinstance(number, int) and number <= step:
                kept.append(row)
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in kept))
    return kept
