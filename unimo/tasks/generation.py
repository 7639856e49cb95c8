"""The base of tasks that generate text: head over the vocabulary, loss, search, targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from unimo.data.loading.batch import Array, Batch
from unimo.data.processor import Processor, pad
from unimo.data.tokenizers import Tokenizer, starts_word
from unimo.errors import ConfigError
from unimo.losses.mlm import next_token_loss
from unimo.models.base import Model
from unimo.models.contrastive import OTHERS
from unimo.nn.beam_search import BeamConfig, Hypothesis, beam_search
from unimo.nn.heads import MlmHead
from unimo.nn.outputs import Encoded
from unimo.ranges import Dropout
from unimo.tasks.base import Answer, Metadata, Question, Task


@dataclass(frozen=True)
class GenerationConfig:
    """Fields that the task sections of all generating tasks have."""

    name: str = ""
    label_smoothing: Dropout = 0.1
    """Share of the target that is spread over the vocabulary; in [0, 1)."""
    beam: BeamConfig = field(default_factory=BeamConfig)
    """Search of evaluation and prediction."""

    def end_id(self, tokenizer: Tokenizer) -> int:
        """Return the id of the token that ends a generated text."""
        return tokenizer.eos_token_id


@dataclass(kw_only=True)
class TargetBatch(Batch):
    """Texts to learn to write: each token predicts the one after it."""

    input_ids: Array
    """[B, T] int64 texts without their last token, which is a target only."""
    attention_mask: Array
    """[B, T] int64, 1 = token."""
    target_positions: Array
    """[N] int64, flat positions b * T + t of the tokens."""
    target_labels: Array
    """[N] int64, the token that follows each."""


def join_targets(texts: Sequence[Sequence[int]], pad_id: int) -> dict[str, Array]:
    """Return the fields of a `TargetBatch` for the tokens of texts, padded to the longest of them."""
    inputs = pad([ids[:-1] for ids in texts], pad_id)
    return {
        **inputs,
        "target_positions": np.flatnonzero(inputs["attention_mask"]),
        "target_labels": np.concatenate([np.array(ids[1:], np.int64) for ids in texts]),
    }


class GenerationTask(Task):
    """States of a generating model -> vocabulary, by a head like that of masked language modelling."""

    head_aliases = {"lm_head.": "objective.mlm_head."}

    def __init__(self, model: Model, config: GenerationConfig, metadata: Metadata = None) -> None:
        super().__init__(model, config, metadata)
        check_length("task.beam.max_length", config.beam.max_length, model.config)
        vocabulary = model.config.text.vocab_size
        self.lm_head = MlmHead(model.hidden_size, vocabulary, model.head_std, model.head_epsilon)

    def encode(self, source: Any) -> Encoded:
        """Encode what the texts are written from."""
        raise NotImplementedError

    def read(self, processor: Processor, questions: Sequence[Question]) -> Any:
        """Return what `encode` takes for questions, as tensors."""
        raise NotImplementedError

    def next_token(self, states: Tensor, batch: TargetBatch) -> tuple[Tensor, Tensor]:
        """Compute logits [N, V] of the targets from the decoder's states [B, T, D], and their mean
        label-smoothed cross-entropy."""
        logits = self.lm_head(paddle.gather(states.flatten(0, 1), batch.target_positions))
        return logits, next_token_loss(logits, batch.target_labels, self.config.label_smoothing)

    def counts(self, batch: TargetBatch) -> dict[str, int]:
        """Count the tokens to predict, which all losses are means of."""
        return {OTHERS: batch.target_labels.shape[0]}

    def generate(
        self, source: Any, tokenizer: Tokenizer, beam: BeamConfig | None = None
    ) -> list[list[Hypothesis]]:
        """Search the best texts for the sources of a batch, best first, without special tokens inside.

        Args:
            source: what `encode` takes.
            tokenizer: tokenizer of the texts that the model was trained on.
            beam: search to use instead of that of the config.
        """

        def step(state: Any, ids: Tensor) -> tuple[Tensor, Any]:
            states, state = self.model.step(state, ids)
            return self.lm_head(states), state

        encoded, end = self.encode(source), self.config.end_id(tokenizer)
        # Rows that the vocabulary of the model has beyond the tokenizer's stand for no text.
        beyond = range(tokenizer.vocab_size, self.model.config.text.vocab_size)
        return beam_search(
            step,
            self.model.start_decoding(encoded),
            (encoded.text if encoded.image is None else encoded.image).shape[0],
            bos_id=tokenizer.bos_token_id,
            eos_id=end,
            config=beam or self.config.beam,
            forbidden_ids={*tokenizer.special_ids, *beyond} - {end},
            starts_word=starts_word(tokenizer),
        )

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Write texts from sources. A beam smaller than `count` is widened."""
        tokenizer = processor.tokenizer
        beam = replace(self.config.beam, size=max(self.config.beam.size, count))
        return [
            [
                Answer(
                    tokenizer.decode(one.tokens).strip(),
                    math.exp(one.log_probability / max(1, len(one.tokens) + one.is_finished)),
                    one.score,
                )
                for one in found[:count]
            ]
            for found in self.generate(self.read(processor, questions), tokenizer, beam)
        ]


def check_length(setting: str, tokens: int, model: Any) -> None:
    """Check that a model, given by its config, has text positions for the tokens that a setting allows.

    Raises:
        ConfigError: it has not; names the setting.
    """
    longest = model.text.longest
    if tokens > longest:
        raise ConfigError(
            f"{setting} {tokens}: {model.name} has text positions for {longest} tokens; set it to at most "
            "that"
        )
