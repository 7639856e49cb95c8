"""Heads on res4: proposals; classes, boxes and attributes of regions.

Legend: B images, A anchors a position, H x W positions of res4, R regions, F width of a feature, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import ParamAttr, Tensor, nn
from paddle.vision.ops import generate_proposals, roi_align, roi_pool

from ppdet_features.config import AnchorConfig, DetectorConfig, ProposalConfig
from ppdet_features.resnet import Res5Head, stage_channels

_SCALE = 1.0 / 16


def anchors_of(height: int, width: int, config: AnchorConfig) -> np.ndarray:
    """Compute the anchors of a map of `height` x `width` positions, [H, W, A, 4]; ratios vary fastest in A.

    A ratio is height to width; all anchors of a size have the area of its square.
    """
    sizes = np.repeat(config.anchor_sizes, len(config.aspect_ratios))
    ratios = np.tile(config.aspect_ratios, len(config.anchor_sizes))
    half = np.stack([sizes / np.sqrt(ratios), sizes * np.sqrt(ratios)], axis=1) / 2
    stride = config.strides[0]
    y, x = np.meshgrid(*((np.arange(n) + config.offset) * stride for n in (height, width)), indexing="ij")
    centers = np.stack([x, y], axis=-1)[:, :, None]
    return np.concatenate([centers - half, centers + half], axis=-1).astype(np.float32)


class RPNHead(nn.Layer):
    """Scores of anchors, box deltas, and the choice of proposals."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config.rpn
        channels_in = stage_channels(config, 4)
        channels = config.rpn.channels or channels_in
        anchors = self.config.anchor_generator
        number = len(anchors.anchor_sizes) * len(anchors.aspect_ratios)
        shared = nn.Conv2D(channels_in, channels, 3, padding=1, weight_attr=_normal())
        self.rpn_feat = nn.Sequential(("rpn_conv", shared))
        self.rpn_rois_score = nn.Conv2D(channels, number, 1, weight_attr=_normal())
        self.rpn_rois_delta = nn.Conv2D(channels, 4 * number, 1, weight_attr=_normal())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map res4 [B, C, H, W] to logits [B, A, H, W] and box deltas [B, 4 A, H, W]."""
        shared = F.relu(self.rpn_feat(features))
        return self.rpn_rois_score(shared), self.rpn_rois_delta(shared)

    @paddle.no_grad()
    def propose(
        self, scores: Tensor, deltas: Tensor, size: tuple[int, int], config: ProposalConfig
    ) -> list[Tensor]:
        """Choose the boxes of each image, [R, 4] best first, after non-maximum suppression.

        `scores` and `deltas` are the result of `forward`, `size` is height and width of the network's input.
        """
        anchors = paddle.to_tensor(anchors_of(*scores.shape[2:], self.config.anchor_generator))
        rois, _, numbers = generate_proposals(
            scores,
            deltas,
            paddle.to_tensor([size] * scores.shape[0], "float32"),
            anchors.reshape([-1, 4]),
            paddle.ones([anchors.size // 4, 4]),
            pre_nms_top_n=config.pre_nms_top_n,
            post_nms_top_n=config.post_nms_top_n,
            nms_thresh=config.nms_thresh,
            min_size=config.min_size,
            return_rois_num=True,
        )
        return paddle.split(rois, numbers.tolist()) if len(numbers) > 1 else [rois]


class BBoxHead(nn.Layer):
    """res5 on each region, then linear layers. The last class is the background."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.roi = config.box_head.roi_extractor
        width, classes = stage_channels(config, 5), config.num_classes
        self.head = Res5Head(config)
        self.bbox_score = nn.Linear(width, classes + 1, weight_attr=_normal())
        boxes = 1 if config.box_head.cls_agnostic else classes
        self.bbox_delta = nn.Linear(width, 4 * boxes, weight_attr=_normal(0.001))

    def features(self, res4: Tensor, rois: Sequence[Tensor]) -> Tensor:
        """Pool the boxes [*, 4] of each image, R in all, from res4 and apply res5: features [R, F]."""
        numbers = paddle.to_tensor([len(boxes) for boxes in rois], "int32")
        boxes, side = paddle.concat(list(rois)), self.roi.resolution
        if self.roi.pooling == "max":
            regions = roi_pool(res4, boxes, numbers, side, _SCALE)
        else:
            ratio = self.roi.sampling_ratio or -1
            regions = roi_align(res4, boxes, numbers, side, _SCALE, ratio, self.roi.aligned)
        return self.head(regions)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features [R, F] to logits [R, C + 1] and box deltas [R, C, 4] ([R, 1, 4] if class-agnostic)."""
        return self.bbox_score(features), self.bbox_delta(features).reshape([len(features), -1, 4])


class AttributeHead(nn.Layer):
    """Attributes from the feature and the class of a region (Anderson et al. 2018); the last one means none.

    Sizes are those of the release: F / 8 for the embedding of the class, F / 4 for the hidden layer.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width = stage_channels(config, 5)
        self.cls_embedding = nn.Embedding(config.num_classes + 1, width // 8, weight_attr=_normal())
        self.fc_attr = nn.Linear(width + width // 8, width // 4)
        self.attr_score = nn.Linear(width // 4, config.num_attributes + 1)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Map features [R, F] and classes [R] (C is the background) to logits [R, attributes + 1]."""
        both = paddle.concat([features, self.cls_embedding(classes)], axis=-1)
        return self.attr_score(F.relu(self.fc_attr(both)))


def _normal(std: float = 0.01) -> ParamAttr:
    return ParamAttr(initializer=nn.initializer.Normal(0.0, std))
