"""The run config: every section and field that a recipe may set, with its unit and default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any, ClassVar, Literal

from unimo import registry
from unimo.config import merge_into, merge_plain, parse_overrides, read_recipe, spell_out
from unimo.errors import ConfigError, nearest, shown
from unimo.ranges import Count, Dropout, NonNegative, Pixels, Positive, Seed, Share, Size, TextLength, Threads


@dataclass(frozen=True)
class CorpusConfig:
    """One source of records. A plain string is short for `{path: STRING}`."""

    path: str = "scenes"
    """Folder, Arrow file, tar or jsonl; `scenes` is the built-in corpus."""
    weight: Positive | None = None
    """Share in the mixture; None for a share in proportion to the number of samples."""
    name: str = ""
    """Name in logs and counters; empty for the last part of the path."""
    prompt: str = ""
    """`data.pairs` only: a sentence such as `a photo of {}` makes pairs of images with labels."""
    questions: bool = False
    """`data.pairs` only: read questions with their answers (VQA, GQA, Visual Genome) in place of captions."""
    curriculum: bool = True
    """`data.pairs` only: take part in the first stage of the curriculum, and count in its epochs. False for
    pseudo pairs, which then come in with the texts and images."""

    @classmethod
    def from_short(cls, value: Any, where: str) -> CorpusConfig:
        """Read the short form, a plain path.

        Raises:
            ConfigError: the value is not a string.
        """
        if not isinstance(value, (str, Path)):
            raise ConfigError(f"{where}: expected a path or a mapping with `path`, found {shown(value)}")
        return cls(path=str(value))


@dataclass(frozen=True)
class ScenesConfig:
    """Size of the built-in corpus of drawn shapes (`unimo/data/scenes/dataset.py`)."""

    train_images: Count = 20000
    val_images: Count = 500
    captions_per_image: Size = 4
    """Captions of an image; with 1, retrieval among N scenes scores N x N pairs."""
    seed: Seed = 0


@dataclass(frozen=True)
class DataConfig:
    """Corpora, and how their records become batches."""

    REMOVED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            "mlm_probability masking whole_word_masking false_images seq2seq_probability fragment_share "
            "region_mask_probability phrases augment view_transform"
        ).split(),
        "move it to the section task, also in the config.yaml of an older model directory or checkpoint",
    )
    """Keys of version 0.1 that are gone, and what to do about them."""

    pairs: list[CorpusConfig] = field(default_factory=lambda: [CorpusConfig()])
    """Image-text corpora for pre-training; several make a weighted mixture."""
    texts: list[CorpusConfig] = field(default_factory=list)
    """Text-only corpora that pre-training reads in addition; their weights are shares of the same mixture."""
    images: list[CorpusConfig] = field(default_factory=list)
    """Image-only corpora that pre-training reads in addition."""
    pairs_only_epochs: NonNegative = 0.0
    """Curriculum: passes over the corpora of `pairs` whose `curriculum` is true, before the others, `texts`
    and `images` are mixed in."""
    path: list[CorpusConfig] = field(default_factory=lambda: [CorpusConfig()])
    """Data set of the fine-tuning task."""
    train_split: str = "train"
    """Splits of `path` (in pre-training of `pairs`) to train on, joined by `+`. VQA v2 on train and val:
    `train+trainable_val`, and `rest_val` is left for validation."""
    selection: Literal["clean", "paper"] = "clean"
    """Split by which `train.select_metric` chooses the checkpoint. clean: one that is not trained on, `val`
    or `rest_val`. paper: as METER and BridgeTower, `test` in retrieval and `val` (trained on, too) in VQA."""
    root: str = ""
    """Folder that relative corpus paths start from."""
    scenes: ScenesConfig = field(default_factory=ScenesConfig)
    tokenizer: str = "auto"
    """Folder of tokenizer files or one of them (`unimo/data/tokenizers.py`), a card, `scenes`, or `auto`:
    that of `init_from`, else of the weights of the text tower, else `scenes`."""
    image_size: Pixels = 224
    """Side of the square input image, pixels."""
    max_text_len: TextLength = 50
    """Tokens with `<s>` and `</s>`; longer texts are cut."""
    train_transform: str = "clip"
    eval_transform: str = "clip"
    """Image transform by name (`unimo/data/images/transforms.py`)."""
    regions: str = ""
    """Source of region features, for models that read regions: `grid`, `grid:CELLS:PIXELS`, a folder that
    tools/extract_features.py wrote, or a TSV file; see docs/reference/regions.md."""
    max_regions: Size = 100
    """Largest number of regions of an image; those with the highest scores are kept."""
    blank_images: bool = False
    """Replace every image by the same blank one, to measure what can be answered without looking."""
    max_bad_rate: Share = 0.01
    """A run fails when more than this share of the records read so far was broken."""
    num_workers: Threads = 2
    """Threads that decode ahead; results do not depend on it."""
    prefetch: Count = 4
    """Batches kept ready; in training those of one step, if they are more."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule."""

    lr: NonNegative = 1e-4
    """Peak rate of the towers."""
    lr_multipliers: dict[str, NonNegative] = field(default_factory=lambda: {"heads": 5.0, "cross_modal": 5.0})
    """Factor on `lr` for each group that model and task declare; 1 for groups that are not listed."""
    layer_decay: Share = 1.0
    """Factor from each layer to the one below it, besides that of the group (ELECTRA, BEiT): d ** (n + 1 - l)
    in layer l of n, where embeddings are layer 0; 1 in heads and what else is in no layer."""
    weight_decay: NonNegative = 0.01
    """Decoupled decay; never on biases, norms, tables of classes and positions (`training/optimizer.py`)."""
    betas: list[Dropout] = field(default_factory=lambda: [0.9, 0.98])
    eps: Positive = 1e-8
    warmup: NonNegative = 0.1
    """Below 1 a share of all steps, from 1 a number of steps."""
    schedule: Literal["linear", "linear_unscaled", "cosine", "constant", "piecewise"] = "linear"
    """Decay after warm-up; see `learning_rate` in `unimo/training/optimizer.py`."""
    milestones: list[list[NonNegative]] = field(default_factory=list)
    """With `piecewise`: pairs of a share of all steps and the factor on `lr` from there on.
    [[0.6, 0.1], [0.8, 0.01]] divides the rate by ten after 60% and again after 80% of the run."""
    clip_grad_norm: Positive | None = 1.0
    """Largest global gradient norm; None means no clipping."""

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ConfigError(f"optim.betas {self.betas}: expected two numbers, e.g. [0.9, 0.98]")
        if self.schedule != "piecewise":
            return
        shares = [pair[0] for pair in self.milestones if len(pair) == 2]
        rising = shares == sorted(set(shares)) and all(0 < share < 1 for share in shares)
        if not shares or len(shares) != len(self.milestones) or not rising:
            raise ConfigError(
                f"optim.milestones {self.milestones} with optim.schedule=piecewise: expected pairs of a "
                "rising share of the steps between 0 and 1 and a factor, e.g. [[0.6, 0.1], [0.8, 0.01]]"
            )


@dataclass(frozen=True)
class TrainConfig:
    """The loop. All counts of steps are optimizer steps."""

    max_steps: Count = 1000
    max_minutes: NonNegative | None = None
    """Minutes after which the run stops early, with a checkpoint; None means never."""
    batch_size: Size = 64
    """Samples of one optimizer step over all ranks and rounds together."""
    micro_batch_size: Count | Literal["auto"] = "auto"
    """Largest number of samples that a rank processes at once; 0 for its whole share, `auto` for as many as
    fit into memory (`unimo/training/micro_batch.py`). Further rounds process the rest, and all are one batch:
    means are over its tokens, regions and samples, and contrastive losses compare all its samples, for which
    rounds encode theirs twice. Only mismatched pairs and hard negatives are of one round."""
    negatives_batch_size: Count = 0
    """Samples of a rank among which the recipe draws mismatched pairs and hard negatives; 0 for its whole
    share. Where a task draws any, `auto` takes that many samples at once, whatever else would fit, and fewer
    only with a warning."""
    eval_batch_size: Size = 64
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    on_unsupported_precision: Literal["error", "fp32"] = "error"
    """Where Paddle's autocast has no effect (CPU): raise an error, or train in fp32."""
    recompute: bool = False
    """Recompute activations of transformer blocks in the backward pass."""
    sharding_stage: Literal[0, 1, 2, 3] = 0
    """0 data parallel; 1 to 3 as in ZeRO through Paddle Fleet."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    log_every: Count = 20
    eval_every: Count = 0
    """Steps between evaluations; 0 to evaluate at the end only."""
    eval_max_batches: Count = 0
    """Batches of one evaluation; 0 means all."""
    save_every: Count = 500
    keep_checkpoints: Size = 2
    select_metric: str = ""
    """Metric whose best model is kept as `best/`; empty for the last model only."""
    patience: Count = 0
    """Evaluations in a row without a better `select_metric` that end the run (GLUE: 3); 0 means never."""

    def __post_init__(self) -> None:
        if self.patience and not (self.eval_every and self.select_metric):
            lacks = "select_metric" if self.eval_every else "eval_every"
            raise ConfigError(f"train.patience={self.patience} needs train.{lacks}; give it, or set it to 0")

    def rounds(self, ranks: int) -> int:
        """Return the rounds of one step: the fewest that cut the share of each rank into equal micro-batches;
        one as long as `auto` is not settled.

        Raises:
            ConfigError: the batch does not divide among the ranks.
        """
        if self.batch_size % ranks:
            raise ConfigError(f"train.batch_size {self.batch_size} does not divide among {ranks} ranks")
        share = self.batch_size // ranks
        most = share if self.micro_batch_size == "auto" else self.micro_batch_size or share
        return next(rounds for rounds in range(-(-share // most), share + 1) if share % rounds == 0)


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines a run."""

    IDENTITY: ClassVar[tuple[str, ...]] = ("model", "task")
    """Sections that a checkpoint must share with the run that resumes from it."""

    model: Any = None
    """Config of the registered model `model.name`."""
    task: Any = None
    """Config of the task `task.name`."""
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    output_dir: str = ""
    """Folder that the run writes into; empty for `output/<model>_<task>`."""
    seed: Seed = 0
    resume: str = ""
    """Checkpoint of another run to continue from."""
    init_from: str = ""
    """Model directory or card whose weights start this run; with `?` behind it if it is there."""


def load_run_config(recipe: str, task: str, overrides: Sequence[str] = (), /, **under: Any) -> RunConfig:
    """Build the run config of a recipe.

    Args:
        recipe: name (`unimo3_base`) or YAML file; see `unimo.config.read_recipe`.
        task: task or `pretrain`.
        overrides: dotted command-line words; they win over everything.
        under: top-level fields that win over the recipe but lose to `overrides`.
    """
    return build_run_config(read_recipe(recipe, task), under, parse_overrides(overrides))


def build_run_config(*layers: Mapping[str, Any]) -> RunConfig:
    """Merge plain data, later layers over earlier ones, check it against the schema, and fill `output_dir`.

    Switches of the model section are written out in each layer, so that they too win over earlier ones. Where
    the first layer, a recipe, has a block `stages`, its entry for `task.stage` is merged over the rest of it.
    Of models with modes, `task.mode` of fine-tuning is the mode of the model, whatever `model` says.

    Raises:
        ConfigError: unknown or moved key, or value of the wrong type.
    """
    layers = with_stage(*layers)
    values = reduce(merge_plain, layers, {})
    if name := named_section(values.get("model", {})).get("name"):
        schema = type(registry.model_config(name))
        values = reduce(merge_plain, (_spelled_out(schema, layer) for layer in layers), {})
        if named_section(values.get("task"), "task").get("name") != "pretrain":
            values = with_mode(values, name)
    model = _named(values.pop("model", None), "config.model", registry.model_config)
    default = partial(registry.task_config, model=model.name)
    task = _named(values.pop("task", None), "config.task", default)
    run = merge_into(RunConfig(model=model, task=task), values)
    stage = getattr(task, "stage", "")
    parts = [model.name, task.name, *([stage] if stage != getattr(default(task.name), "stage", "") else [])]
    return run if run.output_dir else replace(run, output_dir=f"output/{'_'.join(parts)}")


def with_stage(*layers: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Put the settings of the chosen stage between a recipe, the first layer, and what wins over it.

    They are its entry of the recipe's block `stages`, with what later layers say of that, such as
    `stages.language.train.max_steps=9`. Without `task.stage` the last one is chosen.

    Raises:
        ConfigError: the block is no mapping of mappings, or there is no such stage.
    """
    recipe = layers[0] if layers else {}
    if "stages" not in recipe:
        return layers
    values = reduce(merge_plain, layers, {})
    known, stages = recipe["stages"], values["stages"]
    for block in (known, stages):
        entries = block.values() if isinstance(block, Mapping) else ()
        if not entries or not all(isinstance(entry, Mapping) for entry in entries):
            raise ConfigError(f"stages: expected the settings of each stage, found {shown(block)}")
    if unknown := [name for name in stages if name not in known]:
        raise ConfigError(f"unknown key config.stages.{unknown[0]}; {nearest(str(unknown[0]), known)}")
    stage = named_section(values.get("task", {}), "task").get("stage", next(reversed(known)))
    if not isinstance(stage, str) or stage not in known:
        raise ConfigError(f"config.task.stage: {shown(stage)} is not one of {', '.join(known)}")
    bare = [{key: value for key, value in layer.items() if key != "stages"} for layer in layers]
    return (bare[0], stages[stage], *bare[1:])


def _spelled_out(schema: type, layer: Mapping[str, Any]) -> Mapping[str, Any]:
    model = layer.get("model")
    return {**layer, "model": spell_out(schema, model)} if isinstance(model, Mapping) else layer


def with_mode(values: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Move `task.mode` to `model.mode`.

    Raises:
        ConfigError: the model has no such mode, or none to choose from.
    """
    task = named_section(values.get("task"), "task")
    if "mode" not in task:
        return dict(values)
    mode, modes = task["mode"], registry.paper_of(model).modes
    if not modes:
        able = ", ".join(name for paper in registry.papers() if paper.modes for name in paper.sizes)
        raise ConfigError(
            f"task.mode={mode}: {model} is fine-tuned in one way only; leave it out, or choose one of {able}"
        )
    if mode not in modes:
        raise ConfigError(
            f"task.mode: {shown(mode)} is not one of {', '.join(modes)}, nor `best`, which tries all by "
            "tools/finetune.py"
        )
    kept = {key: value for key, value in task.items() if key != "mode"}
    return {**values, "task": kept, "model": {**named_section(values["model"]), "mode": mode}}


def named_section(value: Any, where: str = "model") -> Mapping[str, Any]:
    """Return the section of a model or task; a name alone stands for one.

    Raises:
        ConfigError: the name is no text.
    """
    section = value if isinstance(value, Mapping) else {"name": value}
    if not isinstance(section.get("name") or "", str):
        raise ConfigError(
            f"{where}.name: expected a name such as unimo3_tiny, found {shown(section['name'])}"
        )
    return section


def _named(value: Any, where: str, default_of: Callable[[str], Any]) -> Any:
    """Build the config of a model or task over the defaults of the one that its section names."""
    if value is None:
        raise ConfigError("a run needs model.name and task.name")
    section = named_section(value, where)
    if not section.get("name"):
        raise ConfigError(f"{where}.name is missing")
    return merge_into(default_of(section["name"]), section, where)
