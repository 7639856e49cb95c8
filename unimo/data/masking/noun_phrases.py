"""Noun phrases of a tagged caption: the words that name an object, and those that describe it.

`PhraseFinder` makes them units of masking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unimo.data.masking.tagging import COLOURS, Token, load_tagger, tag_words

Span = tuple[int, int]
"""First token and the one after the last."""

_PURPOSES = frozenset(
    "swimming bathing skating climbing racing fishing sleeping hiking shopping parking training riding "
    "diving living dining wedding boxing skiing wading chewing frying baking".split()
)
_DETERMINERS = ("DT", "PDT", "PRP$", "CD", "WP$")
_QUANTIFIERS = frozenset("several many few other such various same more most".split())
_ADJECTIVES = ("JJ", "JJR", "JJS")
_PARTICIPLES = ("VBN", "VBD", "VBG")
_NO_OBJECTS = frozenset("each other one ones another both all something someone anything nothing".split())


@dataclass(frozen=True)
class Phrase:
    """A noun phrase."""

    span: Span
    """All of its tokens."""
    head: Span
    """The noun, including all parts of a compound."""
    attributes: tuple[Span, ...]
    """Words that describe it."""


def noun_phrases(tokens: Sequence[Token]) -> list[Phrase]:
    """Return the noun phrases from left to right, not overlapping."""
    found, at = [], 0
    while at < len(tokens):
        phrase = _phrase_at(tokens, at)
        if phrase:
            found.append(phrase)
        at = phrase.span[1] if phrase else at + 1
    return found


def _phrase_at(tokens: Sequence[Token], begin: int) -> Phrase | None:
    at = begin
    while at < len(tokens) and (tokens[at].tag in _DETERMINERS or tokens[at].word in _QUANTIFIERS):
        at += 1
    attributes, at = _attributes(tokens, at, opened=at > begin)
    head = at
    while at < len(tokens) and (tokens[at].tag.startswith("NN") or (at == head and _is_purpose(tokens, at))):
        at += 1
    if at == head or not tokens[at - 1].tag.startswith("NN") or tokens[at - 1].word in _NO_OBJECTS:
        return None
    return Phrase((begin, at), (head, at), tuple(attributes))


def _attributes(tokens: Sequence[Token], at: int, opened: bool) -> tuple[list[Span], int]:
    """Return the describing words from `at` on, and the start of the head.

    Words joined by "and" or a comma belong together only if a described noun follows: "black and white
    dog", but not "in black and running".
    """
    attributes: list[Span] = []
    while at < len(tokens):
        start = at + 1 if attributes and (tokens[at].tag == "CC" or tokens[at].word == ",") else at
        if start > at and start < len(tokens) and tokens[start].tag == "CC":
            start += 1
        size = _describes(tokens, start, opened or bool(attributes))
        if not size:
            break
        attributes.append((start, start + size))
        at = start + size
    return attributes, at


def _describes(tokens: Sequence[Token], at: int, opened: bool) -> int:
    """Return the number of tokens of the attribute at `at`; 0 if there is none."""
    if at >= len(tokens):
        return 0
    token = tokens[at]
    after = tokens[at + 1].tag if at + 1 < len(tokens) else "END"
    if token.word in COLOURS:
        return int(not token.tag.startswith("NN") or after.startswith(("NN", "JJ", "CC", ",")))
    if token.tag in _ADJECTIVES:
        return 1
    if token.tag == "RB" and after in _ADJECTIVES and opened:
        return 2
    before = tokens[at - 1].tag if at else "START"
    if token.tag in _PARTICIPLES and not _is_purpose(tokens, at):
        wanted = opened if token.tag == "VBG" else opened or before in ("IN", "VBG", "START")
        if wanted and after.startswith(("NN", "JJ", "CC")):
            return 1
        if wanted and after in ("RP", "RB") and tokens[min(at + 2, len(tokens) - 1)].tag.startswith("NN"):
            return 2
    return 0


def _is_purpose(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a word in -ing names the purpose of the next noun, as in "swimming pool"."""
    follows = at + 1 < len(tokens) and tokens[at + 1].tag.startswith("NN")
    return tokens[at].word in _PURPOSES and follows


class PhraseFinder:
    """Find the phrases of a text, that is names and other nouns with the words that describe them: "detect
    semantically complete phrases ... and treat them as a whole" (UNIMO, section 2.3).

    "a [black and gray cat] stares at two [big dogs]": articles and numbers are not part of a phrase. Text
    after the first 2,000 characters is ignored.

    Raises:
        CapabilityError: no such tagger, or it is not installed.
    """

    def __init__(self, tagger: str) -> None:
        self._tag = load_tagger(tagger)

    def __call__(self, text: str) -> list[tuple[int, int]]:
        """Return the characters of each phrase of at least two words, as (first, one after the last)."""
        tokens = tag_words(text, self._tag)
        found = []
        for phrase in noun_phrases(tokens):
            begin = phrase.attributes[0][0] if phrase.attributes else phrase.head[0]
            end = phrase.head[1]
            if end - begin > 1:
                found.append((tokens[begin].start, tokens[end - 1].end))
        return found
