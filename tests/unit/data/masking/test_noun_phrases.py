"""Noun phrases of tagged words: where they begin and end, the noun, and what describes it."""

from __future__ import annotations

import pytest

from unimo.data.masking.noun_phrases import noun_phrases
from unimo.data.masking.tagging import Token

# Words with their tags; then the phrases as "whole: head: attributes".
CASES = [
    ("a/DT dog/NN runs/VBZ", ["a dog: dog:"]),
    ("the/DT two/CD dogs/NNS", ["the two dogs: dogs:"]),
    ("runs/VBZ fast/RB", []),
    ("red/JJ dog/NN and/CC cat/NN", ["red dog: dog: red", "cat: cat:"]),
    ("black/JJ and/CC white/JJ dog/NN", ["black and white dog: dog: black, white"]),
    ("big/JJ ,/, and/CC old/JJ dog/NN", ["big , and old dog: dog: big, old"]),
    ("and/CC old/JJ dog/NN", ["old dog: dog: old"]),
    ("in/IN black/JJ and/CC running/VBG", []),
    ("soccer/NN ball/NN", ["soccer ball: soccer ball:"]),
    # colours that the tagger takes for nouns
    ("orange/NN cat/NN", ["orange cat: cat: orange"]),
    ("in/IN orange/NN ./.", ["orange: orange:"]),
    # an adverb belongs to its adjective inside of a phrase alone
    ("a/DT very/RB big/JJ dog/NN", ["a very big dog: dog: very big"]),
    ("runs/VBZ very/RB big/JJ dogs/NNS", ["big dogs: dogs: big"]),
    ("a/DT very/RB dog/NN", ["dog: dog:"]),
    # participles
    ("a/DT running/VBG dog/NN", ["a running dog: dog: running"]),
    ("man/NN holding/VBG balls/NNS", ["man: man:", "balls: balls:"]),
    ("a/DT parked/VBN car/NN", ["a parked car: car: parked"]),
    ("parked/VBN cars/NNS", ["parked cars: cars: parked"]),
    ("near/IN parked/VBN cars/NNS", ["parked cars: cars: parked"]),
    ("he/PRP parked/VBN cars/NNS", ["cars: cars:"]),
    ("a/DT rolled/VBN up/RP rug/NN", ["a rolled up rug: rug: rolled up"]),
    ("a/DT rolled/VBN up/RP rug/NN ./.", ["a rolled up rug: rug: rolled up"]),
    ("a/DT rolled/VBN up/RP ./.", []),
    ("a/DT rolled/VBN up/RP", []),
    ("sees/VBZ a/DT rolled/VBN up/RP", []),
    ("a/DT swimming/VBG pool/NN", ["a swimming pool: swimming pool:"]),
    # what stands for no object
    ("the/DT something/NN", []),
    ("each/DT other/NN", []),
    ("something/NN dogs/NNS", ["something dogs: something dogs:"]),
    # more tokens than Python keeps small numbers for
    ("runs/VBZ " * 300 + "in/IN swimming/VBG", []),
]


def spelled(tokens: list[Token], span: tuple[int, int]) -> str:
    return " ".join(token.word for token in tokens[slice(*span)])


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_phrases(text: str, expected: list[str]) -> None:
    tokens = [Token(*pair.rsplit("/", 1), 0, 0) for pair in text.split()]
    found = []
    for phrase in noun_phrases(tokens):
        attributes = ", ".join(spelled(tokens, span) for span in phrase.attributes)
        parts = (spelled(tokens, phrase.span), spelled(tokens, phrase.head), attributes)
        found.append(": ".join(parts).strip())
    assert found == expected
