"""Heads that several papers put on top of fused states."""

from __future__ import annotations

from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from unimo.nn.init import linear
from unimo.nn.kernels import LayerNorm, dropout


class Pooler(nn.Layer):
    """Linear and tanh (BERT) or ReLU (UNIMO) on the first token."""

    def __init__(self, width: int, std: float = 0.02, activation: Literal["tanh", "relu"] = "tanh") -> None:
        super().__init__()
        self.dense = linear(width, width, std)
        self.activation = {"tanh": paddle.tanh, "relu": F.relu}[activation]

    def forward(self, states: Tensor) -> Tensor:
        """[B, S, W] to [B, W]."""
        return self.activation(self.dense(states[:, 0]))


class MlmHead(nn.Layer):
    """Vocabulary logits: Linear, GELU, LayerNorm, Linear; not tied to the embeddings."""

    def __init__(self, width: int, vocab_size: int, std: float = 0.02, epsilon: float = 1e-12) -> None:
        super().__init__()
        self.dense = linear(width, width, std)
        self.norm = LayerNorm(width, epsilon)
        self.decoder = linear(width, vocab_size, std)

    def forward(self, states: Tensor) -> Tensor:
        """[N, W] to [N, vocabulary]."""
        return self.decoder(self.norm(F.gelu(self.dense(states))))


class ClassifierHead(nn.Layer):
    """Linear, LayerNorm, GELU, Linear: METER's and BridgeTower's head for pairs."""

    def __init__(self, in_size: int, inner: int, num_classes: int, std: float = 0.02) -> None:
        super().__init__()
        self.dense = linear(in_size, inner, std)
        self.norm = LayerNorm(inner, 1e-5)
        self.out = linear(inner, num_classes, std)

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, P] to logits [B, classes]."""
        return self.out(F.gelu(self.norm(self.dense(pooled))))


class LinearHead(nn.Layer):
    """Linear, dropout, Linear, with nothing between that bends: UNIMO's released head for SNLI-VE."""

    def __init__(
        self, in_size: int, inner: int, num_classes: int, std: float = 0.02, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.dense = linear(in_size, inner, std)
        self.out = linear(inner, num_classes, std)
        self.dropout = dropout

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, P] to logits [B, classes]."""
        return self.out(dropout(self.dense(pooled), self.dropout, self.training))


class ProjectionHead(nn.Layer):
    """Linear to a shared space and L2 normalisation, for contrastive scores."""

    def __init__(self, in_size: int, out_size: int = 256, std: float = 0.02) -> None:
        super().__init__()
        self.dense = linear(in_size, out_size, std)

    def forward(self, states: Tensor) -> Tensor:
        """[B, W] to unit vectors [B, out_size]."""
        return F.normalize(self.dense(states), axis=-1)
