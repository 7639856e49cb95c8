"""Words of captions, prepositions of several words, and the tags that are corrected."""

from __future__ import annotations

import pytest

from unimo.data.masking.tagging import MAX_CHARACTERS, clip_text, repair, split_words, tag_caption

CAPTIONS = [
    # verbs that are nouns: after what stands before a noun, and before none
    ("the walk ends", "DT VB VBZ", "DT NN VBZ"),
    ("his runs .", "PRP$ VBZ .", "PRP$ NNS ."),
    ("the walk dog", "DT VB NN", "DT VB NN"),
    ("dogs walk .", "NNS VBP .", "NNS VBP ."),
    ("the", "DT", "DT"),
    # -ing after a noun
    ("a man standing on grass", "DT NN NN IN NN", "DT NN VBG IN NN"),
    ("a man standing", "DT NN NN", "DT NN VBG"),
    ("a wedding dress", "DT NN NN", "DT NN NN"),
    ("a red building .", "DT JJ NN .", "DT JJ NN ."),
    ("two dogs standing on grass", "CD NNS NN IN NN", "CD NNS VBG IN NN"),
    ("a man grass on it", "DT NN NN IN PRP", "DT NN NN IN PRP"),
    ("a man building .", "DT NN VBN .", "DT NN VBN ."),
    # "a dog jumps": a plural where the clause lacks its verb
    ("a dog jumps over it", "DT NN NNS IN PRP", "DT NN VBZ IN PRP"),
    ("a dog jumps", "DT NN NNS", "DT NN VBZ"),
    ("standing in grass dog jumps .", "VBG IN NN NN NNS .", "VBG IN NN NN VBZ ."),
    ("one dog eats glass bottles .", "CD NN VBZ NN NNS .", "CD NN VBZ NN NNS ."),
    ("big dog jumps and barks", "JJ NN NNS CC VBZ", "JJ NN NNS CC VBZ"),
    ("big dog jumps on it", "JJ NN NNS IN PRP", "JJ NN VBZ IN PRP"),
    ("a boy sits while a dog jumps .", "DT NN VBZ IN DT NN NNS .", "DT NN VBZ IN DT NN VBZ ."),
    ("a boy sits , a dog jumps .", "DT NN VBZ , DT NN NNS .", "DT NN VBZ , DT NN NNS ."),
    ("a boy sits . a dog jumps .", "DT NN VBZ . DT NN NNS .", "DT NN VBZ . DT NN VBZ ."),
    ("two dog jumps are there", "CD NN NNS VBP RB", "CD NN NNS VBP RB"),
    ("two dog jumps in it are there", "CD NN NNS IN PRP VBP RB", "CD NN NNS IN PRP VBP RB"),
    # "two dogs play": a singular after a plural, without a verb before it
    ("two dogs play in grass", "CD NNS NN IN NN", "CD NNS VBP IN NN"),
    ("he sees dogs play .", "PRP VBZ NNS NN .", "PRP VBZ NNS NN ."),
    ("two dogs play grass", "CD NNS NN NN", "CD NNS NN NN"),
    # clothes named by their colour alone
    ("a girl in pink runs .", "DT NN IN NN NNS .", "DT NN IN NN VBZ ."),
    ("a girl in pink runs shoes", "DT NN IN JJ NNS NNS", "DT NN IN JJ NNS NNS"),
    ("a girl in pink runs on", "DT NN IN JJ NNS IN", "DT NN IN JJ VBZ IN"),
    ("a girl has pink runs .", "DT NN VBZ JJ NNS .", "DT NN VBZ JJ NNS ."),
    ("pink runs .", "JJ NNS .", "JJ NNS ."),
    ("in pink runs .", "IN JJ NNS .", "IN JJ VBZ ."),
    # a top that is worn
    ("a tank top .", "DT NN JJ .", "DT NN NN ."),
    ("a tank top shirt", "DT NN JJ NN", "DT NN JJ NN"),
    ("a tank red .", "DT NN JJ .", "DT NN JJ ."),
    ("a tank top .", "DT NN VBN .", "DT NN VBN ."),
    # marks
    ("a dog ; cats ! & 's", "DT NN NN NNS NN NN NN", "DT NN : NNS . CC POS"),
]


@pytest.mark.parametrize(("text", "tags", "expected"), CAPTIONS)
def test_typical_mistakes_of_the_tagger_are_corrected_and_nothing_else(
    text: str, tags: str, expected: str
) -> None:
    assert repair(text.split(), tags.split()) == expected.split()


def test_prepositions_of_several_words_are_one_token() -> None:
    text = "A man in the middle of it sits next to her, in front of houses on board."
    tokens = tag_caption(text, lambda words: ["NN"] * len(words))
    assert [token.word for token in tokens] == (
        ["a", "man", "in the middle of", "it", "sits", "next to", "her", ",", "in front of"]
        + ["houses", "on board", "."]
    )
    assert [token.word for token in tokens if token.tag == "IN"] == [
        "in the middle of",
        "next to",
        "in front of",
        "on board",
    ]
    assert [text[token.start : token.end].lower() for token in tokens] == [token.word for token in tokens]
    assert tag_caption("", lambda words: ["NN"] * len(words)) == []


def test_long_texts_end_with_a_whole_word() -> None:
    short, long = "word " * (MAX_CHARACTERS // 5), "words " * MAX_CHARACTERS
    assert len(short) == MAX_CHARACTERS and clip_text(short) == short
    assert clip_text(short + "x") == short.rstrip()
    assert clip_text(long) == long[: MAX_CHARACTERS // 6 * 6 - 1]
    assert clip_text("x" * (MAX_CHARACTERS + 1)) == "x" * MAX_CHARACTERS
    assert split_words("A well-known, T-shirt!") == ["a", "well-known", ",", "t-shirt", "!"]
