"""Settings of the detector, under the section names and keys of PaddleDetection's YAML files.

Keys that PaddleDetection does not have are marked "ours"; their defaults give the network of PaddleDetection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ppdet_features.ignored_keys import TagLoader, drop_ignored
from unimo.config import coerce, dump, merge_into, merge_plain, read_yaml, to_plain
from unimo.errors import ConfigError, nearest, shown
from unimo.files import read_text
from unimo.limits import CLASSES, CONFIG_BYTES
from unimo.ranges import Classes, Count, NonNegative, Number, Pixels, Positive, Seed, Share, Size, Width


@dataclass(frozen=True)
class ArchitectureConfig:
    """Section `FasterRCNN`: the class of each part; only one of each is implemented."""

    backbone: Literal["ResNet"] = "ResNet"
    rpn_head: Literal["RPNHead"] = "RPNHead"
    bbox_head: Literal["BBoxHead"] = "BBoxHead"
    bbox_post_process: Literal["BBoxPostProcess"] = "BBoxPostProcess"


@dataclass(frozen=True)
class ResNetConfig:
    """Section `ResNet`: the backbone up to res4, shared by all regions."""

    depth: Literal[18, 34, 50, 101, 152] = 50
    variant: Literal["a", "b"] = "b"
    """Convolution of a bottleneck that has the stride: `a` the first (Caffe), `b` the 3x3."""
    norm_type: Literal["bn"] = "bn"
    freeze_norm: bool = True
    """Norms are not trained and keep their statistics."""
    freeze_at: Literal[-1, 0, 1, 2, 3] = 0
    """Stages up to this index (0 is res2, with the stem) are not trained; -1 trains all."""
    return_idx: list[Count] = field(default_factory=lambda: [2])
    num_stages: Size = 3
    ch_in: Width = 64
    """Output channels of the stem."""
    width: Width = 64
    """Ours: inner channels of res2, doubled by each further stage."""
    caffe_max_pool: bool = False
    """Ours: the stem pools without padding and rounds up, as Caffe does."""

    def __post_init__(self) -> None:
        if self.num_stages != 3 or self.return_idx != [2]:
            raise ConfigError(
                f"ResNet: num_stages={self.num_stages}, return_idx={self.return_idx}; the C4 detector takes "
                "res4 (num_stages: 3, return_idx: [2]); feature pyramids are not supported"
            )


@dataclass(frozen=True)
class AnchorConfig:
    """Anchors: the boxes that the proposal network starts from, at each position of res4."""

    aspect_ratios: list[Positive] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    anchor_sizes: list[Positive] = field(default_factory=lambda: [32.0, 64.0, 128.0, 256.0, 512.0])
    strides: list[Size] = field(default_factory=lambda: [16])
    offset: Number = 0.0
    """Offset of the anchor's centre from the upper left corner of its cell, in strides."""

    def __post_init__(self) -> None:
        if self.strides != [16]:
            raise ConfigError(f"anchor_generator.strides={self.strides}; res4 has one level of stride 16")


@dataclass(frozen=True)
class RpnTargetConfig:
    """Choice of the anchors that the proposal network is trained on."""

    batch_size_per_im: Size = 256
    fg_fraction: Share = 0.5
    negative_overlap: Share = 0.3
    positive_overlap: Share = 0.7
    use_random: bool = True


@dataclass(frozen=True)
class ProposalConfig:
    """Number of proposals to keep, and their largest overlap."""

    min_size: NonNegative = 0.0
    nms_thresh: Share = 0.7
    pre_nms_top_n: Size = 6000
    post_nms_top_n: Size = 1000
    topk_after_collect: bool = False
    """For feature pyramids; has no effect here."""


@dataclass(frozen=True)
class RpnConfig:
    """Section `RPNHead`: the proposal network."""

    anchor_generator: AnchorConfig = field(default_factory=AnchorConfig)
    rpn_target_assign: RpnTargetConfig = field(default_factory=RpnTargetConfig)
    train_proposal: ProposalConfig = field(
        default_factory=lambda: ProposalConfig(pre_nms_top_n=12000, post_nms_top_n=2000)
    )
    test_proposal: ProposalConfig = field(default_factory=ProposalConfig)
    channels: Width | None = None
    """Ours: channels of its 3x3 convolution; None means those of res4. Bottom-up attention has 512."""
    smooth_l1_beta: NonNegative = 0.0
    """Ours: difference up to which the box loss is quadratic; 0 for absolute differences only."""


@dataclass(frozen=True)
class RoiConfig:
    """Pooling of a region from res4."""

    resolution: Size = 14
    sampling_ratio: Count = 0
    aligned: bool = True
    pooling: Literal["align", "max"] = "align"
    """Ours: `max` is the RoI pooling of Caffe; the two keys above apply to `align`."""


@dataclass(frozen=True)
class Res5Config:
    """Section `Res5Head`: the last stage of the ResNet, applied to each region. All keys are ours."""

    variant: Literal["a", "b"] = "b"
    stride: Literal[1, 2] = 2
    """Stride of its first block. Bottom-up attention has 1, with `dilation: 2`."""
    dilation: Literal[1, 2] = 1
    freeze_norm: bool = True


@dataclass(frozen=True)
class BoxHeadConfig:
    """Section `BBoxHead`: classes and boxes of regions."""

    head: Literal["Res5Head"] = "Res5Head"
    roi_extractor: RoiConfig = field(default_factory=RoiConfig)
    bbox_assigner: Literal["BBoxAssigner"] = "BBoxAssigner"
    with_pool: bool = True
    bbox_weight: list[Positive] = field(default_factory=lambda: [10.0, 10.0, 5.0, 5.0])
    cls_agnostic: bool = False
    """Ours: one box per region instead of one per class."""
    smooth_l1_beta: NonNegative = 0.0
    """Ours: as in `RPNHead`."""

    def __post_init__(self) -> None:
        if not self.with_pool or len(self.bbox_weight) != 4:
            raise ConfigError("BBoxHead: Res5Head needs with_pool: true, and bbox_weight has four numbers")


@dataclass(frozen=True)
class BoxAssignerConfig:
    """Section `BBoxAssigner`: choice of the regions that the head is trained on."""

    batch_size_per_im: Size = 512
    bg_thresh: Share = 0.5
    fg_thresh: Share = 0.5
    fg_fraction: Share = 0.25
    use_random: bool = True


@dataclass(frozen=True)
class NmsConfig:
    """Choice of the objects to report."""

    name: Literal["MultiClassNMS"] = "MultiClassNMS"
    keep_top_k: Size = 100
    score_threshold: Share = 0.05
    nms_threshold: Share = 0.5


@dataclass(frozen=True)
class PostProcessConfig:
    """Section `BBoxPostProcess`: objects for the COCO metric; `RegionSelection` chooses the regions."""

    decode: Literal["RCNNBox"] = "RCNNBox"
    nms: NmsConfig = field(default_factory=NmsConfig)


@dataclass(frozen=True)
class SelectionConfig:
    """Section `RegionSelection` (ours): choice of regions among the proposals, as in bottom-up attention."""

    score_threshold: Share = 0.2
    """Regions of at least this probability are kept: at least `min_boxes`, at most `max_boxes` of them."""
    min_boxes: Size = 10
    max_boxes: Size = 100
    nms_threshold: Share = 0.3
    """If two regions of a class overlap by more, the weaker one does not count for that class."""
    boxes: Literal["proposals", "regressed"] = "proposals"
    """Boxes to compare and report. The feature is always that of the proposal."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_boxes <= self.max_boxes:
            raise ConfigError(
                f"RegionSelection: min_boxes={self.min_boxes}, max_boxes={self.max_boxes}; "
                "expected 1 <= min_boxes <= max_boxes"
            )


@dataclass(frozen=True)
class DecodeConfig:
    """Order of the colours."""

    to_rgb: bool = True
    """False for BGR, as Caffe networks read it (ours)."""


@dataclass(frozen=True)
class ResizeConfig:
    """Size of the network's input, in pixels."""

    target_size: list[Pixels] = field(default_factory=lambda: [800, 1333])
    """Length of the shorter side, and the largest length of the longer side, which wins."""
    keep_ratio: bool = True
    interp: Literal[1, 2] = 1
    """1 linear, 2 cubic; both by Pillow, which smooths when it scales down."""

    def __post_init__(self) -> None:
        if len(self.target_size) != 2 or not self.keep_ratio:
            raise ConfigError(f"Resize: expected two sides and keep_ratio: true, found {self.target_size}")


@dataclass(frozen=True)
class NormalizeConfig:
    """Normalisation of colours: (value - mean) / std, where values are first divided by 255 if `is_scale`."""

    is_scale: bool = True
    mean: list[Number] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[Positive] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass(frozen=True)
class TransformsConfig:
    """The steps of `sample_transforms`, a list in YAML, in this order."""

    Decode: DecodeConfig = field(default_factory=DecodeConfig)
    Resize: ResizeConfig = field(default_factory=ResizeConfig)
    NormalizeImage: NormalizeConfig = field(default_factory=NormalizeConfig)
    Permute: dict[str, Number] = field(default_factory=dict)


def _read_transforms(value: Any, where: str, current: TransformsConfig) -> TransformsConfig:
    if isinstance(value, Mapping):
        return merge_into(current, value, where)
    if not isinstance(value, list) or not all(isinstance(step, Mapping) and len(step) == 1 for step in value):
        raise ConfigError(
            f"{where}: expected a list such as [Decode: {{}}, Resize: {{...}}], found {shown(value)}"
        )
    return merge_into(current, {name: keys or {} for step in value for name, keys in step.items()}, where)


@dataclass(frozen=True)
class ReaderConfig:
    """Section `TestReader`: preprocessing of images, in training as well."""

    RESOLVE = {"sample_transforms": _read_transforms}

    sample_transforms: TransformsConfig = field(default_factory=TransformsConfig)
    batch_size: Size = 1
    """Batch size of evaluation; extraction has its own."""
    shuffle: bool = False
    drop_last: bool = False


@dataclass(frozen=True)
class TrainingConfig:
    """Section `Training` (ours): the settings of train_detector.py. Steps are optimizer steps."""

    steps: Count = 90000
    batch_size: Size = 8
    """Images of a step, over all ranks."""
    learning_rate: NonNegative = 1e-3
    """Rate of AdamW after the warm-up; decays to zero along a cosine."""
    warmup: Count = 100
    """Steps of the linear rise; may exceed `steps`."""
    weight_decay: NonNegative = 1e-4
    clip_norm: Positive = 10.0
    """Largest global gradient norm."""
    attribute_weight: NonNegative = 0.5
    """Weight of the attribute loss; that of the others is 1."""
    flip: bool = True
    """Mirror half of the images."""
    seed: Seed = 0
    save_every: Count = 500
    log_every: Count = 20


@dataclass(frozen=True)
class DetectorConfig:
    """A detector: its parts, classes, preprocessing and training."""

    architecture: Literal["FasterRCNN"] = "FasterRCNN"
    num_classes: Classes = 80
    num_attributes: Classes = 0
    """Ours: 0 means no attribute head."""
    class_names: list[str] | None = None
    """Ours: names, or (in YAML) a text file beside it, see `read_names`."""
    attribute_names: list[str] | None = None
    parts: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    resnet: ResNetConfig = field(default_factory=ResNetConfig)
    rpn: RpnConfig = field(default_factory=RpnConfig)
    res5: Res5Config = field(default_factory=Res5Config)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    assigner: BoxAssignerConfig = field(default_factory=BoxAssignerConfig)
    post_process: PostProcessConfig = field(default_factory=PostProcessConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        for names, number in (("class_names", "num_classes"), ("attribute_names", "num_attributes")):
            given, wanted = getattr(self, names), getattr(self, number)
            if wanted > CLASSES:
                raise ConfigError(f"{number} {wanted:,}: this machine has memory for at most {CLASSES:,}")
            if given is not None and len(given) != wanted:
                raise ConfigError(f"{names} has {len(given)} names, {number} is {wanted}")

    @property
    def name(self) -> str:
        """Name of the architecture."""
        return self.architecture

    @property
    def classes(self) -> list[str]:
        """Names of the classes, without the background."""
        return self.class_names or [f"class {i}" for i in range(self.num_classes)]

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes; empty without an attribute head."""
        return self.attribute_names or [f"attribute {i}" for i in range(self.num_attributes)]


# Section of the YAML file -> field; other keys are fields of the same name.
SECTIONS = {
    "FasterRCNN": "parts",
    "ResNet": "resnet",
    "RPNHead": "rpn",
    "Res5Head": "res5",
    "BBoxHead": "box_head",
    "BBoxAssigner": "assigner",
    "BBoxPostProcess": "post_process",
    "RegionSelection": "selection",
    "TestReader": "reader",
    "Training": "train",
}
PLAIN = ("architecture", "num_classes", "num_attributes", "class_names", "attribute_names")


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> DetectorConfig:
    """Read a detector's YAML file.

    Args:
        path: the file; it may have a `_base_`, or `_BASE_` as those of PaddleDetection.
        overrides: win over the file, e.g. `{"Training": {"steps": 100}}`.

    Raises:
        ConfigError: missing file, unknown key (the message names the nearest ones), value of the wrong type,
            or a detector of another kind.
    """
    path, values, default = Path(path), {}, DetectorConfig()
    found = merge_plain(read_yaml(path, "_BASE_", TagLoader), overrides or {})
    for key, value in drop_ignored(found, path.name).items():
        where = f"{path.name}: {key}"
        if key in SECTIONS:
            values[SECTIONS[key]] = merge_into(getattr(default, SECTIONS[key]), value or {}, where)
        elif key in ("class_names", "attribute_names") and isinstance(value, str):
            values[key] = read_names(path.parent / value)
        elif key in PLAIN:
            values[key] = value
        else:
            raise ConfigError(f"{path.name}: unknown key {key}; {nearest(str(key), [*SECTIONS, *PLAIN])}")
    return coerce(values, DetectorConfig, path.name)


def read_names(path: Path) -> list[str]:
    """Read names of classes or attributes, one per line; the part from a comma on (synonyms) is dropped.

    Raises:
        ConfigError: the file cannot be read.
    """
    lines = read_text(path, CONFIG_BYTES, ConfigError, "names from").splitlines()
    return [line.partition(",")[0].strip() for line in lines if line.strip()]


def sections(config: DetectorConfig) -> dict[str, Any]:
    """Convert a config to plain values under the keys of the YAML file."""
    names = {field: section for section, field in SECTIONS.items()}
    return {names.get(key, key): value for key, value in to_plain(config).items() if value is not None}


def dump_config(config: DetectorConfig) -> str:
    """Convert a config to YAML, which `load_config` reads back."""
    return dump(sections(config))
