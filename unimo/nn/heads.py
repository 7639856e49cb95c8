"""Heads on top of towers and of fused states, shared by several papers and tasks."""

from __future__ import annotations

from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from unimo.nn.init import constant_attr, linear
from unimo.nn.kernels import LayerNorm, add_bias, dropout

TEMPERATURE_START = 0.07
"""Where a learned temperature of image-text contrast starts (CLIP, ALBEF)."""
TEMPERATURE_RANGE = (0.001, 0.5)
"""Where it is kept (ALBEF)."""


class Pooler(nn.Layer):
    """Linear and tanh (BERT) or ReLU (UNIMO) on the first token."""

    def __init__(self, width: int, std: float = 0.02, activation: Literal["tanh", "relu"] = "tanh") -> None:
        super().__init__()
        self.dense = linear(width, width, std)
        self.activation = {"tanh": paddle.tanh, "relu": F.relu}[activation]

    def forward(self, states: Tensor) -> Tensor:
        """Pool [B, S, W] to [B, W]."""
        return self.activation(self.dense(states[:, 0]))


class HeadTransform(nn.Layer):
    """Linear, GELU, LayerNorm: what BERT's heads put before their last layer."""

    def __init__(self, in_size: int, inner: int, std: float = 0.02, epsilon: float = 1e-12) -> None:
        super().__init__()
        self.dense = linear(in_size, inner, std)
        self.norm = LayerNorm(inner, epsilon)

    def forward(self, states: Tensor) -> Tensor:
        """Map states [N, W] to [N, inner]."""
        return self.norm(F.gelu(self.dense(states)))


class MlmHead(HeadTransform):
    """Vocabulary logits: Linear, GELU, LayerNorm, Linear; not tied to the embeddings."""

    def __init__(self, width: int, vocab_size: int, std: float = 0.02, epsilon: float = 1e-12) -> None:
        super().__init__(width, width, std, epsilon)
        self.decoder = linear(width, vocab_size, std)

    def forward(self, states: Tensor) -> Tensor:
        """Compute logits [N, vocabulary] of states [N, W]."""
        return self.decoder(super().forward(states))


class TiedMlmHead(HeadTransform):
    """Vocabulary logits by the word embeddings (BERT): Linear, GELU, LayerNorm, product with their table."""

    def __init__(self, width: int, vocab_size: int, std: float = 0.02) -> None:
        super().__init__(width, width, std)
        self.bias = self.create_parameter([vocab_size], attr=constant_attr(0.0))

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """Compute logits [N, vocabulary] of states [N, W] with the table `words` [vocabulary, W]."""
        return add_bias(paddle.matmul(super().forward(states), words, transpose_y=True), self.bias)


class AnswerHead(HeadTransform):
    """Linear, GELU, LayerNorm, Linear: LXMERT's head of answers, whose norm comes after the activation."""

    def __init__(self, in_size: int, inner: int, num_classes: int, std: float = 0.02) -> None:
        super().__init__(in_size, inner, std)
        self.out = linear(inner, num_classes, std)

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute logits [B, classes] of pooled vectors [B, P]."""
        return self.out(super().forward(pooled))


class ClassifierHead(nn.Layer):
    """Linear, LayerNorm, GELU, Linear: METER's and BridgeTower's head for pairs."""

    def __init__(self, in_size: int, inner: int, num_classes: int, std: float = 0.02) -> None:
        super().__init__()
        self.dense = linear(in_size, inner, std)
        self.norm = LayerNorm(inner, 1e-5)
        self.out = linear(inner, num_classes, std)

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute logits [B, classes] of pooled vectors [B, P]."""
        return self.out(F.gelu(self.norm(self.dense(pooled))))


class LinearHead(nn.Layer):
    """Linear, dropout, Linear, without an activation between them: UNIMO's released head for SNLI-VE."""

    def __init__(
        self, in_size: int, inner: int, num_classes: int, std: float = 0.02, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.dense = linear(in_size, inner, std)
        self.out = linear(inner, num_classes, std)
        self.dropout = dropout

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute logits [B, classes] of pooled vectors [B, P]."""
        return self.out(dropout(self.dense(pooled), self.dropout, self.training))


class ProjectionHead(nn.Layer):
    """Linear layer to a shared space and L2 normalization, so that products are cosines."""

    def __init__(self, in_size: int, out_size: int = 256, std: float = 0.02, bias: bool = True) -> None:
        super().__init__()
        self.dense = linear(in_size, out_size, std, bias)

    def forward(self, states: Tensor) -> Tensor:
        """Project [B, W] to unit vectors [B, out_size]."""
        return F.normalize(self.dense(states), axis=-1)


def contrastive_heads(
    text_size: int, image_size: int, size: int = 256, std: float = 0.02, bias: bool = True
) -> tuple[ProjectionHead, ProjectionHead]:
    """Build the heads that project texts [B, text_size] and images [B, image_size] to one space of `size`.

    The owner names them `itc_text_head` and `itc_image_head`, under which files of weights know them, and
    has a learned temperature besides, which starts at `TEMPERATURE_START`.
    """
    return ProjectionHead(text_size, size, std, bias), ProjectionHead(image_size, size, std, bias)


def clip_temperature(temperature: Tensor) -> Tensor:
    """Clip a learned temperature to `TEMPERATURE_RANGE`.

    This is done where it is read, and not in place: a forward pass changes no state.
    """
    return paddle.clip(temperature, *TEMPERATURE_RANGE)
