"""ResNet up to res4, and its last stage as a head on regions, with PaddleDetection's parameter names."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import ParamAttr, Tensor, nn

from ppdet_features.config import DetectorConfig

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ConvNorm(nn.Layer):
    """A convolution without bias, followed by batch norm."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        freeze_norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            channels_in,
            channels,
            kernel,
            stride,
            padding=dilation * (kernel - 1) // 2,
            dilation=dilation,
            weight_attr=ParamAttr(initializer=nn.initializer.KaimingNormal()),
            bias_attr=False,
        )
        self.norm = nn.BatchNorm2D(
            channels,
            weight_attr=ParamAttr(trainable=not freeze_norm),
            bias_attr=ParamAttr(trainable=not freeze_norm),
            use_global_stats=True if freeze_norm else None,
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels, H / stride, W / stride]."""
        return self.norm(self.conv(inputs))


class Block(nn.Layer):
    """A residual block: two 3x3 convolutions below depth 50, else 1x1, 3x3, 1x1.

    Args:
        width: inner channels.
        deep: three convolutions, with four times as many output as inner channels.
        variant: `a` gives the stride to the first of three convolutions, `b` to the second.
        shortcut: project the input, because size or channels change.
        dilation: of the 3x3 convolutions.
    """

    def __init__(
        self,
        channels_in: int,
        width: int,
        deep: bool,
        variant: str,
        shortcut: bool,
        stride: int,
        dilation: int,
        freeze_norm: bool,
    ) -> None:
        super().__init__()
        strides = (stride, 1) if variant == "a" or not deep else (1, stride)
        kernel = 1 if deep else 3
        first_dilation = 1 if deep else dilation
        self.branch2a = ConvNorm(channels_in, width, kernel, strides[0], first_dilation, freeze_norm)
        self.branch2b = ConvNorm(width, width, 3, strides[1], dilation, freeze_norm)
        self.branch2c = ConvNorm(width, 4 * width, 1, freeze_norm=freeze_norm) if deep else None
        channels = 4 * width if deep else width
        self.short = ConvNorm(channels_in, channels, 1, stride, freeze_norm=freeze_norm) if shortcut else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels, H / stride, W / stride]."""
        outputs = self.branch2b(F.relu(self.branch2a(inputs)))
        if self.branch2c is not None:
            outputs = self.branch2c(F.relu(outputs))
        return F.relu(outputs + (inputs if self.short is None else self.short(inputs)))


def _stage(number: int, channels_in: int, config: DetectorConfig) -> nn.Sequential:
    """Build stage `number` (2 to 5), with the block names of the Caffe release: res4a, res4b1, ..."""
    resnet, head = config.resnet, config.res5
    part = resnet if number < 5 else head
    count = BLOCKS[resnet.depth][number - 2] if number < 5 else 3
    stage = nn.Sequential()
    for i in range(count):
        letter = f"b{i}" if count > 10 and i else chr(ord("a") + i)
        first_stride = {2: 1, 5: head.stride}.get(number, 2)
        block = Block(
            channels_in if i == 0 else stage_channels(config, number),
            resnet.width * 2 ** (number - 2),
            deep=resnet.depth >= 50,
            variant=part.variant,
            shortcut=i == 0,
            stride=first_stride if i == 0 else 1,
            dilation=1 if number < 5 else head.dilation,
            freeze_norm=part.freeze_norm,
        )
        stage.add_sublayer(f"res{number}{letter}", block)
    return stage


def stage_channels(config: DetectorConfig, number: int) -> int:
    """Return the output channels of stage `number` (2 to 5)."""
    return config.resnet.width * 2 ** (number - 2) * (4 if config.resnet.depth >= 50 else 1)


class ResNet(nn.Layer):
    """Stem, res2, res3 and res4: the feature map shared by all regions of an image."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        resnet = config.resnet
        self.caffe_max_pool = resnet.caffe_max_pool
        stem = ConvNorm(3, resnet.ch_in, 7, stride=2, freeze_norm=resnet.freeze_norm)
        self.conv1 = nn.Sequential(("conv1", stem))
        self.res2 = _stage(2, resnet.ch_in, config)
        self.res3 = _stage(3, stage_channels(config, 2), config)
        self.res4 = _stage(4, stage_channels(config, 3), config)
        frozen = [self.conv1, self.res2, self.res3, self.res4][: resnet.freeze_at + 2]
        for parameter in (p for stage in frozen * (resnet.freeze_at >= 0) for p in stage.parameters()):
            parameter.stop_gradient = True

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, H, W] to res4 [B, C, H / 16, W / 16], sides rounded up."""
        outputs = F.relu(self.conv1(images))
        caffe = self.caffe_max_pool
        outputs = F.max_pool2d(outputs, 3, stride=2, padding=0 if caffe else 1, ceil_mode=caffe)
        return self.res4(self.res3(self.res2(outputs)))


class Res5Head(nn.Layer):
    """The last stage, applied to each region."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.res5 = _stage(5, stage_channels(config, 4), config)

    def forward(self, regions: Tensor) -> Tensor:
        """Map regions pooled from res4 [R, C, S, S] to features [R, F]."""
        return self.res5(regions).mean(axis=[2, 3])
