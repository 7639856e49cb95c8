"""The language model against a plain implementation of its formula, and counting in bounded memory."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from unimo.augment.ngram import KeyCounter, TrigramCounter, TrigramModel

SENTENCES = [line.split() for line in ("a dog runs", "a dog sits", "a cat sits", "the cat runs", "a dog")]


def trained() -> TrigramModel:
    counter = TrigramCounter(10_000)
    for sentence in SENTENCES:
        counter.add(sentence)
    return TrigramModel(counter)


def reference(history: tuple[str, str], word: str) -> float:
    """Implement interpolated Kneser-Ney smoothing with dictionaries."""
    threes = Counter(
        tuple(row[at : at + 3])
        for row in (["<s>", "<s>", *sentence, "</s>"] for sentence in SENTENCES)
        for at in range(len(row) - 2)
    )
    twos = Counter(gram[1:] for gram in threes)
    ones = Counter(gram[1:] for gram in twos)
    lower = 1.0 / len({"<unk>", "<s>", "</s>", *(word for row in SENTENCES for word in row)})
    for grams, gram in ((ones, (word,)), (twos, (history[1], word)), (threes, (*history, word))):
        once, twice = (sum(count == n for count in grams.values()) for n in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else 0.5
        followers = {key: count for key, count in grams.items() if key[:-1] == gram[:-1]}
        total = sum(followers.values())
        if total:
            known = max(grams[gram] - discount, 0) / total
            lower = known + discount * len(followers) / total * lower
    return lower


def pack(model: TrigramModel, *words: str) -> int:
    a, b, c = (model.words.get(word, 0) for word in words)
    return a << 42 | b << 21 | c


@pytest.mark.parametrize("history", [("<s>", "a"), ("a", "dog"), ("dog", "runs"), ("the", "dog"), ("x", "y")])
def test_probabilities_equal_the_formula_and_sum_to_one(history: tuple[str, str]):
    model = trained()
    found = model.probability(np.array([pack(model, *history, word) for word in model.words]))
    np.testing.assert_allclose(found, [reference(history, word) for word in model.words], rtol=1e-12)
    assert found.sum() == pytest.approx(1.0)


def test_fluent_sentences_come_first():
    model = trained()
    scores = model.log_probability([["a", "dog", "runs"], ["runs", "dog", "a"], []])
    assert scores[0] > scores[1] and np.isfinite(scores).all() and len(scores) == 3
    steps = (("<s>", "<s>", "a"), ("<s>", "a", "dog"), ("a", "dog", "runs"), ("dog", "runs", "</s>"))
    logs = np.log([reference(step[:2], step[2]) for step in steps])
    assert scores[0] == pytest.approx(logs.mean())


def test_a_full_counter_forgets_the_rarest():
    counter = KeyCounter(max_keys=3)
    for keys in ([5, 5, 5, 1], [7, 7, 2], [9, 9, 5, 7, 3]):
        counter.add(keys)
    counter.settle()
    assert dict(zip(counter.keys, counter.counts, strict=True)) == {5: 4, 7: 3, 9: 2}
