"""A detector of few channels, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle

from ppdet_features.config import DetectorConfig, load_config
from ppdet_features.detector import FasterRCNN, build_detector
from unimo.config import merge_plain

SCENES = Path(__file__).resolve().parents[2] / "ppdet_features" / "configs" / "scenes_tiny.yaml"
MICRO = {
    "ResNet": {"width": 4, "ch_in": 4},
    "RPNHead": {"test_proposal": {"post_nms_top_n": 12}},
}


def micro_config(**changes: Any) -> DetectorConfig:
    """The `scenes` detector with width 4; `changes` are sections or keys of its YAML."""
    return load_config(SCENES, merge_plain(MICRO, changes))


def micro_detector(**changes: Any) -> FasterRCNN:
    """It with seeded weights, and norms that are no identity."""
    paddle.seed(5)
    detector = build_detector(micro_config(**changes))
    for name, value in detector.state_dict().items():
        if ".norm." in name:
            value.set_value(paddle.uniform(value.shape, min=0.5, max=1.5))
    detector.eval()
    return detector
