"""The network: its names, batches, gradients, and weights that fit or do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from micro_detector import SCENES, micro_config, micro_detector
from PIL import Image

from ppdet_features.config import dump_config, load_config
from ppdet_features.detector import FasterRCNN, load_detector, preprocess, resized_size
from unimo.errors import CheckpointError
from unimo.weights.files import write_safetensors
from unimo.weights.layers import tensors_of

BOTTOM_UP = SCENES.with_name("bottom_up_r101_c4.yaml")


def test_pictures_of_a_batch_are_as_if_alone():
    detector = micro_detector()
    images = paddle.randn([3, 3, 96, 128])
    together = detector.detect(images)
    for i, found in enumerate(together):
        alone = detector.detect(images[i : i + 1])[0]
        assert len(found) == len(alone) >= 4
        for name in ("boxes", "features", "class_probs", "scores", "labels", "attributes"):
            np.testing.assert_allclose(getattr(found, name), getattr(alone, name), atol=1e-5, err_msg=name)


def test_what_a_detection_holds():
    detector = micro_detector()
    found = detector.detect(paddle.randn([1, 3, 64, 80]))[0]
    number = len(found)
    assert found.features.shape == (number, detector.feature_size) == (number, 32)
    assert found.boxes.dtype == found.features.dtype == np.float32
    assert found.boxes.min() >= 0 and (found.boxes <= [80, 64, 80, 64]).all()
    assert found.class_probs.shape == (number, 4) and (found.class_probs.sum(axis=1) < 1).all()
    np.testing.assert_allclose(found.attributes.sum(axis=1), 1, atol=1e-5)
    without = micro_detector(num_attributes=0, attribute_names=None)
    assert without.detect(paddle.randn([1, 3, 64, 80]))[0].attributes is None


def test_a_feature_is_that_of_its_proposal():
    detector = micro_detector(RegionSelection={"boxes": "proposals"})
    images = paddle.randn([1, 3, 64, 64])
    found = detector.detect(images)[0]
    boxes = paddle.to_tensor(found.boxes)
    features = detector.bbox_head.features(detector.backbone(images), [boxes])
    np.testing.assert_allclose(features.numpy(), found.features, atol=1e-5)


def test_names_are_those_of_paddledetection():
    config = load_config(BOTTOM_UP)
    state = FasterRCNN(config).state_dict()
    own = [name for name in state if not name.startswith("attribute_head.")]
    # 104 convolutions with a norm: stem, 10 of res2, 13 of res3, 70 of res4, 10 of res5. 10 tensors of heads.
    assert len(own) == 104 * 5 + 10
    expected = {
        "backbone.conv1.conv1.conv.weight": [64, 3, 7, 7],
        "backbone.conv1.conv1.norm._mean": [64],
        "backbone.res2.res2a.short.conv.weight": [256, 64, 1, 1],
        "backbone.res4.res4b22.branch2c.norm._variance": [1024],
        "bbox_head.head.res5.res5a.branch2b.conv.weight": [512, 512, 3, 3],
        "rpn_head.rpn_feat.rpn_conv.weight": [512, 1024, 3, 3],
        "rpn_head.rpn_rois_score.weight": [12, 512, 1, 1],
        "rpn_head.rpn_rois_delta.bias": [48],
        "bbox_head.bbox_score.weight": [2048, 1601],
        "bbox_head.bbox_delta.weight": [2048, 6400],
    }
    assert {name: state[name].shape for name in expected} == expected


def test_shortest_side_and_colours_of_caffe():
    config = load_config(BOTTOM_UP)
    assert resized_size(640, 480, config) == (800, 600)
    assert resized_size(2000, 500, config) == (1000, 250)
    assert resized_size(1, 3000, config) == (1, 1000)
    image = Image.new("RGB", (30, 20), (10, 20, 30))
    pixels = preprocess(image, config)
    assert pixels.shape == (3, 600, 900) and pixels.dtype == np.float32
    np.testing.assert_allclose(
        pixels[:, 7, 9], np.array([30, 20, 10]) - [102.9801, 115.9465, 122.7717], rtol=1e-5
    )
    scenes = preprocess(image.resize((64, 64)), micro_config())
    np.testing.assert_allclose(scenes[:, 0, 0], (np.array([10, 20, 30]) / 255 - 0.5) / 0.25, rtol=1e-5)


def test_only_unfrozen_parameters_get_gradients():
    detector = FasterRCNN(micro_config(ResNet={"freeze_at": 1, "freeze_norm": True}))
    trainable = {name for name, p in detector.named_parameters() if not p.stop_gradient}
    stages = {name.split(".")[1] for name in trainable if name.startswith("backbone.")}
    assert stages == {"res4"} and not any("norm" in name for name in trainable if "backbone" in name)


def test_a_file_that_paddle_saved_loads_as_it_is(tmp_path: Path):
    detector = micro_detector()
    paddle.save(detector.state_dict(), str(tmp_path / "model.pdparams"))
    (tmp_path / "config.yaml").write_text(dump_config(detector.config), encoding="utf8")
    loaded = load_detector(tmp_path / "config.yaml", tmp_path / "model.pdparams")
    assert not loaded.training
    images = paddle.randn([1, 3, 64, 64])
    np.testing.assert_array_equal(detector.detect(images)[0].features, loaded.detect(images)[0].features)


def test_weights_of_another_config_name_the_parameters(tmp_path: Path):
    write_safetensors(tmp_path / "model.safetensors", tensors_of(micro_detector()))
    with pytest.raises(CheckpointError, match="bbox_head.bbox_score.weight"):
        load_detector(micro_detector(num_classes=7, class_names=None).config, tmp_path / "model.safetensors")


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path):
    evil = tmp_path / "evil.pdparams"
    evil.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(CheckpointError, match="os.system"):
        load_detector(micro_detector().config, evil)
    assert not (tmp_path / "ran").exists()
