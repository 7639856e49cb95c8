"""Paddle's fused attention against matmul and softmax: values, and gradients by everything that learns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import numpy as np
import paddle
from paddle import Tensor

from unimo.doctor.report import Options, Row
from unimo.nn import attention

WIDTH, HEADS, ROWS = 64, 4, 4
LENGTHS = {"length divides by 8": 64, "length does not": 61}
"""Of the mask's last dimension: the memory-efficient kernel takes only those that divide by 8."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 5e-3}
"""Largest difference, as a share of the largest value."""


@dataclass(frozen=True)
class Case:
    """A layer and what of it learns."""

    kind: str
    """`self` or `cross`."""
    mask: str
    """`none`; `padding` rows at the end of every other sample; `outer`, in which those rows read nothing
    and so everything."""
    frozen: str = ""
    """What has no gradient: `states` (a frozen tower below), `layer`, in cross-attention `other`, or two of
    them, so that only queries, or only keys and values, have one."""


CASES = [
    Case(kind, mask, frozen)
    for kind, masks, frozen_parts in (
        ("self", ("none", "padding", "outer"), ("", "states", "layer")),
        ("cross", ("none", "padding"), ("", "states", "other", "layer", "layer states", "layer other")),
    )
    for mask in masks
    for frozen in frozen_parts
]


def examine(options: Options) -> list[Row]:
    """Compare all cases in every number format of the device."""
    formats = ["float32"]
    if not paddle.get_device().startswith("cpu"):
        formats += ["bfloat16"] * paddle.amp.is_bfloat16_supported() + ["float16"]
    rows = [judge(name, length, kind) for kind in formats for name, length in LENGTHS.items()]
    if len(formats) == 1:
        rows.append(Row("fused attention, flash kernels", "not here",
                        "on a CPU Paddle's function is plain arithmetic, too"))  # fmt: skip
    return rows


def judge(name: str, length: int, kind: str) -> Row:
    """Compare all cases at one length and number format."""
    title = f"fused attention, {kind}, {name}"
    worst, where, failed = 0.0, "", []
    for case in CASES:
        try:
            gap = largest_gap(case, length, kind)
        except (RuntimeError, ValueError, TypeError, OSError, NotImplementedError) as error:
            failed.append(f"{case} failed: {str(error).strip().splitlines()[-1][:120]}")
            continue
        if not gap <= worst:
            worst, where = gap, str(case)
    tolerance = TOLERANCES[kind]
    figure = (
        f"{len(CASES)} cases, largest difference {worst:.1e} of the largest value, tolerance {tolerance:g}"
    )
    if failed or not worst <= tolerance:
        told = "; ".join([figure, *failed[:2]] if failed else [figure, where])
        return Row(
            title,
            "wrong",
            told,
            "unimo/nn/attention.py: let use_fused_kernel return False; report this table",
        )
    return Row(title, "ok", figure)


def largest_gap(case: Case, length: int, kind: str) -> float:
    """Return the largest difference of values and gradients between the two paths."""
    plain, fused = (outcome(case, length, kind, is_fused) for is_fused in (False, True))
    if plain.keys() != fused.keys():  # a gradient is missing
        return float("inf")
    gaps = [0.0]
    for name, value in plain.items():
        scale = max(float(np.abs(value).max()), 1e-6)
        gaps.append(float(np.abs(fused[name] - value).max()) / scale)
    # NaN compares as nothing; it is the largest gap there is.
    return float("inf") if any(gap != gap for gap in gaps) else max(gaps)


def outcome(case: Case, length: int, kind: str, is_fused: bool) -> dict[str, np.ndarray]:
    """Run a case forward and backward; return the output and the gradients of all that learns."""
    paddle.seed(0)
    rng = np.random.default_rng(0)
    queries = length if case.kind == "self" else 24
    states, other = (_values(rng, size) for size in (queries, length))
    make = attention.SelfAttention if case.kind == "self" else attention.CrossAttention
    layer = make(WIDTH, HEADS, std=0.2)
    states.stop_gradient, other.stop_gradient = "states" in case.frozen, "other" in case.frozen
    for parameter in layer.parameters():
        parameter.stop_gradient = "layer" in case.frozen
    mask = _mask(case.mask, length)
    inputs = (states,) if case.kind == "self" else (states, other)
    autocast = contextlib.nullcontext() if kind == "float32" else paddle.amp.auto_cast(level="O1", dtype=kind)
    with _path(is_fused), autocast:
        mixed = layer(*inputs, mask)[0]
    mixed = mixed.astype("float32")
    (mixed * _values(rng, queries)).sum().backward()
    learned = {**dict(layer.named_parameters()), "states": states, "other": other}
    grads = {name: value.grad for name, value in learned.items() if not value.stop_gradient}
    found = {name: grad.numpy() for name, grad in grads.items() if grad is not None}
    return {"output": mixed.numpy(), **found}


@contextlib.contextmanager
def _path(is_fused: bool) -> Iterator[None]:
    """Let the layers take one of their two paths, whatever the device."""
    with mock.patch.object(attention, "use_fused_kernel", lambda: is_fused):
        yield


def _values(rng: np.random.Generator, size: int) -> Tensor:
    return paddle.to_tensor(rng.standard_normal((ROWS, size, WIDTH)).astype(np.float32))


def _mask(kind: str, length: int) -> Tensor | None:
    if kind == "none":
        return None
    real = np.ones((ROWS, length), np.float32)
    real[1::2, length - length // 3 :] = 0
    whole = paddle.to_tensor(real)
    return attention.outer_mask(whole) if kind == "outer" else attention.additive_mask(whole)
