"""Reads of tensors by the host inside training steps, between two logs: there must be none.

On a GPU each of them waits until the device has done all that it was given. Two ways of counting:

- Methods of `paddle.Tensor` that return values to Python, operators whose output shape depends on values,
  and indices that are tensors are wrapped while steps run. It works on every device, and names the line.
- On a GPU, the profiler's record of copies from device to host and of the host's waits, whoever asked.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import traceback
from collections import Counter
from collections.abc import Callable as Function
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle
from paddle import profiler

from unimo.doctor import trial
from unimo.doctor.report import Options, Row
from unimo.errors import DataError
from unimo.files import listed, parse_json
from unimo.limits import JSON_BYTES
from unimo.training.run import train
from unimo.training.state import Callback, TrainState

STEPS, FIRST, LAST = 8, 2, 6
"""Steps of the run, which logs after the last one only; steps after FIRST up to LAST are watched."""
NAME = "host reads in a step"
READS = (
    "numpy item tolist cpu pin_memory __array__ __float__ __int__ __long__ __bool__ __nonzero__ __index__ "
    "__complex__ __format__ __repr__ __str__ __dlpack__"
).split()
SHAPED = (
    "nonzero masked_select unique unique_consecutive bincount repeat_interleave_with_tensor_index".split()
)
"""Operators that wait for values on a GPU before they know how much to allocate."""
_OWN = Path(__file__).resolve().parents[1]
_WAITS = re.compile("cuda(Stream|Device|Event)Synchronize")
_TO_HOST = re.compile("(DtoH|Device ?(->|2|to) ?(Host|Pinned))", re.IGNORECASE)


class HostReads:
    """Counts reads by the line of code that asked, while it is on."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._inside = threading.local()
        self._originals: list[tuple[Any, str, Any]] = []

    def start(self) -> None:
        """Wrap what reads."""
        operators = paddle._C_ops
        places = [(paddle.Tensor, name) for name in (*READS, "__getitem__", "__setitem__")]
        places += [(operators, name) for name in SHAPED]
        for owner, name in places:
            if hasattr(owner, name):
                original = getattr(owner, name)
                self._originals.append((owner, name, original))
                by_index = name in ("__getitem__", "__setitem__")
                setattr(owner, name, self._wrapped(original, name, by_index))

    def stop(self) -> None:
        """Put everything back."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)

    def _wrapped(self, original: Function[..., Any], name: str, by_index: bool) -> Function[..., Any]:
        @functools.wraps(original)
        def reading(*arguments: Any, **options: Any) -> Any:
            if getattr(self._inside, "is_on", False) or (by_index and not reads_values(arguments[1])):
                return original(*arguments, **options)
            self.found[f"{name} at {_caller()}"] += 1
            self._inside.is_on = True  # one read may be made of others
            try:
                return original(*arguments, **options)
            finally:
                self._inside.is_on = False

        return reading


def reads_values(index: Any) -> bool:
    """Return whether indexing must look at values: masks, and tensors as bounds of slices."""
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        bounds = (part.start, part.stop, part.step) if isinstance(part, slice) else ()
        if any(isinstance(bound, paddle.Tensor) for bound in bounds):
            return True
        if isinstance(part, paddle.Tensor) and part.dtype == paddle.bool:
            return True
    return False


def _caller() -> str:
    """Return the innermost line of the library, but for this file, or else of anything above Paddle."""
    hidden = (__file__, str(Path(paddle.__file__).parent))
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(hidden)]
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_OWN)]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


class Watch(Callback):
    """Counts from the end of step FIRST to that of step LAST, so that what is between steps counts too."""

    def __init__(self, traces: Path | None) -> None:
        self.reads = HostReads()
        self._profiler = None
        if traces is not None:
            targets = [profiler.ProfilerTarget.CPU, profiler.ProfilerTarget.GPU]
            export = profiler.export_chrome_tracing(str(traces))
            self._profiler = profiler.Profiler(targets=targets, on_trace_ready=export)

    def on_step_end(self, state: TrainState, report: object) -> None:
        if state.step == FIRST:
            if self._profiler is not None:
                paddle.device.synchronize()
                self._profiler.start()
            self.reads.start()
        elif state.step == LAST:
            self.close(state)

    def close(self, state: TrainState) -> None:
        """Stop counting."""
        self.reads.stop()
        if self._profiler is not None:
            running, self._profiler = self._profiler, None
            with contextlib.suppress(RuntimeError):  # it never began
                running.stop()


def examine(options: Options) -> list[Row]:
    """Watch the steps of a run that does not log meanwhile."""
    on_gpu = trial.set_up(options)
    with trial.scratch(options.folder) as folder:
        traces = folder / "traces" if on_gpu else None
        watch = Watch(traces)
        train(trial.small_run(options, folder / "run", STEPS, f"train.log_every={STEPS}"), [watch])
        rows = [judge(watch.reads.found)]
        if traces is not None:
            return [*rows, judge_trace(list(_events(traces)))]
    return [*rows, Row("copies to the host", "not here", "the profiler's record needs a GPU")]


def judge(found: Mapping[str, int]) -> Row:
    """Judge the reads that Python code asked for."""
    steps = LAST - FIRST
    if not found:
        return Row(NAME, "ok", f"0 in {steps} steps")
    listed = "; ".join(f"{count} x {place}" for place, count in Counter(found).most_common(5))
    return Row(NAME, "wrong", f"{sum(found.values())} in {steps} steps: {listed}",
               "keep the value a tensor until a log is due; report this table")  # fmt: skip


def judge_trace(events: Sequence[Mapping[str, Any]]) -> Row:
    """Judge the events of a profile: no copy to the host, and no wait but one for each copy to the device."""
    names = [str(event.get("name", "")) for event in events]
    to_host = [name for name in names if _TO_HOST.search(name)]
    waits = sum(bool(_WAITS.search(name)) for name in names)
    uploads = sum("HtoD" in name for name in names)
    steps = LAST - FIRST
    figure = (
        f"{len(to_host)} copies to the host, {waits} waits, {uploads} copies to the device in {steps} steps"
    )
    if not names:
        return Row("copies to the host", "wrong", "the profile is empty", "is CUPTI there? LD_LIBRARY_PATH")
    if not to_host and waits <= uploads + 1:  # the profiler itself waits when it stops
        return Row("copies to the host", "ok", figure)
    return Row("copies to the host", "wrong", figure,
               "nsys profile python tools/pretrain.py ... shows who asked; report this table")  # fmt: skip


def _events(traces: Path) -> Iterator[dict[str, Any]]:
    for path in listed(traces, "*.json"):
        content = parse_json(path.read_bytes()[:JSON_BYTES], path, DataError)
        yield from content.get("traceEvents", ())
