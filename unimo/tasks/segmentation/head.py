"""The head that BEiT segments with: a pyramid from the layers of a tower, UperNet, and an auxiliary FCN.

UperNet (Xiao et al., 2018) pools the coarsest map over whole parts of the picture (PPM, Zhao et al., 2017),
adds it downwards to the finer ones (FPN, Lin et al., 2017), and classifies all of them joined.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from unimo.losses.contrastive import gather_rows
from unimo.losses.reduce import ranks
from unimo.nn.init import normal_attr

POOLS = (1, 2, 3, 6)
"""Sides of the grids that the pyramid pooling module pools to."""
AUXILIARY_MAP = 2
"""Map, from 0, that the auxiliary head reads: that of the patches' own resolution."""
AUXILIARY_WIDTH = 256
_CLASSIFIER_STD = 0.01


class BatchNorm(nn.BatchNorm2D):
    """Batch normalisation whose statistics are those of the pictures of all ranks, as BEiT trains with.

    In a step of several rounds they are those of one round.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise [B, C, h, w]."""
        if not self.training or ranks() == 1:
            kept = self._mean, self._variance
            return F.batch_norm(
                maps, *kept, self.weight, self.bias, self.training, self._momentum, self._epsilon
            )
        wide = maps.astype("float32")
        means = paddle.stack([wide.mean([0, 2, 3]), (wide**2).mean([0, 2, 3])]).unsqueeze(0)
        mean, squares = gather_rows(means, [1] * ranks()).mean(0).unbind(0)
        variance = F.relu(squares - mean**2)
        with paddle.no_grad():
            for kept, new in ((self._mean, mean), (self._variance, variance)):
                kept.set_value(self._momentum * kept + (1 - self._momentum) * new)
        mean, scale, bias = (
            each.reshape([1, -1, 1, 1])
            for each in (mean, self.weight * paddle.rsqrt(variance + self._epsilon), self.bias)
        )
        return ((wide - mean) * scale + bias).astype(maps.dtype)


def conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
    """Build a convolution of `size` x `size` pixels, batch normalisation and ReLU; h and w stay."""
    return nn.Sequential(
        nn.Conv2D(inputs, outputs, size, padding=size // 2, bias_attr=False), BatchNorm(outputs), nn.ReLU()
    )


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Scale maps [B, C, h, w] to [B, C, *size], bilinearly."""
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=False)


class Pyramid(nn.Layer):
    """Four maps of one resolution [B, W, h, w] as maps of 4 h, 2 h, h and h / 2 rows."""

    def __init__(self, width: int) -> None:
        super().__init__()

        def double() -> nn.Conv2DTranspose:
            return nn.Conv2DTranspose(width, width, 2, stride=2)

        self.first = nn.Sequential(double(), BatchNorm(width), nn.GELU(), double())
        self.second = double()

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Scale the maps, from the lowest layer to the highest."""
        first, second, third, fourth = maps
        # One patch alone has no half.
        halves = [min(2, side) for side in fourth.shape[2:]]
        return [self.first(first), self.second(second), third, F.max_pool2d(fourth, halves, halves)]


class UperNet(nn.Layer):
    """Maps of a pyramid -> logits of classes at the resolution of the first.

    Args:
        width: W of the maps, and of all that is between.
        dropout: of whole channels, before the classifier.
    """

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.pools = nn.LayerList(conv(width, width, 1) for _ in POOLS)
        self.pooled = conv((1 + len(POOLS)) * width, width, 3)
        self.laterals = nn.LayerList(conv(width, width, 1) for _ in range(3))
        self.outputs = nn.LayerList(conv(width, width, 3) for _ in range(3))
        self.joined = conv(4 * width, width, 3)
        self.dropout = nn.Dropout2D(dropout)
        self.classifier = nn.Conv2D(width, classes, 1, weight_attr=normal_attr(_CLASSIFIER_STD))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute logits [B, classes, h, w] from four maps, the first [B, W, h, w] the finest."""
        top = maps[-1]
        parts = [top]
        for side, layer in zip(POOLS, self.pools, strict=True):
            parts.append(resize(layer(F.adaptive_avg_pool2d(top, side)), top.shape[2:]))
        levels = [layer(each) for layer, each in zip(self.laterals, maps[:-1], strict=True)]
        levels.append(self.pooled(paddle.concat(parts, axis=1)))
        for place in range(len(levels) - 1, 0, -1):
            finer = levels[place - 1]
            levels[place - 1] = finer + resize(levels[place], finer.shape[2:])
        read = [layer(each) for layer, each in zip(self.outputs, levels[:-1], strict=True)]
        size = read[0].shape[2:]
        joined = [read[0], *(resize(each, size) for each in (*read[1:], levels[-1]))]
        return self.classifier(self.dropout(self.joined(paddle.concat(joined, axis=1))))


class Fcn(nn.Layer):
    """One map -> logits of classes (Long et al., 2015); learns beside UperNet and is not asked afterwards."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.inner = conv(width, AUXILIARY_WIDTH, 3)
        self.dropout = nn.Dropout2D(dropout)
        self.classifier = nn.Conv2D(AUXILIARY_WIDTH, classes, 1, weight_attr=normal_attr(_CLASSIFIER_STD))

    def forward(self, maps: Tensor) -> Tensor:
        """Compute logits [B, classes, h, w] from [B, W, h, w]."""
        return self.classifier(self.dropout(self.inner(maps)))
