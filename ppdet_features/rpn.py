"""Region proposal network. Legend: B images, A anchors a position, H x W positions of res4, R proposals."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.vision.ops import generate_proposals

from ppdet_features.config import AnchorConfig, DetectorConfig, ProposalConfig
from ppdet_features.resnet import normal, stage_channels


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
        shared = nn.Conv2D(channels_in, channels, 3, padding=1, weight_attr=normal())
        self.rpn_feat = nn.Sequential(("rpn_conv", shared))
        self.rpn_rois_score = nn.Conv2D(channels, number, 1, weight_attr=normal())
        self.rpn_rois_delta = nn.Conv2D(channels, 4 * number, 1, weight_attr=normal())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map res4 [B, C, H, W] to logits [B, A, H, W] and box deltas [B, 4 A, H, W]."""
        shared = F.relu(self.rpn_feat(features))
        return self.rpn_rois_score(shared), self.rpn_rois_delta(shared)

    @paddle.no_grad()
    def propose(
        self, scores: Tensor, deltas: Tensor, size: tuple[int, int], config: ProposalConfig
    ) -> list[Tensor]:
        """Choose the best boxes of each image after non-maximum suppression.

        Args:
            scores: [B, A, H, W] logits.
            deltas: [B, 4 A, H, W].
            size: height and width of the network's input.
            config: numbers of boxes and their largest overlap.

        Returns:
            For each image its boxes [R, 4], best first.
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
