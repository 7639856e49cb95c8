"""Losses against NumPy, gradients, batches, learning of one picture, and the tool on a COCO file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from micro_detector import SCENES, micro_config, micro_detector, write_coco
from PIL import Image

from ppdet_features.annotated_images import AnnotatedImages, ScenesImages
from ppdet_features.batches import DetectionBatch, ImageStream, train_loader
from ppdet_features.boxes import Targets, encode, region_targets, rpn_targets
from ppdet_features.coco import evaluate
from ppdet_features.config import DetectorConfig
from ppdet_features.detector import FasterRCNN, load_detector
from ppdet_features.heads import anchors_of
from ppdet_features.losses import detection_losses, smooth_l1
from ppdet_features.train_detector import main
from ppdet_features.training import DetectorRun, build
from unimo.data.images.open import open_image
from unimo.errors import ConfigError, DataError, TrainingError
from unimo.training import checkpoint
from unimo.training.loop import carry_out, only_run_in


def first_batch(pictures: AnnotatedImages, config: DetectorConfig) -> DetectionBatch:
    with contextlib.closing(train_loader(pictures, config)) as loader:
        return next(loader)


def batch(detector: FasterRCNN, number: int = 3) -> tuple[paddle.Tensor, list[Targets]]:
    first = first_batch(ScenesImages("train", number, detector.config), detector.config)
    return paddle.to_tensor(first.images[:number]), first.targets[:number]


def huber(difference: np.ndarray, beta: float) -> float:
    size = np.abs(difference)
    return float(np.where(size < beta, size**2 / (2 * beta), size - beta / 2).sum())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def test_smooth_l1_equals_its_formula():
    values = np.linspace(-3, 3, 25).astype(np.float32)
    for beta in (0.111, 1.0):
        assert float(smooth_l1(paddle.to_tensor(values), beta)) == pytest.approx(
            huber(values, beta), rel=1e-5
        )
    assert float(smooth_l1(paddle.to_tensor(values), 0.0)) == pytest.approx(np.abs(values).sum(), rel=1e-5)


def test_losses_equal_a_numpy_reading():
    detector = micro_detector()  # eval mode: norms do not depend on the batch
    head = detector.attribute_head.attr_score.weight  # Paddle cuts logits off 64 below the largest
    head.set_value(head * 0.05)
    config, (images, targets) = detector.config, batch(detector)
    losses = detection_losses(detector, images, targets, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    res4 = detector.backbone(images)
    scores, deltas = detector.rpn_head(res4)
    anchors = anchors_of(*scores.shape[2:], config.rpn.anchor_generator).reshape(-1, 4)
    score = scores.numpy().transpose(0, 2, 3, 1).reshape(3, -1).astype(np.float64)
    delta = deltas.numpy().transpose(0, 2, 3, 1).reshape(3, -1, 4)
    entropy = distance = 0.0
    for i, target in enumerate(targets):
        positive, background, wanted = rpn_targets(anchors, target, config.rpn.rpn_target_assign, rng)
        entropy += np.log1p(np.exp(-score[i, positive])).sum() + np.log1p(np.exp(score[i, background])).sum()
        distance += huber(delta[i, positive] - wanted, 0.111)
    assert float(losses["rpn_class"]) == pytest.approx(entropy / (3 * 64), rel=1e-5)
    assert float(losses["rpn_box"]) == pytest.approx(distance / (3 * 64), rel=1e-5)

    proposals = detector.rpn_head.propose(scores, deltas, (128, 128), config.rpn.train_proposal)
    entropy = distance = shares = 0.0
    regions = objects = 0
    for i, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
        chosen, of = region_targets(boxes.numpy(), target, config.assigner, rng)
        features = detector.bbox_head.features(res4[i : i + 1], [paddle.to_tensor(chosen)])
        logits, moves = (x.numpy() for x in detector.bbox_head(features))
        labels = np.concatenate([target.labels[of], np.full(len(chosen) - len(of), 4)])
        entropy -= log_softmax(logits)[np.arange(len(labels)), labels].sum()
        wanted = encode(chosen[: len(of)], target.boxes[of], (10, 10, 5, 5))
        distance += huber(moves[np.arange(len(of)), target.labels[of]] - wanted, 1.0)
        answers = detector.attribute_head(features[: len(of)], paddle.to_tensor(target.labels[of])).numpy()
        shares -= (log_softmax(answers)[:, :-1] * target.attributes[of] / 2).sum()  # two attributes each
        regions, objects = regions + len(labels), objects + len(of)
    assert float(losses["class"]) == pytest.approx(entropy / regions, rel=1e-4)
    assert float(losses["box"]) == pytest.approx(distance / regions, rel=1e-4)
    assert float(losses["attribute"]) == pytest.approx(shares / objects, rel=1e-4)


def test_every_trainable_parameter_gets_a_gradient():
    detector = micro_detector()
    detector.train()
    losses = detection_losses(detector, *batch(detector), np.random.default_rng(0))
    sum(losses.values()).backward()
    without = [
        name
        for name, parameter in detector.named_parameters()
        if not parameter.stop_gradient and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    assert without == []


def test_pictures_without_objects_are_background():
    detector = micro_detector()
    nothing = Targets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 8), np.float32))
    losses = detection_losses(detector, paddle.randn([2, 3, 64, 64]), [nothing] * 2, np.random.default_rng(0))
    assert float(losses["class"]) > 0 and float(losses["rpn_class"]) > 0
    assert float(losses["box"]) == float(losses["rpn_box"]) == float(losses["attribute"]) == 0.0
    sum(losses.values()).backward()


def test_mirrored_pictures_keep_their_boxes():
    config = micro_config(Training={"batch_size": 8})
    pictures = ScenesImages("train", 4, config)
    first = first_batch(pictures, config)
    still = first_batch(pictures, micro_config(Training={"batch_size": 8, "flip": False}))
    mirrored = [not np.array_equal(a, b) for a, b in zip(first.images, still.images, strict=True)]
    assert any(mirrored) and not all(mirrored)
    for image, target in zip(first.images, first.targets, strict=True):
        for x1, y1, x2, y2 in np.round(target.boxes).astype(int):
            middle = image[:, (y1 + y2) // 2, (x1 + x2) // 2 - 2 : (x1 + x2) // 2 + 2].mean(axis=1)
            assert np.abs(middle - image[:, 0, 0]).max() > 0.1


def test_every_order_shows_each_picture_once_and_ranks_share_it():
    config = micro_config(Training={"batch_size": 4, "flip": False})
    pictures = ScenesImages("train", 6, config)
    with contextlib.closing(train_loader(pictures, config)) as loader:
        alone = [next(loader) for _ in range(3)]
    ids = [name for batch in alone for name in batch.sample_ids]
    assert sorted(ids[:6]) == sorted(ids[6:]) == list("012345")
    assert ids[:6] != ids[6:]
    assert len({batch.draw_seed for batch in alone}) == 3
    with (
        contextlib.closing(train_loader(pictures, config, 0, 2)) as first,
        contextlib.closing(train_loader(pictures, config, 1, 2)) as second,
    ):
        for whole in alone:
            parts = [next(first), next(second)]
            assert parts[0].sample_ids + parts[1].sample_ids == whole.sample_ids
            np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
            draws = [np.random.default_rng(b.draw_seed).random() for b in (whole, *parts)]
            assert draws[0] == draws[1] != draws[2]


def test_the_draws_of_a_seed_stay():
    """So a detector can be trained again: order, mirroring and the draws of a step follow these numbers."""
    config = micro_config(Training={"batch_size": 2, "seed": 7})
    with contextlib.closing(train_loader(ScenesImages("train", 3, config), config)) as loader:
        batches = [next(loader) for _ in range(3)]
    order = [np.random.default_rng([7, 0, epoch]).permutation(3) for epoch in range(2)]
    assert [int(name) for batch in batches for name in batch.sample_ids] == np.concatenate(order).tolist()
    stream = ImageStream(3, config.train)
    for place in range(6):
        assert stream[place].flip == (np.random.default_rng([7, 1, place]).random() < 0.5)
    for step, batch in enumerate(batches):
        wanted = np.random.default_rng([7, 2, step]).random(4)
        np.testing.assert_array_equal(np.random.default_rng(batch.draw_seed).random(4), wanted)


def test_one_picture_is_learned_by_heart(tmp_path: Path):
    changes = {
        "ResNet": {"freeze_norm": True, "width": 8, "ch_in": 8},
        "Res5Head": {"freeze_norm": True},
        "Training": {"steps": 60, "batch_size": 1, "warmup": 5, "flip": False, "learning_rate": 0.004},
    }
    paddle.seed(0)
    detector = FasterRCNN(micro_config(**changes))
    pictures = ScenesImages("train", 1, detector.config)
    state = build(detector, pictures, DetectorRun.of(detector.config, tmp_path))
    with only_run_in(tmp_path):
        carry_out(state, None, "")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 20, 40, 60]
    assert lines[-1]["loss"] < 0.4 * lines[0]["loss"]
    assert evaluate(detector, pictures)["map50"] == pytest.approx(1.0)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path):
    config = micro_config(Training={"steps": 2, "batch_size": 1})
    detector = FasterRCNN(config)
    detector.bbox_head.bbox_score.bias.set_value(paddle.full([5], float("nan")))
    state = build(detector, ScenesImages("train", 2, config), DetectorRun.of(config, tmp_path))
    with only_run_in(tmp_path), pytest.raises(TrainingError, match="loss of step 1 is not finite .loss nan"):
        carry_out(state, None, "")
    assert checkpoint.find_last(tmp_path) is None


def test_a_missing_picture_ends_training_by_name(tmp_path: Path):
    config = micro_config(Training={"batch_size": 2})
    pictures = ScenesImages("train", 4, config)

    def missing(index: int) -> Image.Image:
        return open_image(tmp_path / f"{index}.png")

    pictures.image = missing
    with pytest.raises(DataError, match="cannot read image .*png"):
        first_batch(pictures, config)


def test_the_tool_trains_on_a_coco_file(tmp_path: Path, capsys: pytest.CaptureFixture):
    config = micro_config()
    write_coco(tmp_path, ScenesImages("train", 4, config), 4)
    out = tmp_path / "out"
    words = [
        "--config",
        str(SCENES),
        "--annotations",
        str(tmp_path / "boxes.json"),
        "--out",
        str(out),
        "--quiet",
    ]
    words += ["--val-annotations", str(tmp_path / "boxes.json"), "--val-images", str(tmp_path)]
    main([*words, "ResNet.width=4", "ResNet.ch_in=4", "Training.steps=2", "Training.batch_size=2"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["step"] == 2 and "map50" in printed
    assert json.loads((out / "metrics.json").read_text()) == printed
    assert not load_detector(out / "config.yaml", out / "model.safetensors").training
    with pytest.raises(ConfigError, match="either --annotations"):
        main(["--config", str(SCENES), "--out", str(out)])


def test_a_missing_metric_is_found_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ppdet_features.coco.importlib.util.find_spec", lambda _: None)
    words = [
        "--config",
        "ppdet_features/configs/scenes_tiny.yaml",
        "--scenes",
        "--out",
        str(tmp_path / "out"),
    ]
    with pytest.raises(ConfigError, match=r'needs pycocotools: pip install .*"\.\[detector\]"'):
        main(words)
    assert not (tmp_path / "out").exists()
