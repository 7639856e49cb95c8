"""YAML files of detectors: keys, values and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from micro_detector import SCENES

from ppdet_features.config import DetectorConfig, dump_config, load_config
from unimo.errors import ConfigError

# Reader, schedule, data and runtime in the words of PaddleDetection's own files.
PADDLEDETECTION = """
architecture: FasterRCNN
pretrain_weights: https://example.org/ResNet101_pretrained.pdparams
weights: output/faster_rcnn_r101/model_final
metric: COCO
num_classes: 80
TrainDataset:
  !COCODataSet
    image_dir: train2017
    data_fields: ['image', 'gt_bbox', 'gt_class', 'is_crowd']
EvalDataset:
  !COCODataSet
    image_dir: val2017
TestDataset:
  !ImageFolder
    anno_path: annotations/instances_val2017.json
use_gpu: true
use_xpu: false
log_iter: 20
save_dir: output
snapshot_epoch: 1
print_flops: false
export: {post_process: True, nms: True, benchmark: False}
epoch: 12
LearningRate:
  base_lr: 0.01
  schedulers:
  - !PiecewiseDecay
    gamma: 0.1
    milestones: [8, 11]
  - !LinearWarmup
    start_factor: 0.1
    steps: 1000
OptimizerBuilder:
  optimizer: {momentum: 0.9, type: Momentum}
FasterRCNN: {backbone: ResNet, rpn_head: RPNHead, bbox_head: BBoxHead, bbox_post_process: BBoxPostProcess}
ResNet: {depth: 101, norm_type: bn, freeze_at: 0, return_idx: [2], num_stages: 3}
RPNHead:
  anchor_generator: {aspect_ratios: [0.5, 1.0, 2.0], anchor_sizes: [32, 64, 128, 256, 512], strides: [16]}
  train_proposal: {nms_thresh: 0.7, pre_nms_top_n: 12000, post_nms_top_n: 2000, topk_after_collect: False}
  test_proposal: {min_size: 0.0, nms_thresh: 0.7, pre_nms_top_n: 6000, post_nms_top_n: 1000}
BBoxHead:
  head: Res5Head
  roi_extractor: {resolution: 14, sampling_ratio: 0, aligned: True}
  bbox_assigner: BBoxAssigner
  with_pool: true
worker_num: 2
TrainReader:
  sample_transforms:
  - RandomFlip: {prob: 0.5}
EvalReader:
  drop_empty: false
TestReader:
  sample_transforms:
  - Decode: {}
  - Resize: {interp: 2, target_size: [800, 1333], keep_ratio: True}
  - NormalizeImage: {is_scale: true, mean: [0.485,0.456,0.406], std: [0.229, 0.224,0.225]}
  - Permute: {}
  batch_transforms:
  - PadBatch: {pad_to_stride: -1}
  batch_size: 1
  shuffle: false
  drop_last: false
"""


def test_a_file_of_paddledetection_is_read_as_it_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "r101.yaml"
    path.write_text(PADDLEDETECTION, encoding="utf8")
    config = load_config(path)
    (message,) = caplog.messages
    assert message.startswith("r101.yaml: read and without effect: pretrain_weights, weights, metric, ")
    assert message.endswith(", EvalReader, TestReader.batch_transforms") and "ResNet" not in message
    assert config.resnet.depth == 101 and config.rpn.test_proposal.post_nms_top_n == 1000
    assert config.reader.sample_transforms.Resize.interp == 2
    assert config.classes[79] == "class 79" and config.attributes == []
    assert load_config(path, {"ResNet": {"depth": 50}}).resnet.depth == 50


def test_files_under_base_are_joined_as_paddledetection_does(tmp_path: Path):
    (tmp_path / "_base_").mkdir()
    (tmp_path / "_base_/r50.yml").write_text(PADDLEDETECTION, encoding="utf8")
    (tmp_path / "runtime.yml").write_text("log_iter: 5\nnum_classes: 3\n", encoding="utf8")
    path = tmp_path / "own.yml"
    path.write_text("_BASE_: ['_base_/r50.yml', 'runtime.yml']\nResNet:\n  depth: 50\n", encoding="utf8")
    config = load_config(path)
    assert (config.num_classes, config.resnet.depth, config.resnet.return_idx) == (3, 50, [2])
    path.write_text("ResNet: !!python/object/apply:os.getcwd []", encoding="utf8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)


@pytest.mark.parametrize("name", ["scenes_tiny", "bottom_up_r101_c4"])
def test_what_is_written_reads_back(name: str, tmp_path: Path):
    config = load_config(SCENES.with_name(f"{name}.yaml"))
    (tmp_path / "again.yaml").write_text(dump_config(config), encoding="utf8")
    assert load_config(tmp_path / "again.yaml") == config


def test_names_come_from_a_file_beside_the_config(tmp_path: Path):
    (tmp_path / "objects.txt").write_text("dog,puppy\ncat\n", encoding="utf8")
    (tmp_path / "own.yaml").write_text("num_classes: 2\nclass_names: objects.txt\n", encoding="utf8")
    assert load_config(tmp_path / "own.yaml").classes == ["dog", "cat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ResNet: {dept: 50}", "unknown key bad.yaml: ResNet.dept; nearest: depth"),
        ("TestReader: {batch_transform: []}", "unknown key bad.yaml: TestReader.batch_transform"),
        ("log_itr: 20", "unknown key log_itr"),
        ("RPNHed: {}", "unknown key RPNHed; nearest: RPNHead"),
        ("ResNet: {depth: 49}", "49 is not one of"),
        ("ResNet: {num_stages: 4, return_idx: [0, 1, 2, 3]}", "feature pyramids are not supported"),
        ("architecture: YOLOv3", "'YOLOv3' is not one of FasterRCNN"),
        ("num_classes: 2\nclass_names: [dog]", "class_names has 1 names, num_classes is 2"),
        ("RegionSelection: {min_boxes: 0}", "RegionSelection.min_boxes 0: expected 1 or more"),
        ("TestReader: {sample_transforms: [Resize]}", "expected a list such as"),
        ("class_names: nowhere.txt", "cannot read names"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path):
    (tmp_path / "bad.yaml").write_text(text, encoding="utf8")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "bad.yaml")


def test_defaults_are_the_network_of_paddledetection():
    config = DetectorConfig()
    assert (config.resnet.variant, config.res5.stride, config.box_head.roi_extractor.pooling) == (
        "b",
        2,
        "align",
    )


@pytest.mark.parametrize("number", ["num_classes", "num_attributes"])
def test_classes_that_no_machine_has_memory_for(number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ppdet_features.config.CLASSES", 5000)
    (tmp_path / "bad.yaml").write_text(f"{number}: 10000000", encoding="utf8")
    with pytest.raises(ConfigError, match=f"{number} 10,000,000: this machine has memory for at most 5,000"):
        load_config(tmp_path / "bad.yaml")
