"""`Paper`: the one record in which a model family says what the rest of the house may know of it.

Needs no Paddle, so that models can be listed and configs checked before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unimo.errors import ConfigError
from unimo.ranges import Share
from unimo.weights.name_map import Converted, Tensors

if TYPE_CHECKING:
    from unimo.data.loading.task_data import TaskData
    from unimo.data.processor import Processor
    from unimo.models.base import Model
    from unimo.settings import RunConfig

CAPABILITIES = frozenset(
    {
        "pixels",
        "regions",
        "dual_encoder",
        "fusion",
        "generation",
        "text_generation",
        "text_only",
        "image_only",
        "text_alone",
        "image_alone",
        "vector_retrieval",
    }
)
"""Everything that a task can ask of a model. `vector_retrieval`: texts and images alone go through all
layers, so that their vectors rank without fusion. `text_only`, `image_only`: pre-training learns from texts
or images without a pair. `text_alone`, `image_alone`: they have a vector to classify."""

Converter = Callable[[Tensors, str, str, Mapping[str, Any]], Converted]
"""Released tensors by their names, where they are from (for messages), the task they were trained for, and
the fields of the model section that the user gives, because tensors do not show them."""

Exporter = Callable[[Any, Tensors], tuple[dict[str, Any], dict[str, np.ndarray]]]
"""Config of a model, and tensors by the names of its task -> config.json and tensors of another library."""


@dataclass(frozen=True)
class PretrainConfig:
    """Task section of a pre-training run: what masked language modelling and matching read.

    A paper that needs more has a subclass, `Paper.pretraining`.
    """

    name: str = "pretrain"
    mlm_probability: Share = 0.15
    """Share of text tokens to predict; 80% become `<mask>`, 10% a random token, 10% stay."""
    masking: Literal["token", "span"] = "token"
    """`token` draws each token (or whole word) by itself, `span` runs of whole words (SpanBERT)."""
    whole_word_masking: bool = False
    """With `token`: draw words, and predict all tokens of a drawn word."""
    false_images: Literal["batch", "dataset"] = "batch"
    """Where ITM's mismatched images come from."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of samples that are read, as `data` names their corpora; the first that there are any of is
        evaluated."""
        return ("pairs", "texts", "images")


@dataclass(frozen=True)
class Published:
    """How the authors trained a model of a published size."""

    data: str
    """Corpora of the pre-training."""
    hardware: str = ""
    """Machine of the pre-training; empty if the paper does not say."""


def _as_they_are(model: Model, options: Any, tensors: Tensors) -> tuple[Tensors, Sequence[str]]:
    return tensors, ()


@dataclass(frozen=True)
class Paper:
    """A model family: its sizes, and how its parts are made. The functions import Paddle when called."""

    name: str
    """Name of the family, which is that of its package in `unimo/models/` and of its folder in `configs/`."""
    sizes: Mapping[str, Any]
    """Registered model -> config with its defaults."""
    capabilities: frozenset[str]
    """Capabilities that the models offer to tasks, a subset of `CAPABILITIES`."""
    network: Callable[[Any], Any]
    """Config -> `Model` with random weights; called by `build`."""
    objective: Callable[[Any, Any], Any]
    """Config and task section of pre-training -> `Objective` with random heads."""
    batches: Callable[[RunConfig, Processor], TaskData]
    """Corpora of pre-training, and how they become batches."""
    citation: str = ""
    """Name, authors, year and address of the paper."""
    pretraining: type[PretrainConfig] = PretrainConfig
    """Task section of pre-training."""
    pair_separators: Literal[1, 2] = 2
    """End tokens between the two sentences of a pair. 2: `<s> A </s></s> B </s>`, as RoBERTa was trained;
    1: `[CLS] A [SEP] B [SEP]`, as BERT and UNIMO were, whatever their tokenizer."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """Registered model -> millions of parameters without heads, with RoBERTa's vocabulary."""
    published: Mapping[str, Published] = field(default_factory=dict)
    """Registered model -> its training in the paper, for the published sizes."""
    stages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Stage of pre-training (`task.stage`), in order -> earlier ones whose result it keeps, so that it can do
    without only from random weights; empty for papers that pre-train in one."""
    modes: tuple[str, ...] = ()
    """Modes that a model is fine-tuned and read in (`task.mode`), which its config has as the field `mode`;
    empty for papers of a single one."""
    fit_start: Callable[[Any, Any, Tensors], tuple[Tensors, Sequence[str]]] = _as_they_are
    """Network, task section of pre-training, and the tensors of the network that pre-training starts from ->
    these as the network needs them, and names of its parameters that keep their random start."""
    converters: Mapping[str, Converter] = field(default_factory=dict)
    """Name of a release (`tools/convert_checkpoint.py --from`) -> converter of its weights."""
    exporters: Mapping[str, Exporter] = field(default_factory=dict)
    """Name of another library's model (`tools/convert_checkpoint.py --to`) -> what makes ours one of these.
    Towers need none: `unimo.weights.to_huggingface.PORTS`."""
    marks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of a release -> names of tensors, with or without a prefix, by which its files are recognised when
    `--from` is left out; more of them than those of a release whose names it shares have."""

    def __post_init__(self) -> None:
        if unknown := self.capabilities - CAPABILITIES:
            raise ConfigError(
                f"paper {self.name!r} has unknown capabilities {', '.join(sorted(unknown))}; "
                f"known: {', '.join(sorted(CAPABILITIES))}"
            )

    def build(self, config: Any) -> Model:
        """Build a model with random weights, except in parts whose config names files (`init`).

        Raises:
            CheckpointError: files of weights do not fit.
        """
        from unimo.models.parts import load_parts

        return load_parts(self.network(config))
