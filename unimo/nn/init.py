"""Layers that start from a normal distribution, as BERT, CLIP and their descendants do."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn.initializer import Constant, Normal

from unimo.nn.kernels import Linear


def normal_attr(std: float) -> paddle.ParamAttr:
    """Return a parameter attribute with N(0, std)."""
    return paddle.ParamAttr(initializer=Normal(0.0, std))


def constant_attr(value: float) -> paddle.ParamAttr:
    """Return a parameter attribute with one value everywhere."""
    return paddle.ParamAttr(initializer=Constant(value))


def linear(in_size: int, out_size: int, std: float = 0.02, bias: bool = True) -> Linear:
    """Build a linear layer: weight [in, out] from N(0, std), bias 0."""
    return Linear(in_size, out_size, normal_attr(std), constant_attr(0.0) if bias else False)


def embedding(rows: int, width: int, std: float = 0.02) -> nn.Embedding:
    """Build an embedding table [rows, width] from N(0, std)."""
    return nn.Embedding(rows, width, weight_attr=normal_attr(std))
