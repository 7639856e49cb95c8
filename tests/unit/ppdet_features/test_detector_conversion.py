"""Detectron2 weights: a small file, read by NumPy as Detectron2 defines it, against the converted network."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest
from micro_detector import SCENES

from ppdet_features.config import DetectorConfig, load_config
from ppdet_features.convert_weights import main
from ppdet_features.detector import FasterRCNN, load_detector
from ppdet_features.weights import convert_detectron2
from unimo.errors import CheckpointError
from unimo.weights.layers import load_into

WIDTH, CLASSES, ATTRIBUTES, ANCHORS = 4, 5, 3, 12
COUNTS = {2: 3, 3: 4, 4: 23, 5: 3}
OVERRIDES = {
    "num_classes": CLASSES,
    "num_attributes": ATTRIBUTES,
    "ResNet": {"width": WIDTH, "ch_in": 4},
    "RPNHead": {"channels": 6},
}
BOTTOM_UP = SCENES.with_name("bottom_up_r101_c4.yaml")
Tensors = dict[str, np.ndarray]


def small_config() -> DetectorConfig:
    return load_config(BOTTOM_UP, OVERRIDES)


def conv(tensors: Tensors, rng: np.random.Generator, name: str, out: int, into: int, side: int) -> None:
    """A convolution and its norm under Detectron2's names."""
    scale = 1.0 / np.sqrt(into * side * side)
    tensors[f"{name}.weight"] = (rng.normal(size=(out, into, side, side)) * scale).astype(np.float32)
    for kind, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
        tensors[f"{name}.norm.{kind}"] = rng.uniform(low, low + 1, out).astype(np.float32)


def small_file() -> Tensors:
    """All tensors of a network of width 4, as Detectron2 names them."""
    rng, tensors = np.random.default_rng(0), {}
    conv(tensors, rng, "backbone.stem.conv1", 4, 3, 7)
    into = 4
    for stage, count in COUNTS.items():
        inner = WIDTH * 2 ** (stage - 2)
        for i in range(count):
            block = f"{'roi_heads' if stage == 5 else 'backbone'}.res{stage}.{i}"
            conv(tensors, rng, f"{block}.conv1", inner, into, 1)
            conv(tensors, rng, f"{block}.conv2", inner, inner, 3)
            conv(tensors, rng, f"{block}.conv3", 4 * inner, inner, 1)
            if i == 0:
                conv(tensors, rng, f"{block}.shortcut", 4 * inner, into, 1)
            into = 4 * inner
    feature = into
    shapes = {
        "proposal_generator.rpn_head.conv": (6, feature // 2, 3, 3),
        "proposal_generator.rpn_head.objectness_logits": (ANCHORS, 6, 1, 1),
        "proposal_generator.rpn_head.anchor_deltas": (4 * ANCHORS, 6, 1, 1),
        "roi_heads.box_predictor.cls_score": (CLASSES + 1, feature),
        "roi_heads.box_predictor.bbox_pred": (4 * CLASSES, feature),
        "roi_heads.box_predictor.fc_attr": (feature // 4, feature + feature // 8),
        "roi_heads.box_predictor.attr_score": (ATTRIBUTES + 1, feature // 4),
    }
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = (rng.normal(size=shape) * 0.1).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(size=shape[0]).astype(np.float32)
    embedding = rng.normal(size=(CLASSES + 1, feature // 8)).astype(np.float32)
    tensors["roi_heads.box_predictor.cls_embedding.weight"] = embedding
    tensors["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((ANCHORS, 4), np.float32)
    return tensors


class PlainDetectron2:
    """The forward pass of the network in NumPy, from Detectron2's names and definitions alone."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors

    def conv(
        self, x: np.ndarray, name: str, stride: int = 1, padding: int = 0, dilation: int = 1
    ) -> np.ndarray:
        """One picture [C, H, W] through a convolution and its frozen norm."""
        weight = self.tensors[f"{name}.weight"]
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        reach = dilation * (weight.shape[2] - 1) + 1
        windows = np.lib.stride_tricks.sliding_window_view(x, (reach, reach), axis=(1, 2))
        windows = windows[:, ::stride, ::stride, ::dilation, ::dilation]
        x = np.einsum("chwij,ocij->ohw", windows, weight)
        scale, bias, mean, variance = (
            self.tensors[f"{name}.norm.{kind}"][:, None, None]
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias

    def block(self, x: np.ndarray, name: str, stride: int, dilation: int) -> np.ndarray:
        """A bottleneck with its stride in the first 1x1 convolution."""
        y = np.maximum(self.conv(x, f"{name}.conv1", stride), 0)
        y = np.maximum(self.conv(y, f"{name}.conv2", 1, dilation, dilation), 0)
        y = self.conv(y, f"{name}.conv3")
        short = f"{name}.shortcut"
        return np.maximum(y + (self.conv(x, short, stride) if f"{short}.weight" in self.tensors else x), 0)

    def res4(self, image: np.ndarray) -> np.ndarray:
        """A picture [3, H, W] to res4; the pooling has no padding and rounds its size up."""
        x = np.maximum(self.conv(image, "backbone.stem.conv1", 2, 3), 0)
        out = [-(-(side - 3) // 2) + 1 for side in x.shape[1:]]
        pooled = np.empty((x.shape[0], *out))
        for i in range(out[0]):
            for j in range(out[1]):
                pooled[:, i, j] = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2))
        x = pooled
        for stage in (2, 3, 4):
            for i in range(COUNTS[stage]):
                x = self.block(x, f"backbone.res{stage}.{i}", 2 if stage > 2 and i == 0 else 1, 1)
        return x

    def head(self, region: np.ndarray) -> tuple[np.ndarray, ...]:
        """A cut-out [C, S, S] to its feature, class logits, deltas and attribute logits."""
        for i in range(COUNTS[5]):
            region = self.block(region, f"roi_heads.res5.{i}", 1, 2)
        feature = region.mean(axis=(1, 2))
        scores = self.linear(feature, "cls_score")
        embedding = self.tensors["roi_heads.box_predictor.cls_embedding.weight"][scores.argmax()]
        hidden = np.maximum(self.linear(np.concatenate([feature, embedding]), "fc_attr"), 0)
        return feature, scores, self.linear(feature, "bbox_pred"), self.linear(hidden, "attr_score")

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        """A linear layer of the predictor."""
        layer = f"roi_heads.box_predictor.{name}"
        return self.tensors[f"{layer}.weight"] @ x + self.tensors[f"{layer}.bias"]


def test_the_converted_network_computes_what_detectron2_defines():
    tensors = small_file()
    detector = FasterRCNN(small_config())
    load_into(detector, convert_detectron2(tensors), "small file")
    detector.eval()
    plain, rng = PlainDetectron2(tensors), np.random.default_rng(1)
    image = rng.normal(size=(3, 61, 94)).astype(np.float32)
    res4 = detector.backbone(paddle.to_tensor(image[None]))
    expected = plain.res4(image)
    np.testing.assert_allclose(res4.numpy()[0], expected, atol=1e-4 * np.abs(expected).max())
    region = rng.normal(size=(WIDTH * 16, 7, 7)).astype(np.float32)
    feature, scores, deltas, attributes = plain.head(region)
    found = detector.bbox_head.head(paddle.to_tensor(region[None]))
    np.testing.assert_allclose(found.numpy()[0], feature, atol=1e-4 * np.abs(feature).max())
    logits, boxes = detector.bbox_head(found)
    np.testing.assert_allclose(logits.numpy()[0], scores, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(boxes.numpy().ravel(), deltas, rtol=1e-3, atol=1e-3)
    answer = detector.attribute_head(found, logits.argmax(axis=-1))
    np.testing.assert_allclose(answer.numpy()[0], attributes, rtol=1e-3, atol=1e-3)


def test_background_first_becomes_last():
    tensors = small_file()
    last, first = convert_detectron2(tensors), {}
    for name, array in tensors.items():
        layer = name.split(".")[-2]
        first[name] = (
            np.roll(array, 1, axis=0) if layer in ("cls_score", "attr_score", "cls_embedding") else array
        )
        if layer == "bbox_pred":
            first[name] = np.concatenate([np.full_like(array[:4], 7.0), array])  # boxes of background
    converted = convert_detectron2(first, background_first=True)
    assert converted.keys() == last.keys()
    for name, array in converted.items():
        np.testing.assert_array_equal(array, last[name], err_msg=name)


def test_norms_without_statistics_scale_only():
    tensors = {name: array for name, array in small_file().items() if ".running_" not in name}
    converted = convert_detectron2(tensors)
    variance = converted["backbone.res4.res4b22.branch2c.norm._variance"]
    np.testing.assert_allclose(np.sqrt(variance + 1e-5), 1.0, atol=1e-6)
    assert not converted["backbone.conv1.conv1.norm._mean"].any()


def test_the_tool_writes_a_folder_that_loads(tmp_path: Path):
    with open(tmp_path / "small.pkl", "wb") as file:
        pickle.dump({"model": small_file(), "__author__": "nobody"}, file)
    words = ["ResNet.width=4", "ResNet.ch_in=4", "RPNHead.channels=6", "num_classes=5", "num_attributes=3"]
    where = [
        "--weights",
        str(tmp_path / "small.pkl"),
        "--config",
        str(BOTTOM_UP),
        "--out",
        str(tmp_path / "out"),
    ]
    main([*where, *words])
    detector = load_detector(tmp_path / "out/config.yaml", tmp_path / "out/model.safetensors")
    expected = convert_detectron2(small_file())
    for name, value in detector.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), expected[name], err_msg=name)
    paddle.seed(0)
    found = detector.detect(paddle.randn([1, 3, 192, 256]))[0]
    assert len(found) >= 10 and found.features.shape[1] == 128
    with pytest.raises(CheckpointError, match="cls_embedding"):
        main([*where, *words[:-1], "num_attributes=0"])


def test_foreign_names_are_refused():
    with pytest.raises(CheckpointError, match="backbone.fpn_lateral2.weight"):
        convert_detectron2({"backbone.fpn_lateral2.weight": np.zeros((1, 1), np.float32)})
