"""What tasks that generate text have in common: the head over the vocabulary, its loss, the search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import paddle
from paddle import Tensor

from unimo.data.tokenizers import Tokenizer, starts_word
from unimo.errors import ConfigError
from unimo.losses.seq2seq import next_token_loss
from unimo.models.base import Model
from unimo.nn.beam_search import BeamConfig, Hypothesis, beam_search
from unimo.nn.heads import MlmHead
from unimo.nn.outputs import Encoded
from unimo.tasks.base import Answer, Batch, Task


@dataclass(frozen=True)
class GenerationConfig:
    """Fields that the task sections of all generating tasks have."""

    name: str = ""
    label_smoothing: float = 0.1
    """Share of the target that is spread over the vocabulary; in [0, 1)."""
    beam: BeamConfig = field(default_factory=BeamConfig)
    """How evaluation and prediction search."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"task.label_smoothing {self.label_smoothing}: expected 0 <= label_smoothing < 1"
            )


class GenerationTask(Task):
    """States of a generating model -> vocabulary, by a head like that of masked language modelling."""

    head_aliases = {"lm_head.": "objective.mlm_head."}

    def __init__(
        self, model: Model, config: GenerationConfig, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(model, config, metadata)
        text = model.config.text
        longest = text.max_position - text.padding_id - 1
        if config.beam.max_length > longest:
            raise ConfigError(
                f"task.beam.max_length {config.beam.max_length}: {model.config.name} has text positions for "
                f"{longest} tokens; set it to at most that"
            )
        self.lm_head = MlmHead(model.hidden_size, text.vocab_size, model.head_std, model.head_epsilon)

    def next_token(self, states: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [N, V] of the N tokens to predict, and their label-smoothed cross-entropy, a mean.

        Args:
            states: of the decoder, [B, T, D].
            batch: `target_positions` [N], flat index b * T + t of each state that predicts a token, and
                `target_labels` [N].
        """
        logits = self.lm_head(paddle.gather(states.flatten(0, 1), batch.target_positions))
        return logits, next_token_loss(logits, batch.target_labels, self.config.label_smoothing)

    def search(
        self,
        source: Encoded,
        batch_size: int,
        tokenizer: Tokenizer,
        beam: BeamConfig | None = None,
        eos_id: int | None = None,
    ) -> list[list[Hypothesis]]:
        """The best sentences for encoded sources, best first, without special tokens inside.

        Args:
            source: images or texts, encoded.
            batch_size: number of them.
            tokenizer: of the texts that the model was trained on.
            beam: another search than that of the config.
            eos_id: the token that ends a sentence; by default `</s>`.
        """

        def step(state: Any, ids: Tensor) -> tuple[Tensor, Any]:
            states, state = self.model.step(state, ids)
            return self.lm_head(states), state

        eos_id = tokenizer.eos_token_id if eos_id is None else eos_id
        # Rows that the vocabulary of the model has beyond the tokenizer's stand for no text.
        beyond = range(tokenizer.vocab_size, self.model.config.text.vocab_size)
        return beam_search(
            step,
            self.model.start_decoding(source),
            batch_size,
            bos_id=tokenizer.bos_token_id,
            eos_id=eos_id,
            config=beam or self.config.beam,
            forbidden_ids={*tokenizer.special_ids, *beyond} - {eos_id},
            starts_word=starts_word(tokenizer),
        )


def written(hypotheses: Sequence[Hypothesis], tokenizer: Tokenizer) -> list[Answer]:
    """Return the texts that a search found."""
    return [
        Answer(
            tokenizer.decode(one.tokens).strip(),
            math.exp(one.log_probability / max(1, len(one.tokens) + one.is_finished)),
            one.score,
        )
        for one in hypotheses
    ]
