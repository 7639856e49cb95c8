"""Beam search against exhaustive search, against the released decoder's rules written out, and by hand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import paddle
import pytest
from paddle import Tensor

from unimo.errors import ConfigError
from unimo.nn.beam_search import (
    REPETITION,
    BeamConfig,
    Hypothesis,
    TrigramBlocker,
    beam_search,
    length_penalty,
)

BOS, EOS, VOCABULARY = 0, 1, 5
WORDS = (2, 3, 4)


def logits_of(source: int, prefix: tuple[int, ...]) -> np.ndarray:
    """Logits that differ for every source and prefix; source 0 likes to repeat token 2."""
    logits = np.random.default_rng([source, *prefix]).normal(0.0, 2.0, VOCABULARY)
    return (logits + np.array([0, 0, 6.0, 0, 0]) * (source == 0)).astype(np.float32)


@dataclass
class PrefixState:
    """A decoder that remembers whole prefixes: a wrong reordering changes every later logit."""

    sources: list[int]
    prefixes: list[tuple[int, ...]]

    def select(self, rows: Tensor) -> PrefixState:
        chosen = rows.tolist()
        return PrefixState([self.sources[i] for i in chosen], [self.prefixes[i] for i in chosen])


def step(state: PrefixState, ids: Tensor) -> tuple[Tensor, PrefixState]:
    prefixes = [(*prefix, token) for prefix, token in zip(state.prefixes, ids.tolist(), strict=True)]
    logits = np.stack([logits_of(*pair) for pair in zip(state.sources, prefixes, strict=True)])
    return paddle.to_tensor(logits), PrefixState(state.sources, prefixes)


def search(sources: list[int], config: BeamConfig, forbidden: tuple[int, ...] = (BOS,)):
    state = PrefixState(sources, [()] * len(sources))
    return beam_search(
        step, state, len(sources), bos_id=BOS, eos_id=EOS, config=config, forbidden_ids=forbidden
    )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def next_log_probabilities(source: int, tokens: tuple[int, ...], config: BeamConfig) -> np.ndarray:
    logits = logits_of(source, (BOS, *tokens)).astype(np.float64)
    banned = [BOS] + [EOS] * (len(tokens) < config.min_length)
    if config.renormalise:
        logits[banned] = -1e18
    values = log_softmax(logits)
    values[banned] = -1e18
    return values


def repeats_trigram(tokens: tuple[int, ...]) -> bool:
    trigrams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return bool(trigrams) and trigrams[-1] in trigrams[:-1]


def log_probability(source: int, tokens: tuple[int, ...], ends: bool, config: BeamConfig) -> float:
    total = 0.0
    for place, token in enumerate((*tokens, EOS) if ends else tokens):
        total += next_log_probabilities(source, tokens[:place], config)[token]
        if config.block_trigrams and token != EOS and repeats_trigram(tokens[: place + 1]):
            total += REPETITION
    return total


def exhaustive(source: int, config: BeamConfig) -> list[tuple[tuple[int, ...], float]]:
    """All sentences that end within the length, and all unfinished ones of that length, best first."""
    found = []
    for length in range(config.max_length + 1):
        for tokens in itertools.product(WORDS, repeat=length):
            ends = length < config.max_length
            if ends and length < config.min_length:
                continue
            value = log_probability(source, tokens, ends, config)
            found.append((tokens, value / ((5 + length + ends) / 6) ** config.length_penalty))
    return sorted(found, key=lambda pair: -pair[1])


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize(
    ("alpha", "minimum", "renormalise"), [(0.0, 0, False), (0.6, 0, False), (1.4, 2, False), (0.6, 3, True)]
)
def test_a_wide_beam_is_exhaustive_search(alpha: float, minimum: int, renormalise: bool, blocked: bool):
    config = BeamConfig(2000, alpha, minimum, 6, blocked, renormalise)
    beams = search([0, 1], config)
    for source, beam in enumerate(beams):
        expected = exhaustive(source, config)
        assert [hypothesis.tokens for hypothesis in beam[:50]] == [tokens for tokens, _ in expected[:50]]
        assert len(beam) == len(expected)
        np.testing.assert_allclose([h.score for h in beam], [score for _, score in expected], rtol=1e-5)


def test_trigram_blocking_changes_what_is_said():
    free, blocked = (search([0], BeamConfig(2000, 1.0, 5, 6, flag))[0][0] for flag in (False, True))
    assert free.tokens[:4] == (2, 2, 2, 2)
    assert not any(repeats_trigram(blocked.tokens[:end]) for end in range(7))
    assert blocked.score > -100


def released_decoder(source: int, config: BeamConfig) -> list[tuple[tuple[int, ...], float]]:
    """The rules of UNIMO's decoder, one source, prefixes recomputed, scores stored normalised."""
    beam: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for s in range(config.max_length):
        candidates = []
        for tokens, stored in beam:
            if tokens and tokens[-1] == EOS:
                candidates.append((tokens, stored))
                continue
            values = next_log_probabilities(source, tokens, config)
            for token in np.argsort(-values, kind="stable")[: config.size].tolist():
                raw = stored * ((5 + s) / 6) ** config.length_penalty + values[token]
                candidates.append(((*tokens, token), raw / ((6 + s) / 6) ** config.length_penalty))
        beam = sorted(candidates, key=lambda pair: -pair[1])[: config.size]
    return beam


@pytest.mark.parametrize(("size", "alpha"), [(1, 0.6), (2, 0.0), (3, 0.6), (4, 2.0)])
def test_narrow_beams_follow_the_rules_of_the_released_decoder(size: int, alpha: float):
    config = BeamConfig(size, alpha, 2, 9, renormalise=True)
    for source, beam in enumerate(search([0, 1, 2, 3, 4, 5], config)):
        expected = released_decoder(source, config)
        assert [h.tokens + (EOS,) * h.is_finished for h in beam] == [tokens for tokens, _ in expected]
        np.testing.assert_allclose([h.score for h in beam], [score for _, score in expected], rtol=1e-5)


def test_batch_of_eight_is_eight_batches_of_one():
    config = BeamConfig(4, 0.6, 2, 12, block_trigrams=True)
    together = search(list(range(8)), config)
    assert together == [search([source], config)[0] for source in range(8)]
    assert len({tuple(h.tokens for h in beam) for beam in together}) == 8
    assert len({len(beam[0].tokens) for beam in together}) > 1


def test_beam_of_one_is_greedy_decoding():
    (found,) = search([3], BeamConfig(1, 0.6, 0, 20))[0]
    tokens: list[int] = []
    while len(tokens) < 20:
        logits = logits_of(3, (BOS, *tokens))
        logits[BOS] = -np.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] == EOS:
            break
    assert (*found.tokens, EOS) == tuple(tokens) and found.is_finished


def test_lengths_and_forbidden_tokens():
    for minimum, maximum in ((0, 1), (3, 4), (7, 8)):
        beam = search([1], BeamConfig(30, 0.0, minimum, maximum), (BOS, 3))[0]
        assert all(minimum <= len(h.tokens) and len(h.tokens) + h.is_finished <= maximum for h in beam)
        assert not {BOS, EOS, 3} & {token for h in beam for token in h.tokens}
    assert any(not h.is_finished for h in beam)


def test_a_finished_sentence_gives_way_to_a_better_longer_one():
    """ "</s>" ends at once with log 0.5; the longer sentence of log 0.45 wins by its length penalty."""
    table = {(BOS,): [0, 0.5, 0.5, 0, 0], (BOS, 2): [0, 0.1, 0, 0.9, 0], (BOS, 2, 3): [0, 1.0, 0, 0, 0]}

    def stepped(state: PrefixState, ids: Tensor) -> tuple[Tensor, PrefixState]:
        following = step(state, ids)[1]
        rows = [np.log(np.maximum(table[prefix], 1e-9)) for prefix in following.prefixes]
        return paddle.to_tensor(np.stack(rows).astype(np.float32)), following

    def best(alpha: float) -> Hypothesis:
        state = PrefixState([0], [()])
        config = BeamConfig(2, alpha, 0, 3)
        return beam_search(stepped, state, 1, bos_id=BOS, eos_id=EOS, config=config)[0][0]

    assert best(0.0).tokens == ()
    assert best(1.0).tokens == (2, 3)
    assert best(1.0).score == pytest.approx(np.log(0.45) / (8 / 6), rel=1e-4)
    assert length_penalty(3, 1.0) == pytest.approx(8 / 6)


def test_trigrams_are_of_words_not_of_tokens():
    starts_word = np.ones(10, bool)
    starts_word[5] = False
    blocker = TrigramBlocker(BOS, starts_word)
    assert blocker.repeats([2, 3, 4, 2, 3, 4])
    assert not blocker.repeats([2, 3, 4, 5, 2, 3, 4])  # the first third word goes on: "4 5"
    assert blocker.repeats([2, 3, 4, 5, 2, 3, 4, 5])
    assert not blocker.repeats([5, 3, 4, 2, 5, 3, 4])  # a first token inside a word belongs to <s>
    assert blocker.repeats([2, 2, 2, 2]) and not blocker.repeats([2, 2, 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "beam.size 0: expected 1 or more"),
        ({"min_length": 5, "max_length": 5}, "0 <= min_length < max_length"),
    ],
)
def test_impossible_searches_are_refused(changes: dict[str, int], message: str):
    with pytest.raises(ConfigError, match=message):
        BeamConfig(**changes)
