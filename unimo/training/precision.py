"""Number formats of the forward and backward pass: fp32, bf16, fp16 with a loss scaler."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.distributed import fleet

from unimo import distributed
from unimo.errors import DeviceError
from unimo.settings import TrainConfig

logger = logging.getLogger(__name__)
_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def choose(train: TrainConfig) -> str:
    """Return the configured precision, or fp32 if the device does not support it and the config allows that.

    Raises:
        DeviceError: autocast on a CPU, where Paddle silently ignores it, and `train.on_unsupported_precision`
            is `error`.
    """
    if train.precision == "fp32" or distributed.is_on_gpu():
        return train.precision
    if train.on_unsupported_precision == "fp32":
        logger.warning("train.precision=%s does nothing on a CPU; training in fp32", train.precision)
        return "fp32"
    raise DeviceError(
        f"train.precision={train.precision}, but on a CPU Paddle's autocast is a silent no-op: everything "
        "would run in fp32; set train.precision=fp32 or train.on_unsupported_precision=fp32"
    )


class Precision:
    """Autocast (O1: parameters stay float32) and, for fp16, the dynamic loss scaler."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scaler = None
        if name == "fp16":
            scaler = paddle.amp.GradScaler(init_loss_scaling=2.0**16)
            self.scaler = fleet.distributed_scaler(scaler) if distributed.world_size() > 1 else scaler

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of the forward pass."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return paddle.amp.auto_cast(level="O1", dtype=_DTYPES[self.name])

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, which is scaled up for fp16."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, optimizer: Any) -> None:
        """Take an optimizer step; with fp16 it is skipped if a gradient has overflowed."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return plain values of the scaler; empty without one."""
        if self.scaler is None:
            return {}
        state = self.scaler.state_dict()
        return {key: value.item() if hasattr(value, "item") else value for key, value in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict({**state, "scale": np.array([state["scale"]], dtype=np.float32)})
