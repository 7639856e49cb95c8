"""Phrases as units of masking: "detect semantically complete phrases ... and treat them as a whole"
(UNIMO, section 2.3)."""

from __future__ import annotations

from unimo.data.masking.noun_phrases import noun_phrases
from unimo.data.masking.tagging import load_tagger, tag_words


class PhraseFinder:
    """Find the phrases of a text: names and other nouns with the words that describe them.

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
