"""Words of a caption and their parts of speech (Penn tags), without downloading a model.

The default tagger is TextBlob's pattern tagger, whose lexicon is part of its wheel. It was made for news
text: `repair` corrects its typical mistakes on captions, most of all "a dog jumps", where it takes the verb
for a plural.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unimo.errors import CapabilityError

Tagger = Callable[[Sequence[str]], list[str]]
"""Maps the lower-case words of a sentence to one Penn tag each."""

MAX_CHARACTERS = 2000
"""Longer texts are clipped: a sentence of that length is no caption."""

_WORD = re.compile(r"['’]s\b|[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]")
_PREPOSITIONS = (
    "in front of", "on top of", "in the middle of", "in the midst of", "next to", "out of", "away from",
    "close to", "in between", "on board", "because of", "instead of", "along with", "on to", "in to",
)  # fmt: skip
COLOURS = frozenset(
    "red orange yellow green blue purple pink brown black white gray grey tan beige khaki maroon navy teal "
    "gold golden silver blond blonde turquoise plaid camouflage denim checkered striped spotted".split()
)
"""Colours and patterns, which describe what follows even where the tagger takes them for nouns."""
_LONG = {tuple(words.split()): words for words in _PREPOSITIONS}
_SINGULAR = {"a", "an", "one", "this", "another", "each"}
_BEFORE_NOUN = {"DT", "PRP$", "JJ", "CD", "PDT"}
_AFTER_VERB = {"IN", "DT", "TO", "PRP$", "PRP", "RP", "RB", "CD", ".", ",", "CC", "END"}
_VERBS = ("VB", "MD")
_PUNCTUATION = {".": ".", "!": ".", "?": ".", ",": ",", "&": "CC", "'s": "POS", "’s": "POS"}


@dataclass(frozen=True)
class Token:
    """A word, or a preposition of several words, with its characters `text[start:end]` in the caption."""

    word: str
    tag: str
    start: int
    end: int


def tag_words(text: str, tagger: Tagger) -> list[Token]:
    """Split a caption, clipped by `clip_text`, into tagged words."""
    found = list(_WORD.finditer(clip_text(text)))
    words = [match.group().lower() for match in found]
    tags = repair(words, tagger(words)) if words else []
    return [
        Token(word, tag, match.start(), match.end())
        for word, tag, match in zip(words, tags, found, strict=True)
    ]


def tag_caption(text: str, tagger: Tagger) -> list[Token]:
    """Split a caption into tagged words; prepositions such as "in front of" are one token."""
    words, tokens, at = tag_words(text, tagger), [], 0
    while at < len(words):
        size = next((n for n in (4, 3, 2) if tuple(token.word for token in words[at : at + n]) in _LONG), 1)
        part = words[at : at + size]
        tag = part[0].tag if size == 1 else "IN"
        tokens.append(Token(" ".join(token.word for token in part), tag, part[0].start, part[-1].end))
        at += size
    return tokens


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation marks, the units of parser and language model."""
    return [match.group().lower() for match in _WORD.finditer(text)]


def clip_text(text: str) -> str:
    """Return the text, cut after a whole word if it is longer than `MAX_CHARACTERS`."""
    if len(text) <= MAX_CHARACTERS:
        return text
    clipped = text[:MAX_CHARACTERS]
    return clipped.rpartition(" ")[0] or clipped


def repair(words: Sequence[str], tags: Sequence[str]) -> list[str]:
    """Correct the tags of a caption; `words` are in lower case."""
    fixed = [
        tag if word[0].isalnum() else _PUNCTUATION.get(word, ":")
        for word, tag in zip(words, tags, strict=True)
    ]
    for at, (word, tag) in enumerate(zip(words, fixed, strict=True)):
        before = fixed[at - 1] if at else "START"
        after = fixed[at + 1] if at + 1 < len(fixed) else "END"
        if tag in ("VB", "VBP", "VBZ") and before in _BEFORE_NOUN and not after.startswith("NN"):
            fixed[at] = "NNS" if tag == "VBZ" else "NN"
        elif tag == "NN" and word.endswith("ing") and before.startswith("NN") and after in _AFTER_VERB:
            fixed[at] = "VBG"
        elif tag == "NNS" and before == "NN" and after in _AFTER_VERB and _lacks_verb(fixed, words, at):
            fixed[at] = "VBZ"
        elif tag == "NN" and before == "NNS" and after in _AFTER_VERB and not _has_finite(fixed, words, at):
            fixed[at] = "VBP"
        elif tag == "NNS" and words[at - 1] in COLOURS and at > 1 and fixed[at - 2] == "IN":
            # "a girl in pink runs": clothes named by their colour alone, then the verb.
            fixed[at] = "VBZ" if after in _AFTER_VERB and _lacks_verb(fixed, words, at) else tag
        elif tag == "JJ" and before == "NN" and not after.startswith(("NN", "JJ")) and word == "top":
            fixed[at] = "NN"
    return fixed


def _clause_start(tags: Sequence[str], words: Sequence[str], at: int) -> int:
    while at and tags[at - 1] not in (".", ":") and words[at - 1] not in ("while", "as", "that", "who"):
        at -= 1
    return at


def _has_finite(tags: Sequence[str], words: Sequence[str], at: int) -> bool:
    """Return whether the clause has a finite verb before position `at`."""
    start = _clause_start(tags, words, at)
    return any(tag in ("VBZ", "VBP", "VBD", "MD") for tag in tags[start:at])


def _lacks_verb(tags: Sequence[str], words: Sequence[str], at: int) -> bool:
    """Return whether the clause around position `at` still needs a finite verb."""
    if _has_finite(tags, words, at):
        return False
    start, nouns = _clause_start(tags, words, at), at
    while nouns > start and tags[nouns - 1].startswith(("NN", "JJ", "VBG")):
        nouns -= 1
    if nouns > start and words[nouns - 1] in _SINGULAR:
        return True
    return not any(tag.startswith(_VERBS) for tag in tags[at + 1 :])


@functools.cache
def load_tagger(name: str = "textblob") -> Tagger:
    """Load a tagger by name: `textblob`, or `spacy:PIPELINE` with an installed or saved spaCy pipeline.

    Raises:
        CapabilityError: unknown name, or the library or pipeline is not installed.
    """
    kind, _, pipeline = name.partition(":")
    if kind == "textblob":
        try:
            from textblob.en import parser
        except ImportError as error:
            raise CapabilityError(
                f"the default caption parser needs textblob ({error}); try pip install textblob"
            ) from error
        # The first call reads the lexicon, and another thread calling meanwhile would see half of it.
        parser.find_tags(["The", "old", "quickish", "Zurbaran"])
        return lambda words: [tag for _, tag in parser.find_tags(list(words))]
    if kind != "spacy":
        raise CapabilityError(
            f"no parser {name!r}; expected textblob, spacy:PIPELINE (e.g. spacy:en_core_web_sm) "
            "or stanford:JARS"
        )
    pipeline = pipeline or "en_core_web_sm"
    try:
        import spacy

        model = spacy.load(pipeline)
    except (ImportError, OSError) as error:
        raise CapabilityError(
            f"cannot load the spaCy pipeline {pipeline!r} ({error}); install it, or use the parser `textblob`"
        ) from error
    from spacy.tokens import Doc

    return lambda words: [token.tag_ or "NN" for token in model(Doc(model.vocab, words=list(words)))]
