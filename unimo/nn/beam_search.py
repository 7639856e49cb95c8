"""Beam search over any decoder that is stepped token by token and whose cached state can be reordered.

The rules are those of Paddle's `beam_search` operator and of the decoder that UNIMO and UNIMO-2 released:

- the score of a hypothesis of `length` generated tokens, `</s>` included, is its log-probability divided by
  the penalty of GNMT (Wu et al., 2016, Eq. 14), ((5 + length) / 6) ** alpha;
- a finished hypothesis stays in the beam with the score it finished with, and competes with those that go
  on, which are scored at their present length;
- every hypothesis that goes on proposes its `size` most likely tokens; the best `size` of a source's beam
  are kept, the earlier one of two equal ones;
- a source is done when its whole beam is finished; at `max_length` unfinished hypotheses count as they are.

With a beam that holds every sequence this is exhaustive search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from unimo.config import check_fields
from unimo.errors import ConfigError
from unimo.nn.kernels import log_softmax
from unimo.ranges import Count, Number, Size

REPETITION = -65000.0
"""Added to the log-probability of a hypothesis that repeats a trigram; as in the released decoder."""
NEVER = -1e18


Step = Callable[[Any, Tensor], tuple[Tensor, Any]]
"""(state of N rows, last ids int64 [N]) -> (logits of the next token [N, vocabulary], new state).

A state has `select(rows)`, which returns the state whose row i is row `rows[i]` of this one, int64 [N],
repeats allowed."""


@dataclass(frozen=True)
class BeamConfig:
    """Settings of the search. Lengths count tokens without `<s>`.

    Raises:
        ConfigError: a size or length is impossible.
    """

    size: Size = 5
    """Hypotheses kept for each source; 1 is greedy decoding."""
    length_penalty: Number = 0.6
    """Exponent alpha: 0 compares log-probabilities as they are, larger values favour longer sentences."""
    min_length: Count = 5
    """Least number of tokens before `</s>`."""
    max_length: Size = 50
    """Largest number of tokens, `</s>` included."""
    block_trigrams: bool = False
    """Allow no sentence that has the same three words twice."""
    renormalise: bool = False
    """Where the probability of forbidden tokens goes, such as that of an early `</s>`. False: it is lost, so
    that a sentence that would end scores below others (fairseq, Hugging Face). True: the allowed tokens share
    it (UNIMO's released decoder)."""

    def __post_init__(self) -> None:
        check_fields(self, "beam")
        if self.min_length >= self.max_length:
            raise ConfigError(
                f"beam min_length {self.min_length} and max_length {self.max_length}: expected "
                "0 <= min_length < max_length"
            )


@dataclass(frozen=True)
class Hypothesis:
    """A generated sentence, or the beginning of one."""

    tokens: tuple[int, ...] = ()
    """Ids after `<s>`, without `</s>`."""
    log_probability: float = 0.0
    """Natural logarithm, summed over tokens and `</s>`."""
    score: float = 0.0
    """Log-probability over length penalty, by which hypotheses are ranked."""
    is_finished: bool = False
    """Whether it ended with `</s>`."""


def length_penalty(length: int, alpha: float) -> float:
    """Compute the penalty of GNMT, ((5 + length) / 6) ** alpha."""
    return ((5 + length) / 6) ** alpha


def beam_search(
    step: Step,
    state: Any,
    batch_size: int,
    *,
    bos_id: int,
    eos_id: int,
    config: BeamConfig,
    forbidden_ids: Iterable[int] = (),
    starts_word: np.ndarray | None = None,
) -> list[list[Hypothesis]]:
    """Search the best sentences for each source of a batch. Sources do not influence each other.

    Only unfinished hypotheses go through the decoder, so the number of rows changes from step to step.

    Args:
        step: the decoder.
        state: its state before the first token, one row a source.
        batch_size: number of sources B.
        bos_id, eos_id: ids of `<s>`, which is fed first, and of `</s>`.
        config: the search.
        forbidden_ids: ids never to generate, e.g. padding.
        starts_word: bool [vocabulary], which tokens begin a word; the others continue the one before.
            None: every token is a word. Used by `block_trigrams` only.

    Returns:
        For each source its hypotheses, best first: `config.size` of them, or all where fewer exist.
    """
    beams = [[Hypothesis()] for _ in range(batch_size)]
    last = [bos_id] * batch_size
    blocker = TrigramBlocker(bos_id, starts_word) if config.block_trigrams else None
    with paddle.no_grad():
        for length in range(1, config.max_length + 1):
            logits, state = step(state, paddle.to_tensor(last, dtype="int64"))
            banned = {*forbidden_ids} | ({eos_id} if length <= config.min_length else set())
            log_probabilities, ids = _propose(logits, sorted(banned), config)
            candidates = _extend(beams, log_probabilities, ids, eos_id, config, blocker)
            best = [sorted(each, key=lambda pair: -pair[0].score)[: config.size] for each in candidates]
            beams = [[hypothesis for hypothesis, _ in beam] for beam in best]
            unfinished = [pair for beam in best for pair in beam if not pair[0].is_finished]
            last = [hypothesis.tokens[-1] for hypothesis, _ in unfinished]
            parents = [row for _, row in unfinished]
            if not last:
                break
            if length < config.max_length and parents != list(range(logits.shape[0])):
                state = state.select(paddle.to_tensor(parents, dtype="int64"))
    return beams


def _propose(logits: Tensor, banned: Sequence[int], config: BeamConfig) -> tuple[np.ndarray, np.ndarray]:
    """Find the `config.size` most likely next tokens of each row, or all allowed ones if they are fewer.

    Returns:
        Log-probabilities float64 and ids int64, both [N, k], the most likely first.
    """
    mask = np.zeros(logits.shape[1], np.float32)
    mask[list(banned)] = NEVER
    logits, mask = logits.astype("float32"), paddle.to_tensor(mask)
    scores = log_softmax(logits + mask) if config.renormalise else log_softmax(logits) + mask
    values, ids = scores.topk(max(1, min(config.size, logits.shape[1] - len(banned))), axis=1)
    return values.numpy().astype(np.float64), ids.numpy()


# A candidate for a beam, and the row of the decoder's state that it came from; -1 for a finished one.
_Candidate = tuple[Hypothesis, int]


def _extend(
    beams: Sequence[Sequence[Hypothesis]],
    log_probabilities: np.ndarray,
    ids: np.ndarray,
    eos_id: int,
    config: BeamConfig,
    blocker: TrigramBlocker | None,
) -> list[list[_Candidate]]:
    """Return all candidates for the next beam of each source, in the order of beam and proposals."""
    row, sources = 0, []
    for beam in beams:
        candidates: list[_Candidate] = []
        for hypothesis in beam:
            if hypothesis.is_finished:
                candidates.append((hypothesis, -1))
                continue
            penalty = length_penalty(len(hypothesis.tokens) + 1, config.length_penalty)
            for value, token in zip(log_probabilities[row].tolist(), ids[row].tolist(), strict=True):
                total, ends = hypothesis.log_probability + value, token == eos_id
                tokens = hypothesis.tokens if ends else (*hypothesis.tokens, token)
                if blocker and not ends and blocker.repeats(tokens):
                    total += REPETITION
                candidates.append((Hypothesis(tokens, total, total / penalty, ends), row))
            row += 1
        sources.append(candidates)
    return sources


class TrigramBlocker:
    """Finds sentences whose last three words occurred before.

    `</s>` and `<s>` are no words of their own: the released decoder joins special tokens to the word before,
    and a first token that does not start a word to `<s>`.
    """

    def __init__(self, bos_id: int, starts_word: np.ndarray | None = None) -> None:
        self._bos_id, self._starts_word = bos_id, starts_word

    def repeats(self, tokens: Sequence[int]) -> bool:
        """Return whether the newest trigram of words is in `tokens` twice; overlapping counts."""
        words: list[tuple[int, ...]] = [(self._bos_id,)]
        for token in tokens:
            if self._starts_word is None or self._starts_word[token]:
                words.append((token,))
            else:
                words[-1] = (*words[-1], token)
        return any(words[start : start + 3] == words[-3:] for start in range(len(words) - 3))
