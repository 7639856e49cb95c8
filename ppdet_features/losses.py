"""The losses of a detector: classes and boxes of anchors; classes, boxes and attributes of regions.

Faster R-CNN (Ren et al. 2015, equation 1), with the attributes of bottom-up attention (Anderson et al. 2018,
section 3.1). Legend: B images, R regions, P positive ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ppdet_features.boxes import Targets, encode, region_targets, rpn_targets
from ppdet_features.detector import FasterRCNN
from ppdet_features.heads import anchors_of


def smooth_l1(difference: Tensor, beta: float) -> Tensor:
    """Sum the smooth L1 loss (Girshick 2015, equation 3): d^2 / (2 beta) below beta, |d| - beta / 2 above."""
    size = paddle.abs(difference)
    if beta == 0:
        return size.sum()
    return paddle.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta).sum()


def detection_losses(
    detector: FasterRCNN, images: Tensor, targets: Sequence[Targets], rng: np.random.Generator
) -> dict[str, Tensor]:
    """Compute the losses of images [B, 3, H, W]; `rng` draws the anchors and regions to train on.

    Returns:
        Scalars `rpn_class`, `rpn_box`, `class`, `box` and, with an attribute head, `attribute`.
    """
    config, size = detector.config, tuple(images.shape[2:])
    res4 = detector.backbone(images)
    scores, deltas = detector.rpn_head(res4)
    losses = _rpn_losses(detector, scores, deltas, targets, rng)
    proposals = detector.rpn_head.propose(scores, deltas, size, config.rpn.train_proposal)
    chosen = [
        region_targets(boxes.numpy(), target, config.assigner, rng)
        for boxes, target in zip(proposals, targets, strict=True)
    ]
    features = detector.bbox_head.features(res4, [paddle.to_tensor(boxes) for boxes, _ in chosen])
    losses |= _region_losses(detector, features, chosen, targets)
    return losses


def _rpn_losses(
    detector: FasterRCNN,
    scores: Tensor,
    deltas: Tensor,
    targets: Sequence[Targets],
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    config = detector.config.rpn
    anchors = anchors_of(*scores.shape[2:], config.anchor_generator).reshape(-1, 4)
    positives, backgrounds, wanted = [], [], []
    for i, target in enumerate(targets):
        positive, background, boxes = rpn_targets(anchors, target, config.rpn_target_assign, rng)
        positives.append(positive + i * len(anchors))
        backgrounds.append(background + i * len(anchors))
        wanted.append(boxes)
    positive, background = np.concatenate(positives), np.concatenate(backgrounds)
    flat_scores = scores.transpose([0, 2, 3, 1]).flatten()
    picked = paddle.gather(flat_scores, paddle.to_tensor(np.concatenate([positive, background])))
    is_object = paddle.to_tensor(np.arange(len(picked)) < len(positive)).astype("float32")
    number = config.rpn_target_assign.batch_size_per_im * len(targets)
    losses = {
        "rpn_class": F.binary_cross_entropy_with_logits(picked, is_object, reduction="sum") / number,
        "rpn_box": deltas.sum() * 0.0,
    }
    if len(positive):
        flat = deltas.transpose([0, 2, 3, 1]).reshape([-1, 4])
        own = paddle.gather(flat, paddle.to_tensor(positive))
        difference = own - paddle.to_tensor(np.concatenate(wanted))
        losses["rpn_box"] = smooth_l1(difference, config.smooth_l1_beta) / number
    return losses


def _region_losses(
    detector: FasterRCNN,
    features: Tensor,
    chosen: Sequence[tuple[np.ndarray, np.ndarray]],
    targets: Sequence[Targets],
) -> dict[str, Tensor]:
    """Compute the losses of regions.

    `chosen` holds for each image its regions [R, 4], and the numbers of the objects [P] of the first P.
    """
    config = detector.config
    labels, rows, wanted, attributes, start = [], [], [], [], 0
    for (boxes, objects), target in zip(chosen, targets, strict=True):
        background = np.full(len(boxes) - len(objects), config.num_classes, np.int64)
        labels.append(np.concatenate([target.labels[objects], background]))
        rows.append(start + np.arange(len(objects)))
        wanted.append(encode(boxes[: len(objects)], target.boxes[objects], config.box_head.bbox_weight))
        attributes.append(target.attributes[objects])
        start += len(boxes)
    label, row = np.concatenate(labels), np.concatenate(rows)
    logits, deltas = detector.bbox_head(features)
    zero = deltas.sum() * 0.0
    losses = {"class": F.cross_entropy(logits, paddle.to_tensor(label)), "box": zero}
    if len(row):
        column = np.zeros_like(row) if config.box_head.cls_agnostic else label[row]
        own = paddle.gather_nd(deltas, paddle.to_tensor(np.stack([row, column], axis=1)))
        difference = own - paddle.to_tensor(np.concatenate(wanted))
        losses["box"] = smooth_l1(difference, config.box_head.smooth_l1_beta) / len(label)
    if detector.attribute_head is not None:
        losses["attribute"] = _attribute_loss(detector, features, row, label, np.concatenate(attributes))
    return losses


def _attribute_loss(
    detector: FasterRCNN, features: Tensor, row: np.ndarray, label: np.ndarray, attributes: np.ndarray
) -> Tensor:
    """Compute the cross entropy against the attributes of objects, in equal shares, given the true class."""
    known = attributes.sum(axis=1) > 0
    row, attributes = row[known], attributes[known]
    if not len(row):
        return sum(parameter.sum() for parameter in detector.attribute_head.parameters()) * 0.0
    shares = attributes / attributes.sum(axis=1, keepdims=True)
    shares = np.pad(shares, ((0, 0), (0, 1))).astype(np.float32)  # "no attribute" is never the target
    own = paddle.gather(features, paddle.to_tensor(row))
    logits = detector.attribute_head(own, paddle.to_tensor(label[row]))
    return F.cross_entropy(logits, paddle.to_tensor(shares), soft_label=True)
