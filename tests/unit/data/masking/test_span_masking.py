"""Span masking of whole words: share, lengths of runs, replacements."""

import math

import numpy as np
import pytest

from unimo.data.masking.maskers import SpanMasker
from unimo.data.tokenizers import build_word_tokenizer

TOKENIZER = build_word_tokenizer(f"w{number}" for number in range(195))
MASK = TOKENIZER.mask_token_id


def text(size, tokens_a_word=1, seed=0):
    ids = np.random.default_rng(seed).integers(4, 199, size)
    return [0, *ids.tolist(), 2], [-1, *(number // tokens_a_word for number in range(size)), -1]


@pytest.mark.parametrize("size", [1, 7, 40, 300])
def test_the_budget_is_met_to_a_token_and_exactly_on_average(size):
    masker, rng = SpanMasker(TOKENIZER), np.random.default_rng(1)
    counts = [len(masker(*text(size), rng)[1]) for _ in range(4000 // size + 100)]
    assert set(counts) <= {math.floor(0.15 * size), math.ceil(0.15 * size)}
    assert np.mean(counts) == pytest.approx(0.15 * size, abs=3 * np.std(counts) / len(counts) ** 0.5 + 1e-9)


def test_words_are_whole_and_none_is_begun_beyond_the_budget():
    masker, rng = SpanMasker(TOKENIZER), np.random.default_rng(2)
    counts = []
    for _ in range(400):
        _, positions, _ = masker(*text(90, tokens_a_word=3), rng)
        words = (positions - 1) // 3
        assert set(np.bincount(words)[np.unique(words)]) == {3}
        counts.append(len(positions))
    assert set(counts) == {12, 15}
    assert np.mean(counts) == pytest.approx(13.5, abs=0.25)


def test_lengths_are_geometric():
    """p = 0.2, l at most 10: 3.80 words on average (SpanBERT). The words of a span share one number."""
    masker, rng = SpanMasker(TOKENIZER, 0.02), np.random.default_rng(3)
    shares = np.diff(masker.length_shares, prepend=0)
    np.testing.assert_allclose(shares[1:] / shares[:-1], 0.8)
    assert (shares * np.arange(1, 11)).sum() == pytest.approx(3.797, abs=1e-3)
    lengths = []
    for _ in range(40):
        fate = masker._draw_spans(np.ones(5000, np.int64), rng)
        lengths += np.unique(fate[~np.isnan(fate)], return_counts=True)[1].tolist()
    assert np.mean(lengths) == pytest.approx(3.75, abs=0.25)
    assert max(lengths) == 10


def test_fates_are_80_10_10_and_a_span_shares_its_fate():
    masker, rng = SpanMasker(TOKENIZER), np.random.default_rng(4)
    ids, words = text(400)
    kinds, mixed = np.zeros(3), 0
    for _ in range(300):
        masked, positions, labels = masker(ids, words, rng)
        assert (np.asarray(ids)[positions] == labels).all()
        kept = np.setdiff1d(np.arange(len(ids)), positions)
        assert (masked[kept] == np.asarray(ids)[kept]).all()
        fates = np.where(masked[positions] == MASK, 0, np.where(masked[positions] == labels, 2, 1))
        kinds += np.bincount(fates, minlength=3)
        neighbours = np.diff(positions) == 1
        mixed += (fates[1:] != fates[:-1])[neighbours].mean()
    np.testing.assert_allclose(kinds / kinds.sum(), [0.8, 0.1, 0.1], atol=0.02)
    assert mixed / 300 < 0.1  # token by token it would be 0.34; the rest are adjacent spans
    assert not TOKENIZER.special_ids & set(masked[positions][fates == 1].tolist())


def test_specials_are_never_hidden():
    masker, rng = SpanMasker(TOKENIZER, 1.0), np.random.default_rng(5)
    masked, positions, labels = masker([0, 2], [-1, -1], rng)
    assert masked.tolist() == [0, 2] and len(positions) == len(labels) == 0
    _, positions, _ = masker([0, 7, 3, 8, 2], [-1, 0, 1, 2, -1], rng)  # 3 is <unk> inside the text
    assert positions.tolist() == [1, 3]


def shares_of_captions(masker):
    """Return the masked shares of 10,000 texts of 8 to 20 words of one to three tokens."""
    rng = np.random.default_rng(6)
    shares = []
    for _ in range(10000):
        sizes = rng.choice([1, 1, 1, 1, 2, 3], rng.integers(8, 21))
        words = [-1, *np.repeat(np.arange(len(sizes)), sizes).tolist(), -1]
        ids = [0, *rng.integers(4, 199, len(words) - 2).tolist(), 2]
        shares.append(len(masker(ids, words, rng)[1]) / sizes.sum())
    return np.array(shares)


def test_15_percent_of_the_tokens_of_captions():
    shares = shares_of_captions(SpanMasker(TOKENIZER))
    assert shares.mean() == pytest.approx(0.15, abs=0.005)
    assert (shares == 0).mean() < 0.05
