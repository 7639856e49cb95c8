"""Hard negatives of a caption: nodes of its scene graph replaced by similar ones (UNIMO, section 2.1).

- word level: a node of a single word becomes another single word;
- phrase level: a node of several words ("jumping over", "tennis ball"), or an object together with one of
  its attributes ("brown dog" -> "white cat").

All rewrites of a caption are ranked by fluency, and the best are kept (appendix A: 100).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unimo.augment.ngram import TrigramModel
from unimo.augment.scene_graph import Node, Parser
from unimo.augment.terms import normalise, stems
from unimo.augment.vocabulary import Vocabulary
from unimo.data.masking.tagging import split_words

Level = Literal["word", "phrase"]
Replacement = tuple[tuple[Node, str], ...]
"""Nodes with their new words."""


@dataclass(frozen=True)
class Rewrite:
    """A rewritten caption."""

    text: str
    level: Level
    changes: tuple[tuple[str, str, str], ...]
    """(kind, old words, new words) of each replaced node."""
    fluency: float
    """Mean natural logarithm of a word's probability."""


@dataclass(frozen=True)
class Rewriter:
    """Rewrites captions; the same seed and statistics give the same rewrites of a caption in any order."""

    parse: Parser
    vocabulary: Vocabulary
    model: TrigramModel
    keep: int = 100
    """Number of rewrites of a caption."""
    max_candidates: int = 600
    """Number of rewrites of a caption that are ranked, drawn at random from more."""
    seed: int = 0
    """Seed of that draw."""

    def rewrite(self, text: str, sample_id: str, others: Collection[str] = ()) -> list[Rewrite]:
        """Return the most fluent rewrites, best first; the random draw follows from `sample_id`.

        `others` are further captions of the same image. No rewrite equals one of them or introduces a word
        whose stem one of them contains, because it would be true of the image.
        """
        graph = self.parse(text)
        own, theirs = stems(text), frozenset[str]().union(*map(stems, others))
        forbidden = {normalise(other) for other in (text, *others)}
        # "over" of "jumping over" may stay; something must be new, and nothing new may be true.
        choices = {
            node: [
                words
                for words in self.vocabulary.similar(node.kind, node.form, node.text)
                if (new := stems(words) - own) and not new & theirs
            ]
            for node in graph.nodes()
        }
        candidates: list[tuple[Level, Replacement]] = [
            ("phrase" if " " in node.text or " " in word else "word", ((node, word),))
            for node, words in choices.items()
            for word in words
        ]
        for owner, attribute in graph.attributes:
            pairs = itertools.product(choices[attribute], choices[graph.objects[owner]])
            candidates += [
                ("phrase", ((attribute, word), (graph.objects[owner], other))) for word, other in pairs
            ]
        if len(candidates) > self.max_candidates:
            rng = np.random.default_rng([self.seed, zlib.crc32(sample_id.encode())])
            chosen = np.sort(rng.choice(len(candidates), self.max_candidates, replace=False))
            candidates = [candidates[at] for at in chosen]
        found: dict[str, tuple[str, Level, tuple[tuple[str, str, str], ...]]] = {}
        for level, replaced in candidates:
            new = replace_nodes(text, replaced)
            key = normalise(new)
            if key not in forbidden and key not in found:
                changes = tuple((node.kind, node.text, word) for node, word in replaced)
                found[key] = (new, level, changes)
        fluency = self.model.log_probability(split_words(text) for text, _, _ in found.values())
        scored = zip(found.values(), fluency, strict=True)
        rewrites = [Rewrite(*parts, round(float(score), 4)) for parts, score in scored]
        return sorted(rewrites, key=lambda one: (-one.fluency, one.text))[: self.keep]


def replace_nodes(text: str, replaced: Replacement) -> str:
    """Replace nodes by words, adapting a capital at the start and "a" or "an" before them."""
    for node, words in sorted(replaced, key=lambda pair: -pair[0].start):
        before, after = text[: node.start], text[node.end :]
        if text[node.start].isupper() and not before.strip():
            words = words[0].upper() + words[1:]
        start, _, article = before.rstrip().rpartition(" ")
        if article.lower() in ("a", "an"):
            new = "an" if words[0].lower() in "aeiou" else "a"
            before = f"{start} {new.capitalize() if article[0].isupper() else new} ".lstrip()
        text = before + words + after
    return text
