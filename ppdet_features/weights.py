"""Weights that the training of a detector starts from: a detector, or an image classifier as its backbone."""

from __future__ import annotations

import logging
from pathlib import Path

from paddle import nn

from unimo.errors import ConfigError
from unimo.weights.files import read_tensors
from unimo.weights.layers import load_into

logger = logging.getLogger(__name__)
_ATTRIBUTES = "attribute_head."
_OF_CLASSES = ("bbox_head.bbox_score.", "bbox_head.bbox_delta.", _ATTRIBUTES)


def start_training(detector: nn.Layer, init: str | None, backbone: str | None) -> None:
    """Fill a fresh detector with the weights that its training starts from.

    Args:
        detector: the detector, with random weights.
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
