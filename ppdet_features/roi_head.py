"""Classes, boxes and attributes of regions.

Legend: R regions, F width of their feature, C classes, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.vision.ops import roi_align, roi_pool

from ppdet_features.config import DetectorConfig
from ppdet_features.resnet import Res5Head, normal, stage_channels

_SCALE = 1.0 / 16


class BBoxHead(nn.Layer):
    """res5 on each region, then linear layers. The last class is the background."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.roi = config.box_head.roi_extractor
        width, classes = stage_channels(config, 5), config.num_classes
        self.head = Res5Head(config)
        self.bbox_score = nn.Linear(width, classes + 1, weight_attr=normal())
        boxes = 1 if config.box_head.cls_agnostic else classes
        self.bbox_delta = nn.Linear(width, 4 * boxes, weight_attr=normal(0.001))

    def features(self, res4: Tensor, rois: Sequence[Tensor]) -> Tensor:
        """Pool regions and apply res5.

        Args:
            res4: [B, C, H, W].
            rois: boxes [*, 4] of each image, R in all.

        Returns:
            Features [R, F].
        """
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
        self.cls_embedding = nn.Embedding(config.num_classes + 1, width // 8, weight_attr=normal())
        self.fc_attr = nn.Linear(width + width // 8, width // 4)
        self.attr_score = nn.Linear(width // 4, config.num_attributes + 1)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Map features [R, F] and classes [R] (C is the background) to logits [R, A + 1]."""
        both = paddle.concat([features, self.cls_embedding(classes)], axis=-1)
        return self.attr_score(F.relu(self.fc_attr(both)))
