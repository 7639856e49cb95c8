"""Convert weights under Detectron2's names (`backbone.res2.0.conv1.weight`) to the names of this detector.

The Caffe weights of bottom-up attention are distributed in this form. Detectron2 stores linear weights as
[out, in] where Paddle has [in, out], and its norms may lack statistics that were folded into the scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from unimo.errors import CheckpointError

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
_LINEAR = (
    "bbox_head.bbox_score",
    "bbox_head.bbox_delta",
    "attribute_head.fc_attr",
    "attribute_head.attr_score",
)
_CLASS_AXES = {"bbox_head.bbox_score": -1, "attribute_head.attr_score": -1, "attribute_head.cls_embedding": 0}
"""Axis of classes or attributes, the background among them, in our layout."""
_IGNORED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")
_BLOCK = re.compile(r"(?:backbone|roi_heads)\.res(\d)\.(\d+)\.(conv\d|shortcut)")


def convert(tensors: Mapping[str, np.ndarray], background_first: bool = False) -> dict[str, np.ndarray]:
    """Convert weights to our names and layout, float32.

    Args:
        tensors: tensors by Detectron2's names.
        background_first: whether class 0 and attribute 0 are background and "none", as in Caffe; Detectron2
            and this detector have them last.

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
        if layer in _LINEAR and kind == "weight":
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
    is_norm = layer.endswith(".norm")
    place = layer.removesuffix(".norm")
    if (is_norm and kind not in _NORM) or (not is_norm and kind != "weight"):
        place = ""
    tail = f"norm.{_NORM[kind]}" if is_norm and kind in _NORM else f"conv.{kind}"
    if place == "backbone.stem.conv1":
        return f"backbone.conv1.conv1.{tail}"
    found = _BLOCK.fullmatch(place)
    if not found or found[3] not in _CONVS:
        raise CheckpointError(
            f"the weights have {name}, which a Faster R-CNN C4 of Detectron2 does not have; expected names "
            "such as backbone.res2.0.conv1.weight and roi_heads.box_predictor.cls_score.weight"
        )
    stage, block = found[1], int(found[2])
    letter = f"b{block}" if many_blocks and stage == "4" and block else chr(ord("a") + block)
    parent = "bbox_head.head" if stage == "5" else "backbone"
    return f"{parent}.res{stage}.res{stage}{letter}.{_CONVS[found[3]]}.{tail}"
