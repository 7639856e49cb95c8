"""The check that no loss is infinite or not a number."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from unimo import distributed
from unimo.errors import TrainingError
from unimo.files import write_text
from unimo.training.state import Callback, StepReport, TrainState

_LISTED = 16
"""Sample ids in a message."""


class NonFiniteGuard(Callback):
    """Checks the loss of every step when metrics are read.

    That also happens before each checkpoint, so none is written after a loss that is not finite.
    """

    def on_read(self, state: TrainState, reports: Sequence[StepReport]) -> None:
        """Check the losses of the steps just read.

        Raises:
            TrainingError: on all ranks, with the step, the metrics, and the sample ids of the batch.
        """
        found = None
        report = next((r for r in reports if not math.isfinite(r.local[r.names.index("loss")])), None)
        if report is not None:
            values = {name: f"{value:g}" for name, value in zip(report.names, report.local, strict=True)}
            found = report.step, report.sample_ids, values
        # The step of the first bad loss on any rank decides; each rank names its own samples.
        bad = [entry for entry in distributed.gather(found) if entry is not None]
        if not bad:
            return
        step = min(entry[0] for entry in bad)
        ids = [sample for entry in bad if entry[0] == step for sample in entry[1]]
        numbers = next(entry[2] for entry in bad if entry[0] == step)
        path = state.output_dir / "nonfinite_batch.json"
        if distributed.rank() == 0:
            write_text(path, json.dumps({"step": step, "values": numbers, "sample_ids": ids}, indent=1))
        more = f" and {len(ids) - _LISTED} more (all in {path})" if len(ids) > _LISTED else ""
        raise TrainingError(
            f"the loss of step {step} is not finite ({', '.join(f'{k} {v}' for k, v in numbers.items())}); "
            f"its batch: {', '.join(ids[:_LISTED])}{more}. Look at these samples, or lower the learning "
            "rate; checkpoints are only from before this step"
        )
