"""Faster R-CNN on res4 with a res5 head (C4): its input, and the regions of images with their features.

Legend: B images, R proposals and N regions of one, F width of a feature, C classes, A attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from PIL import Image

from ppdet_features.boxes import clip, decode, select_objects, select_regions
from ppdet_features.config import DetectorConfig, load_config
from ppdet_features.heads import AttributeHead, BBoxHead, RPNHead
from ppdet_features.resnet import ResNet, stage_channels
from unimo.weights.files import read_tensors
from unimo.weights.layers import load_into

_FILTERS = {1: Image.Resampling.BILINEAR, 2: Image.Resampling.BICUBIC}


def resized_size(width: int, height: int, config: DetectorConfig) -> tuple[int, int]:
    """Return width and height of the network's input for an image of the given size, in pixels.

    The shorter side is scaled to the first target, unless the longer one would exceed the second.
    """
    short, long = sorted(config.reader.sample_transforms.Resize.target_size)
    scale = min(short / min(width, height), long / max(width, height))
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def preprocess(image: Image.Image, config: DetectorConfig) -> np.ndarray:
    """Convert an image to the network's input, [3, H, W] float32."""
    steps = config.reader.sample_transforms
    size = resized_size(*image.size, config)
    image = image.convert("RGB")
    if image.size != size:
        image = image.resize(size, _FILTERS[steps.Resize.interp])
    pixels = np.asarray(image, np.float32)
    if not steps.Decode.to_rgb:
        pixels = pixels[..., ::-1]
    if steps.NormalizeImage.is_scale:
        pixels = pixels / 255.0
    mean, std = (np.array(x, np.float32) for x in (steps.NormalizeImage.mean, steps.NormalizeImage.std))
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1), np.float32)


@dataclass(frozen=True)
class Detections:
    """The regions of one image, best first."""

    boxes: np.ndarray = field(repr=False)
    """[N, 4] float32: x1, y1, x2, y2 in pixels of the network's input."""
    features: np.ndarray = field(repr=False)
    """[N, F] float32, pooled res5."""
    class_probs: np.ndarray = field(repr=False)
    """[N, C] float32 without the background, so a row need not sum to one."""
    scores: np.ndarray = field(repr=False)
    """[N] float32, descending: probability of the label; 0 for regions that are suppressed in every class."""
    labels: np.ndarray = field(repr=False)
    """[N] int64: the class that a region is kept for."""
    attributes: np.ndarray | None = field(default=None, repr=False)
    """[N, A] float32 probabilities, rows sum to one; None without an attribute head."""

    def __len__(self) -> int:
        return len(self.boxes)


class FasterRCNN(nn.Layer):
    """The detector. `detect` returns regions with features, `objects` objects for a detection metric."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_size = stage_channels(config, 5)
        self.num_classes, self.num_attributes = config.num_classes, config.num_attributes
        self.backbone = ResNet(config)
        self.rpn_head = RPNHead(config)
        self.bbox_head = BBoxHead(config)
        self.attribute_head = AttributeHead(config) if config.num_attributes else None

    @paddle.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """Detect the regions of images [B, 3, H, W] of one size; images do not affect each other."""
        found, selection = [], self.config.selection
        for all_features, all_probs, proposed, regressed in self._proposals(images):
            probs = all_probs[:, :-1]
            boxes = proposed if selection.boxes == "proposals" else regressed
            regions, scores, labels = select_regions(probs, boxes, selection)
            features = all_features[paddle.to_tensor(regions)]
            attributes = None
            if self.attribute_head is not None:
                # As in the release, even if the most probable class is the background.
                likeliest = paddle.to_tensor(all_probs[regions].argmax(axis=1))
                attributes = F.softmax(self.attribute_head(features, likeliest)[:, :-1]).numpy()
            own = _of_class(boxes, regions, labels), features.numpy(), probs[regions]
            found.append(Detections(*own, scores, labels, attributes))
        return found

    @paddle.no_grad()
    def objects(self, images: Tensor) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Detect the objects in images [B, 3, H, W] of one size, for the COCO metric.

        Returns:
            For each image one object for each (region, class) kept, best first: boxes [N, 4] float32,
            corrected by the head, in pixels of the network's input; scores [N] float32; labels [N] int64.
        """
        found = []
        for _, probs, _, regressed in self._proposals(images):
            regions, scores, labels = select_objects(probs[:, :-1], regressed, self.config.post_process.nms)
            found.append((_of_class(regressed, regions, labels), scores, labels))
        return found

    def _proposals(self, images: Tensor) -> Iterator[tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the proposals of each image before any selection.

        These are features [R, F], probabilities [R, C + 1] (the background is the last column), the proposed
        boxes [R, 1, 4], and the corrected ones [R, C, 4], or [R, 1, 4] when class-agnostic.
        """
        height, width = images.shape[2:]
        res4 = self.backbone(images)
        rois = self.rpn_head.propose(*self.rpn_head(res4), (height, width), self.config.rpn.test_proposal)
        # res5 runs on one image at a time: its hundreds of regions fill any device, and the pooled regions
        # of one image of bottom-up attention already take 240 MB.
        for i, boxes in enumerate(rois):
            features = self.bbox_head.features(res4[i : i + 1], [boxes])
            logits, deltas = self.bbox_head(features)
            proposed = boxes.numpy()
            regressed = decode(proposed, deltas.numpy(), self.config.box_head.bbox_weight)
            probs, regressed = F.softmax(logits).numpy(), clip(regressed, width, height)
            yield features, probs, proposed[:, None], regressed


def _of_class(boxes: np.ndarray, regions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Select the boxes [N, 4] of (region, class) pairs from [R, C, 4] or [R, 1, 4]."""
    return boxes[regions, labels if boxes.shape[1] > 1 else 0]


def load_detector(config: str | Path | DetectorConfig, weights_path: str | Path | None) -> FasterRCNN:
    """Build a detector in evaluation mode from its config, or the YAML file of one, and load its weights.

    Args:
        weights_path: `.safetensors`, or `.pdparams` as PaddleDetection writes them; None for random weights.

    Raises:
        ConfigError: the YAML file is wrong.
        CheckpointError: the weights cannot be read, or some parameters, which it names, do not fit.
    """
    detector = FasterRCNN(config if isinstance(config, DetectorConfig) else load_config(config))
    if weights_path is not None:
        load_into(detector, read_tensors(weights_path), str(weights_path))
    detector.eval()
    return detector
