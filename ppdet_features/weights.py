"""Weights that the training of a detector starts from, and weights under the names of Detectron2."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from paddle import nn

from unimo.errors import CheckpointError, ConfigError
from unimo.weights.files import read_tensors
from unimo.weights.layers import load_into

logger = logging.getLogger(__name__)
_ATTRIBUTES = "attribute_head."
_OF_CLASSES = ("bbox_head.bbox_score.", "bbox_head.bbox_delta.", _ATTRIBUTES)

# Names and layout of Detectron2.
_EPSILON = 1e-5
_CONVS = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "short"}
_NORM = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}
_HEADS = {
    "proposal_generator.rpn_head.conv": "rpn_head.rpn_feat.rpn_conv",
    "proposal_generator.rpn_head.objectness_logits": "rpn_head.rpn_rois_score",
    "proposal_generator.rpn_head.anchor_deltas": "rpn_head.rpn_rois_delta",
    "roi_heads.box_predictor.cls_score": "bbox_head.bbox_score",
    "roi_heads.box_predictor.bbox_pred": "bbox_head.bbox_delta",
    "roi_heads.box_predictor.cls_embedding": "attribute_head.cls_embedding",
    "roi_heads.box_predictor.fc_attr": "attribute_head.fc_attr",
    "roi_heads.box_predictor.attr_score": "attribute_head.attr_score",
}
_CLASS_AXES = {"bbox_head.bbox_score": -1, "attribute_head.attr_score": -1, "attribute_head.cls_embedding": 0}
"""Axis of classes or attributes, the background among them, in our layout."""
_IGNORED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")
_BLOCK = re.compile(r"(?:backbone|roi_heads)\.res(\d)\.(\d+)\.(conv\d|shortcut)")


def start_training(detector: nn.Layer, init: str | None, backbone: str | None) -> None:
    """Fill a fresh detector with the weights that its training starts from.

    Args:
        init: weights of a detector. Of one with other classes or attributes, all layers are taken but those
            whose shapes depend on them.
        backbone: weights of an image classifier, see `load_backbone`.

    Raises:
        ConfigError: neither is given, although layers that the config freezes would stay random.
        CheckpointError: the weights cannot be read or do not fit.
    """
    config = detector.config
    frozen = {
        f"ResNet.freeze_at={config.resnet.freeze_at}": config.resnet.freeze_at >= 0,
        "ResNet.freeze_norm=true": config.resnet.freeze_norm,
        "Res5Head.freeze_norm=true": config.res5.freeze_norm,
    }
    if init:
        _load_other_classes(detector, init)
    elif backbone:
        load_backbone(detector, backbone)
    elif any(frozen.values()):
        raise ConfigError(
            f"{', '.join(key for key, holds in frozen.items() if holds)} without --init or --backbone: these "
            "layers are never trained, so they would stay random. Give --backbone with an ImageNet ResNet in "
            "PaddleDetection's names, or --init with a detector; to train all from nothing: "
            "ResNet.freeze_at=-1 ResNet.freeze_norm=false Res5Head.freeze_norm=false"
        )


def load_backbone(detector: nn.Layer, path: str | Path) -> None:
    """Fill stem and res2 to res5 from an image classifier in PaddleDetection's names; the rest stays random.

    Raises:
        CheckpointError: the file cannot be read, or the message names every missing, extra and mis-shaped
            parameter.
    """
    tensors = {
        f"{'bbox_head.head' if name.startswith('res5.') else 'backbone'}.{name}": value
        for name, value in read_tensors(path).items()
        if not name.startswith("fc.")
    }
    load_into(detector, tensors, str(path), ignore=("rpn_head.", *_OF_CLASSES))


def _load_other_classes(detector: nn.Layer, path: str) -> None:
    tensors, state = read_tensors(path), detector.state_dict()
    fresh = [
        name
        for name in state
        if name.startswith(_OF_CLASSES)
        and (tensors[name].shape != tuple(state[name].shape) if name in tensors else _ATTRIBUTES in name)
    ]
    if fresh:
        logger.warning("%s is of other classes or attributes; fresh: %s", path, ", ".join(fresh))
    kept = {name: value for name, value in tensors.items() if name not in fresh}
    load_into(detector, kept, path, ignore=(*fresh, _ATTRIBUTES))


def convert_detectron2(
    tensors: Mapping[str, np.ndarray], background_first: bool = False
) -> dict[str, np.ndarray]:
    """Convert weights from Detectron2's names (`backbone.res2.0.conv1.weight`) and layout to ours, float32.

    The Caffe weights of bottom-up attention are distributed in this form. Detectron2 stores linear weights as
    [out, in] where Paddle has [in, out], and its norms may lack statistics that were folded into the scale.

    With `background_first` class 0 and attribute 0 are background and "none", as in Caffe; Detectron2 and
    this detector have them last.

    Raises:
        CheckpointError: a name that such a detector does not have.
    """
    blocks = {int(found[2]) for name in tensors if (found := _BLOCK.match(name)) and found[1] == "4"}
    converted = {}
    for name, array in tensors.items():
        if name.startswith(_IGNORED):
            continue
        ours = _our_name(name, many_blocks=len(blocks) > 10)
        layer, _, kind = ours.rpartition(".")
        if array.ndim == 2 and layer != "attribute_head.cls_embedding":
            array = array.T
        if background_first and layer in _CLASS_AXES:
            array = np.roll(array, -1, axis=_CLASS_AXES[layer])
        elif background_first and layer == "bbox_head.bbox_delta":
            array = array[..., 4:]  # the background has no box
        converted[ours] = np.ascontiguousarray(array, np.float32)
    for name, scale in list(converted.items()):
        norm, _, kind = name.rpartition(".")
        if norm.endswith(".norm") and kind == "weight":
            converted.setdefault(f"{norm}._mean", np.zeros_like(scale))
            converted.setdefault(f"{norm}._variance", np.full_like(scale, 1.0 - _EPSILON))
    return converted


def _our_name(name: str, many_blocks: bool) -> str:
    layer, _, kind = name.rpartition(".")
    if layer in _HEADS:
        return f"{_HEADS[layer]}.{kind}"
    place, is_norm = layer.removesuffix(".norm"), layer.endswith(".norm")
    kinds = _NORM if is_norm else {"weight": "weight"}
    is_stem, found = place == "backbone.stem.conv1", _BLOCK.fullmatch(place)
    if kind not in kinds or not (is_stem or (found and found[3] in _CONVS)):
        raise CheckpointError(
            f"the weights have {name}, which a Faster R-CNN C4 of Detectron2 does not have; expected names "
            "such as backbone.res2.0.conv1.weight and roi_heads.box_predictor.cls_score.weight"
        )
    tail = f"{'norm' if is_norm else 'conv'}.{kinds[kind]}"
    if is_stem:
        return f"backbone.conv1.conv1.{tail}"
    stage, block = found[1], int(found[2])
    letter = f"b{block}" if many_blocks and stage == "4" and block else chr(ord("a") + block)
    parent = "bbox_head.head" if stage == "5" else "backbone"
    return f"{parent}.res{stage}.res{stage}{letter}.{_CONVS[found[3]]}.{tail}"
