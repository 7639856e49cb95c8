"""Curves for VisualDL."""

from __future__ import annotations

from typing import Any

from unimo import distributed
from unimo.training.state import Callback, TrainState


class VisualDL(Callback):
    """Writes every logged scalar on rank 0; `visualdl --logdir OUTPUT/vdl --disable-telemetry` shows them."""

    def __init__(self) -> None:
        self._writer: Any = None

    def on_start(self, state: TrainState) -> None:
        """Open a new log file; a resumed run keeps the older ones."""
        if distributed.rank() == 0:
            from visualdl import LogWriter  # costs a second of imports

            self._writer = LogWriter(logdir=str(state.output_dir / "vdl"))

    def on_log(self, state: TrainState, values: dict[str, float]) -> None:
        self.on_evaluate(state, "train", values)

    def on_evaluate(self, state: TrainState, split: str, values: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(tag=f"{split}/{name}", step=state.step, value=value)

    def close(self, state: TrainState) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
