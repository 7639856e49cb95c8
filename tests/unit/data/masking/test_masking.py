"""Token masking: rates and replacements."""

import numpy as np
import pytest

from unimo.data.masking.maskers import Masker
from unimo.data.tokenizers import build_word_tokenizer

TOKENIZER = build_word_tokenizer(f"w{number}" for number in range(95))  # ids 4 .. 98, mask 99
TEXT = [0, *np.random.default_rng(0).integers(4, 99, 500).tolist(), 2]
WORDS = [-1, *(number // 2 for number in range(500)), -1]  # words of two tokens


def masked_many(masker, rounds=200):
    rng = np.random.default_rng(1)
    return [masker(TEXT, WORDS, rng) for _ in range(rounds)]


@pytest.mark.parametrize("whole_words", [False, True])
def test_rates(whole_words):
    results = masked_many(Masker(TOKENIZER, 0.15, whole_words))
    targets = sum(len(positions) for _, positions, _ in results)
    assert targets / (200 * 500) == pytest.approx(0.15, rel=0.03)
    shown = np.concatenate([masked[positions] for masked, positions, _ in results])
    labels = np.concatenate([labels for _, _, labels in results])
    assert (shown == 99).mean() == pytest.approx(0.8, abs=0.01)
    assert (shown == labels).mean() == pytest.approx(0.1 + 0.1 / 95, abs=0.01)
    random = shown[(shown != 99) & (shown != labels)]
    assert random.min() >= 4 and random.max() <= 98 and len(set(random.tolist())) == 95


def test_what_is_not_a_target_stays():
    for masked, positions, labels in masked_many(Masker(TOKENIZER), 20):
        rest = np.setdiff1d(np.arange(len(TEXT)), positions)
        np.testing.assert_array_equal(masked[rest], np.array(TEXT)[rest])
        np.testing.assert_array_equal(labels, np.array(TEXT)[positions])
        assert masked.dtype == positions.dtype == labels.dtype == np.int64


def test_special_tokens_are_never_targets():
    masker = Masker(TOKENIZER, probability=1.0)
    _, positions, _ = masker([0, 5, 3, 99, 6, 2], [-1, 0, 1, 2, 3, -1], np.random.default_rng(0))
    assert positions.tolist() == [1, 4]


def test_no_target_is_possible():
    masked, positions, labels = Masker(TOKENIZER, 0.0)([0, 5, 2], [-1, 0, -1], np.random.default_rng(0))
    assert masked.tolist() == [0, 5, 2] and len(positions) == len(labels) == 0


def test_whole_words_are_chosen_together():
    for _, positions, _ in masked_many(Masker(TOKENIZER, 0.15, whole_words=True), 20):
        chosen = set(positions.tolist())
        assert all({1 + 2 * word, 2 + 2 * word} <= chosen for word in {(p - 1) // 2 for p in chosen})


def test_text_of_specials_only():
    masker = Masker(TOKENIZER, 1.0, whole_words=True)
    assert len(masker([0, 2], [-1, -1], np.random.default_rng(0))[1]) == 0
