"""A GPU that is not there, with memory for a given number of samples at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
import pytest
from small_run import SmallModel

from unimo import distributed
from unimo.training import probe

MESSAGE = (
    "\n\nResourceExhaustedError: \n\nOut of memory error on GPU 0. Cannot allocate 98.000244MB memory on "
    "GPU 0, 6.000000GB memory has been allocated and available memory is only 0.000000B.\n\nPlease check "
    "whether there is any other process using GPU 0."
)
"""As Paddle words it."""


class FakeGpu:
    """Raises Paddle's error in the forward or backward pass of more than `capacity` samples.

    Attributes:
        tried: sizes of all forward passes.
        emptied: how often its cache was emptied.
    """

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        capacity: int,
        raises: Callable[[str], Exception] = MemoryError,
        in_backward: bool = False,
    ) -> None:
        self.capacity, self.tried, self.emptied = capacity, [], 0
        forward, backward = SmallModel.forward, paddle.Tensor.backward

        def lack(rows: int) -> None:
            if rows > self.capacity:
                raise raises(MESSAGE)

        def limited(model: SmallModel, pixels: paddle.Tensor) -> paddle.Tensor:
            self.tried.append(pixels.shape[0])
            if not in_backward:
                lack(pixels.shape[0])
            return forward(model, pixels)

        def limited_backward(loss: paddle.Tensor, *given: Any, **options: Any) -> None:
            if in_backward:
                lack(self.tried[-1])
            backward(loss, *given, **options)

        def empty_cache() -> None:
            self.emptied += 1

        patch.setattr(SmallModel, "forward", limited)
        patch.setattr(paddle.Tensor, "backward", limited_backward)
        patch.setattr(distributed, "is_on_gpu", lambda: True)
        cuda, core = paddle.device.cuda, probe.core
        patch.setattr(cuda, "memory_allocated", lambda: core.host_memory_stat_current_value("Allocated", 0))
        patch.setattr(cuda, "max_memory_allocated", lambda: core.host_memory_stat_peak_value("Allocated", 0))
        patch.setattr(
            cuda, "reset_max_memory_allocated", lambda: core.host_memory_stat_reset_peak_value("Allocated", 0)
        )
        patch.setattr(cuda, "empty_cache", empty_cache)
