"""Weights of a detector from disk: our safetensors, or what PaddleDetection and Detectron2 saved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from unimo.data.readers.numpy_pickle import read_numpy_pickle
from unimo.errors import CheckpointError, ConfigError, DataError
from unimo.weights.files import load_into, read_safetensors

logger = logging.getLogger(__name__)
_ATTRIBUTES = "attribute_head."
_OF_CLASSES = ("bbox_head.bbox_score.", "bbox_head.bbox_delta.", _ATTRIBUTES)
_PICKLES = (".pdparams", ".pkl")
# What stands beside the arrays in PaddleDetection's files.
_NAME_TABLE = "StructuredToParameterName@@"


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors by name from `.safetensors`, `.pdparams` or Detectron2's `.pkl`; no code in a pickle is run.

    Raises:
        CheckpointError: missing, damaged, or a pickle with anything but arrays.
    """
    path = Path(path)
    if path.suffix not in _PICKLES:
        return read_safetensors(path)
    try:
        content = read_numpy_pickle(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    tensors = content.get("model", content)  # Detectron2 wraps them
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: 'model' is no mapping; expected arrays by name")
    named = {_text(name): value for name, value in tensors.items() if _text(name) != _NAME_TABLE}
    wrong = [name for name, value in named.items() if not isinstance(value, np.ndarray)]
    if wrong:
        raise CheckpointError(
            f"{path}: {wrong[0]} is {type(named[wrong[0]]).__name__}; expected arrays by name"
        )
    return named


def _text(name: Any) -> str:
    return name.decode("utf8", "replace") if isinstance(name, bytes) else str(name)


def load_weights(detector: nn.Layer, path: str | Path) -> None:
    """Fill a detector, or change nothing.

    Raises:
        CheckpointError: unreadable, or names every missing, extra and mis-shaped parameter.
    """
    load_into(detector, read_weights(path), str(path))


def start_training(detector: nn.Layer, init: str | None, backbone: str | None) -> None:
    """Fill a fresh detector with the weights that its training starts from.

    Args:
        detector: what is trained.
        init: weights of a detector; one of other classes or attributes gives all but what depends on them.
        backbone: weights of an image classifier, see `load_backbone`.

    Raises:
        ConfigError: neither of them, although layers that the config freezes would stay random.
        CheckpointError: weights that cannot be read or do not fit.
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
    """Fill stem and res2 to res5 from an image classifier in PaddleDetection's names; the rest stays fresh.

    Raises:
        CheckpointError: unreadable, or names every missing, extra and mis-shaped parameter.
    """
    tensors = {
        f"{'bbox_head.head' if name.startswith('res5.') else 'backbone'}.{name}": value
        for name, value in read_weights(path).items()
        if not name.startswith("fc.")
    }
    load_into(detector, tensors, str(path), ignore=("rpn_head.", *_OF_CLASSES))


def _load_other_classes(detector: nn.Layer, path: str) -> None:
    tensors, state = read_weights(path), detector.state_dict()
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
