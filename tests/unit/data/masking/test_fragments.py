"""Seq2seq fragments: share of the text, whole words, and predicted tokens."""

import numpy as np
import pytest

from unimo.data.masking.fragments import FragmentSampler, _room
from unimo.data.tokenizers import build_word_tokenizer
from unimo.errors import ConfigError

TOKENIZER = build_word_tokenizer(f"w{number}" for number in range(595))  # ids 4 .. 598, mask 599
BOS, EOS, UNK = 0, 2, 3


def text(sizes):
    """Make a text of different tokens, in words of the given sizes."""
    count = sum(sizes)
    words = np.repeat(np.arange(len(sizes)), sizes)
    return [BOS, *range(4, 4 + count), EOS], [-1, *words.tolist(), -1]


def pieces_of(fragments):
    """Return the tokens of each fragment, without [CLS] and [SEP]."""
    target = fragments.target_ids
    begins, ends = np.flatnonzero(target == BOS), np.flatnonzero(target == EOS)
    assert len(begins) == len(ends) and (begins < ends).all() and (begins[1:] == ends[:-1] + 1).all()
    assert len(target) == 0 or (begins[0] == 0 and ends[-1] == len(target) - 1)
    return [target[begin + 1 : end].tolist() for begin, end in zip(begins, ends, strict=True)]


def test_a_quarter_is_taken_over_10000_texts():
    """Make captions of 8 to 20 words and texts of up to 500 tokens, with words of one to four tokens."""
    sampler, rng = FragmentSampler(TOKENIZER), np.random.default_rng(0)
    shares = {"caption": [], "long": []}
    for number in range(10000):
        kind, words = ("long", rng.integers(40, 300)) if number % 4 == 0 else ("caption", rng.integers(8, 21))
        sizes = rng.choice([1, 1, 1, 2, 2, 3, 4], words)
        ids, numbers = text(sizes[sizes.cumsum() <= 500])
        taken = len(ids) - len(sampler(ids, numbers, rng).source_ids)
        shares[kind].append(taken / (len(ids) - 2))
    assert np.mean(shares["caption"]) == pytest.approx(0.25, abs=0.01)
    assert np.mean(shares["long"]) == pytest.approx(0.25, abs=0.01)


def test_a_caption_of_ten_words_gives_two_or_three_side_by_side():
    sampler, rng = FragmentSampler(TOKENIZER), np.random.default_rng(1)
    sizes = []
    for _ in range(400):
        (piece,) = pieces_of(sampler(*text([1] * 10), rng))
        sizes.append(len(piece))
    assert set(sizes) == {2, 3} and np.mean(sizes) == pytest.approx(2.5, abs=0.1)


def test_both_parts_are_the_text():
    """Fragments are runs of whole words in the order of the text; the rest is the source."""
    sampler, rng = FragmentSampler(TOKENIZER), np.random.default_rng(2)
    for _ in range(200):
        sizes = rng.integers(1, 5, rng.integers(8, 120))
        ids, words = text(sizes)
        fragments = sampler(ids, words, rng)
        pieces = pieces_of(fragments)
        taken = [token for piece in pieces for token in piece]
        assert taken == sorted(taken)
        assert all(np.diff(piece).tolist() == [1] * (len(piece) - 1) for piece in pieces)
        rest = [token for token in ids if token not in set(taken)]
        assert fragments.source_ids.tolist() == rest
        numbers = np.array(words)[np.isin(ids, taken)]
        assert all(np.bincount(numbers)[number] == sizes[number] for number in np.unique(numbers))


def test_lengths_are_uniform_from_4_to_32_words():
    """Lengths of fragments that the budget does not cut: all but the last one of each long text."""
    sampler, rng = FragmentSampler(TOKENIZER, share=0.02), np.random.default_rng(3)
    lengths = []
    for _ in range(60):
        runs = sampler._draw(np.ones(20000, np.int64), rng)
        lengths += [end - begin for begin, end in runs]
    lengths = np.array(lengths)
    counts = np.bincount(lengths, minlength=33)
    assert lengths.max() == 32 and counts[:4].sum() <= 60  # at most one cut fragment for each text
    assert counts[4:33].min() > 0.6 * counts[4:33].mean()
    assert np.mean(lengths[lengths >= 4]) == pytest.approx(18, abs=0.7)


def test_phrase_numbers_make_it_phrases():
    ids, _ = text([1] * 60)
    phrases = [-1, *(number // 5 for number in range(60)), -1]
    sampler, rng = FragmentSampler(TOKENIZER, shortest=1, longest=2), np.random.default_rng(4)
    for _ in range(50):
        for piece in pieces_of(sampler(ids, phrases, rng)):
            assert len(piece) in (5, 10) and (piece[0] - 4) % 5 == 0


def test_positions_labels_and_types():
    ids, words = text([1] * 40)
    fragments = FragmentSampler(TOKENIZER, shortest=4, longest=6)(ids, words, np.random.default_rng(5))
    source, target = fragments.source_ids, fragments.target_ids
    assert len(pieces_of(fragments)) >= 2
    np.testing.assert_array_equal(fragments.source_positions, 2 + np.arange(len(source)))
    np.testing.assert_array_equal(fragments.target_positions, 2 + np.arange(len(target)))
    predicted = {}
    for place, label in zip(fragments.label_places, fragments.labels, strict=True):
        predicted[int(place)] = int(label)
    for place, token in enumerate(target[:-1]):
        assert predicted.get(place) == (None if token == EOS else target[place + 1])
    assert len(target) - 1 not in predicted
    assert {array.dtype for array in vars(fragments).values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize("sizes", [[], [1], [6]])
def test_texts_of_less_than_two_words_stay(sizes):
    ids, words = text(sizes)
    for seed in range(20):
        fragments = FragmentSampler(TOKENIZER)(ids, words, np.random.default_rng(seed))
        assert fragments.source_ids.tolist() == ids
        assert not len(fragments.target_ids) and not len(fragments.labels) and not len(fragments.label_places)
        assert {array.dtype for array in vars(fragments).values()} == {np.dtype(np.int64)}


def test_one_word_stays_and_unknown_words_too():
    sampler, rng = FragmentSampler(TOKENIZER, share=0.9), np.random.default_rng(6)
    for _ in range(100):
        assert len(sampler(*text([1, 9]), rng).source_ids) > 2
        ids, words = [BOS, 5, UNK, 6, 7, UNK, 8, EOS], [-1, 0, 1, 2, 3, 3, 4, -1]
        fragments = sampler(ids, words, rng)
        assert {UNK, 7} <= set(fragments.source_ids.tolist())
        assert all(piece in ([5], [6], [8]) for piece in pieces_of(fragments))


def test_the_generator_decides_alone():
    sampler, (ids, words) = FragmentSampler(TOKENIZER), text([2] * 100)
    first, again, other = (sampler(ids, words, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.target_ids, again.target_ids)
    assert first.target_ids.tolist() != other.target_ids.tolist()


def test_room():
    assert _room(np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)).tolist() == [2, 1, 0, 1, 0, 0, 2, 1]


def test_impossible_settings():
    with pytest.raises(ConfigError, match="5 to 4 words"):
        FragmentSampler(TOKENIZER, shortest=5, longest=4)
    with pytest.raises(ConfigError, match=r"1\.5"):
        FragmentSampler(TOKENIZER, share=1.5)
