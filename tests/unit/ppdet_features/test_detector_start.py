"""Weights that training starts from: a backbone, a detector of other classes, or random ones."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest
from micro_detector import SCENES, micro_config

from ppdet_features.detector import FasterRCNN
from ppdet_features.train_detector import main
from ppdet_features.weights import load_backbone, start_training
from unimo.errors import CheckpointError, ConfigError
from unimo.weights.files import write_safetensors
from unimo.weights.layers import tensors_of

BACKBONE, RES5 = "backbone.", "bbox_head.head."


def detector(seed: int, **changes):
    paddle.seed(seed)
    return FasterRCNN(micro_config(**changes))


def classifier(seed: int) -> dict[str, np.ndarray]:
    """An image classifier in PaddleDetection's names, with the layers of a detector."""
    found = {
        name.removeprefix(BACKBONE).removeprefix(RES5): value
        for name, value in tensors_of(detector(seed)).items()
        if name.startswith((BACKBONE, RES5))
    }
    return found | {"fc.weight": np.zeros((32, 10), np.float32), "fc.bias": np.zeros(10, np.float32)}


@pytest.mark.parametrize("suffix", ["safetensors", "pdparams"])
def test_a_backbone_fills_stem_and_stages_and_leaves_the_rest_fresh(tmp_path: Path, suffix: str):
    path, given = tmp_path / f"resnet.{suffix}", classifier(1)
    if suffix == "safetensors":
        write_safetensors(path, given)
    else:
        path.write_bytes(pickle.dumps(given, 2))
    filled, fresh, other = detector(2), tensors_of(detector(2)), tensors_of(detector(1))
    start_training(filled, None, str(path))
    for name, value in tensors_of(filled).items():
        wanted = other if name.startswith((BACKBONE, RES5)) else fresh
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)


def test_a_backbone_that_does_not_fit_is_refused(tmp_path: Path):
    given = classifier(1)
    del given["res5.res5a.branch2a.conv.weight"]
    write_safetensors(tmp_path / "cut.safetensors", given | {"layer1.weight": np.zeros(2, np.float32)})
    with pytest.raises(CheckpointError, match="missing: bbox_head.head.res5.*extra: backbone.layer1.weight"):
        load_backbone(detector(2), tmp_path / "cut.safetensors")


def test_a_detector_of_other_classes_gives_all_but_what_depends_on_them(tmp_path: Path, caplog):
    source = tensors_of(detector(1))
    write_safetensors(tmp_path / "d.safetensors", source)
    changes = {"num_classes": 3, "class_names": None, "num_attributes": 5, "attribute_names": None}
    other, fresh = detector(2, **changes), tensors_of(detector(2, **changes))
    with caplog.at_level(logging.WARNING):
        start_training(other, str(tmp_path / "d.safetensors"), None)
    kept = {name for name, value in tensors_of(other).items() if np.array_equal(value, source.get(name))}
    started = set(fresh) - kept
    assert started == {
        "bbox_head.bbox_score.weight",
        "bbox_head.bbox_score.bias",
        "bbox_head.bbox_delta.weight",
        "bbox_head.bbox_delta.bias",
        "attribute_head.cls_embedding.weight",
        "attribute_head.attr_score.weight",
        "attribute_head.attr_score.bias",
    }
    assert all(name in caplog.text for name in started)
    for name in started:
        np.testing.assert_array_equal(tensors_of(other)[name], fresh[name])


def test_attributes_may_come_new_or_stay_behind(tmp_path: Path):
    none = {"num_attributes": 0, "attribute_names": None}
    with_head, without = tensors_of(detector(1)), tensors_of(detector(1, **none))
    write_safetensors(tmp_path / "with.safetensors", with_head)
    write_safetensors(tmp_path / "without.safetensors", without)
    new, old = detector(2), detector(2, **none)
    start_training(new, str(tmp_path / "without.safetensors"), None)
    start_training(old, str(tmp_path / "with.safetensors"), None)
    for name, value in tensors_of(old).items():
        np.testing.assert_array_equal(value, with_head[name])
        np.testing.assert_array_equal(tensors_of(new)[name], without[name])
    cut = {name: value for name, value in with_head.items() if "bbox_score" not in name}
    write_safetensors(tmp_path / "cut.safetensors", cut)
    with pytest.raises(CheckpointError, match="2 missing: bbox_head.bbox_score"):
        start_training(detector(2), str(tmp_path / "cut.safetensors"), None)


@pytest.mark.parametrize(
    "key", ["ResNet.freeze_at=0", "ResNet.freeze_norm=true", "Res5Head.freeze_norm=true"]
)
def test_layers_that_would_stay_random_are_refused(tmp_path: Path, key: str):
    words = ["--config", str(SCENES), "--scenes", "--out", str(tmp_path / "out"), key]
    with pytest.raises(ConfigError, match=f"{key} without --init or --backbone: .* stay random"):
        main(words)
    assert not (tmp_path / "out").exists()
