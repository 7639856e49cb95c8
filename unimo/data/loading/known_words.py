"""How much of a corpus a tokenizer knows, from a sample of its texts.

A word is what the tokenizer looks up as one; it is unknown if a token of it is. To byte-level BPE nothing is
unknown: a language that it was not made for falls into single bytes. What tells is bytes a token: 3.5 for
English captions in RoBERTa's vocabulary, 2.0 for German ones, 1.6 for Chinese ones.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unimo.data.tokenizers import Tokenizer
from unimo.errors import DataError, RecordError, shown

MOST_UNKNOWN = 0.3
"""Largest share of unknown words of a corpus that is trained on."""
FEWEST_BYTES = 1.8
"""Bytes a token below which words count as spelled out."""
_TEXTS, _CHARACTERS = 200, 2000
"""Texts of a corpus that are looked at, and characters of each."""
WAY_OUT = (
    "give data.tokenizer= a folder with RoBERTa's vocab.json and merges.txt (hf download "
    "FacebookAI/roberta-base vocab.json merges.txt --local-dir roberta-base) or with BERT's vocab.txt, or "
    "start from a model that has such a tokenizer"
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownWords:
    """Counts over the sample of a corpus."""

    words: int
    unknown: int
    tokens: int
    bytes: int
    """Bytes in UTF-8, without blanks."""
    examples: tuple[str, ...]
    """The most frequent unknown words."""

    @property
    def unknown_share(self) -> float:
        """Share of unknown words in [0, 1]."""
        return self.unknown / max(1, self.words)

    @property
    def bytes_a_token(self) -> float:
        """Mean length of a token; infinite without tokens."""
        return self.bytes / self.tokens if self.tokens else float("inf")


def count_known_words(tokenizer: Tokenizer, dataset: Sequence[Any]) -> KnownWords:
    """Count the words in up to 200 records of a corpus, spread evenly; broken ones are left out."""
    words = unknown = tokens = size = 0
    missing: Counter[str] = Counter()
    for index in sorted({number * (len(dataset) - 1) // (_TEXTS - 1) for number in range(_TEXTS)}):
        try:
            texts = dataset[index].texts
        except (RecordError, OSError):
            continue
        for text in (text[:_CHARACTERS] for text in texts):
            found = tokenizer.backend.encode(text, add_special_tokens=False)
            places = {
                word: place
                for word, token, place in zip(found.word_ids, found.ids, found.offsets, strict=True)
                if token == tokenizer.unk_token_id
            }
            missing.update(text[begin:end] for begin, end in places.values())
            words, unknown = words + len(set(found.word_ids)), unknown + len(places)
            tokens, size = (
                tokens + len(found.ids),
                size + len("".join(text.split()).encode("utf8", "replace")),
            )
    examples = tuple(word for word, _ in missing.most_common(5))
    return KnownWords(words, unknown, tokens, size, examples)


def check_known_words(tokenizer: Tokenizer, datasets: Mapping[str, Sequence[Any]]) -> None:
    """Check that a tokenizer knows the words of the corpora to train on.

    Raises:
        DataError: more than `MOST_UNKNOWN` of the words of a corpus are unknown to it.
    """
    for name, dataset in datasets.items():
        if problem := unknown_words(tokenizer, name, dataset):
            raise DataError(f"{problem}; {WAY_OUT}")


def unknown_words(tokenizer: Tokenizer, name: str, dataset: Sequence[Any]) -> str:
    """Return what is wrong with a tokenizer for a corpus, empty if it knows enough; log what it knows."""
    known = count_known_words(tokenizer, dataset)
    if known.unknown_share > MOST_UNKNOWN:
        examples = ", ".join(shown(word, 30) for word in known.examples)
        return (
            f"{name}: {known.unknown_share:.0%} of the words are unknown to the tokenizer, more than "
            f"{MOST_UNKNOWN:.0%}, such as {examples}"
        )
    if known.bytes_a_token < FEWEST_BYTES:
        logger.warning(
            "%s: %.1f bytes a token: the tokenizer spells its words out; is it made for this language?",
            name,
            known.bytes_a_token,
        )
    elif known.words:
        said = "%s: %.1f%% of the words unknown to the tokenizer, %.2f tokens a word"
        logger.info(said, name, 100 * known.unknown_share, known.tokens / known.words)
    return ""
