"""What this machine can do: rate of plain matrix products, memory now and at most so far."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

MATMUL_SHAPE = (1576, 768, 3072)
"""m, k, n: the first FFN product of a base model over 8 images of 197 tokens."""


def matmul_rate(shape: tuple[int, int, int] = MATMUL_SHAPE, seconds: float = 0.5) -> float:
    """Float32 FLOP/s that Paddle reaches on one product of `shape`, repeated for `seconds`."""
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


def peak_memory(status: Path = Path("/proc/self/status")) -> int:
    """Largest resident size of this process so far, bytes."""
    size = _read_status("VmHWM", status)
    if size is not None:
        return size
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_memory(status: Path = Path("/proc/self/status")) -> int:
    """Resident size of this process now, bytes; where the system does not tell, the largest so far."""
    size = _read_status("VmRSS", status)
    return peak_memory(status) if size is None else size


def _read_status(field: str, status: Path) -> int | None:
    try:
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return None
