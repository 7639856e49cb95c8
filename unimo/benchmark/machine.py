"""Measurements on this machine: rate of plain matrix products, time of training steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paddle

MATMUL_SHAPE = (1576, 768, 3072)
"""m, k, n: the first FFN product of a base model over 8 images of 197 tokens."""


def matmul_rate(shape: tuple[int, int, int], seconds: float) -> float:
    """Measure the float32 FLOP/s that Paddle reaches on one product of `shape`, repeated for `seconds`."""
    import paddle

    m, k, n = shape
    left, right = paddle.randn([m, k]), paddle.randn([k, n])
    with paddle.no_grad():
        float(paddle.matmul(left, right)[0, 0])
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            float(paddle.matmul(left, right)[0, 0])  # reading a value waits for the product
            count += 1
    return 2.0 * m * k * n * count / (time.perf_counter() - start)


def timed_step(
    loss: Callable[[], paddle.Tensor], optimizer: paddle.optimizer.Optimizer | None = None
) -> dict[str, float]:
    """Take one training step, without an update if there is no optimizer.

    Returns:
        `loss`; `seconds` and its parts `forward`, `backward` and `update`; `processor`, the processor time of
        all threads.
    """
    began, marks = time.process_time(), [time.perf_counter()]
    minimised = loss()
    value = float(minimised)
    marks.append(time.perf_counter())
    minimised.backward()
    marks.append(time.perf_counter())
    if optimizer is not None:
        optimizer.step()
        optimizer.clear_grad()
        marks.append(time.perf_counter())
    spans = (end - start for start, end in itertools.pairwise(marks))
    parts = dict(zip(("forward", "backward", "update"), spans, strict=False))
    processor = time.process_time() - began
    return {"seconds": marks[-1] - marks[0], "loss": value, **parts, "processor": processor}
