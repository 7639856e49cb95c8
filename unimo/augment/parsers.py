"""The parsers of captions: rules on tagged words, or Stanford's program.

No dependency parser works without downloading a model, so the rules find the relations of short sentences in
the present tense, as captions are. A verb belongs to the subject of its clause; a preposition after a noun
belongs to that noun or to the subject, depending on what precedes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unimo.augment.scene_graph import Parser, SceneGraph, node, relation
from unimo.augment.stanford import StanfordParser
from unimo.data.masking.noun_phrases import Phrase, Span, noun_phrases
from unimo.data.masking.tagging import Token, load_tagger, tag_caption

_BREAKS = frozenset("while as where when whilst because so but ; :".split())
_RELATIVES = frozenset("that who which whose".split())
_AUXILIARIES = frozenset("is are was were be been being 's has have had am do does did can will".split())
_MOVING = frozenset(
    "into through across down up over along toward towards after during by for from at to against".split()
)
_BESIDE = frozenset("with near next to beside during".split()) | {"next to"}
_FINITE = ("VBZ", "VBP", "MD")  # captions are in the present tense: -ed is a participle


def open_parser(name: str = "textblob") -> Parser:
    """Open a parser: rules with the tagger `textblob` (no download) or `spacy:PIPELINE`; or `stanford:JARS`.

    Raises:
        CapabilityError: unknown name, or its library or model is not installed.
    """
    kind, _, jars = name.partition(":")
    if kind == "stanford":
        return StanfordParser(jars)
    tagger = load_tagger(name)
    return lambda text: _build(tag_caption(text, tagger))


def _build(tokens: list[Token]) -> SceneGraph:
    phrases = noun_phrases(tokens)
    links = RelationReader(tokens, phrases).read()
    objects = [node("object", tokens, phrase.head) for phrase in phrases]
    attributes = [
        (number, node("attribute", tokens, span))
        for number, phrase in enumerate(phrases)
        for span in (*phrase.attributes, *_predicate_adjective(tokens, phrase.span[1]))
    ]
    relations = [
        (link.subject, relation(tokens, link.predicate, link.has_verb, link.has_preposition), link.object)
        for link in links
    ]
    return SceneGraph(tuple(objects), tuple(attributes), tuple(relations))


def _predicate_adjective(tokens: list[Token], at: int) -> list[Span]:
    """Find the adjective of "the dog is wet"; at most one."""
    tags = [token.tag for token in tokens[at : at + 3]] + ["END"] * 3
    is_copula = at < len(tokens) and tokens[at].word in ("is", "are", "was", "were")
    if is_copula and tags[1] == "JJ" and not tags[2].startswith(("NN", "JJ", "TO")):
        return [(at + 1, at + 2)]
    return []


@dataclass(frozen=True)
class Link:
    """A relation between two noun phrases, given by their numbers."""

    subject: int
    predicate: Span
    """Tokens of the predicate."""
    object: int
    has_verb: bool
    has_preposition: bool


class RelationReader:
    """Reads a caption phrase by phrase and keeps track of the subject of the current clause."""

    def __init__(self, tokens: Sequence[Token], phrases: Sequence[Phrase]) -> None:
        self.tokens, self.phrases = tokens, phrases
        self.subjects = [0]
        self.finite_seen = False
        self.incoming: list[list[Link]] = [[] for _ in phrases]

    def read(self) -> list[Link]:
        """Find the relations between the phrases, in the order of their objects."""
        for number in range(1, len(self.phrases)):
            gap = (self.phrases[number - 1].span[1], self.phrases[number].span[0])
            self.incoming[number] = self._between(number, gap)
        return [link for links in self.incoming for link in links]

    def _between(self, number: int, gap: Span) -> list[Link]:
        words = [token.word for token in self.tokens[gap[0] : gap[1]]]
        # The last verb, an auxiliary only if there is no other.
        verbs = [at for at in range(*gap) if self.tokens[at].tag.startswith(("VB", "MD"))]
        verb = next((at for at in reversed(verbs) if self.tokens[at].word not in _AUXILIARIES), None)
        verb = verbs[-1] if verb is None and verbs else verb
        breaks = [at for at, word in enumerate(words) if word in _BREAKS]
        if breaks and (verb is None or verb < gap[0] + breaks[-1]):
            self._new_clause(number)
            return []
        if all(word in (",", "and", "or", "&", "both", "also", "then", "'s", "’s") for word in words):
            return self._coordinate(number)
        if verb is not None:
            return self._verb(number, gap, verb)
        pronouns = [at for at in range(*gap) if self.tokens[at].tag in ("PRP", "EX", "WP")]
        start = pronouns[-1] + 1 if pronouns else gap[0]
        return self._preposition(number, (start, gap[1]))

    def _new_clause(self, number: int) -> None:
        self.subjects, self.finite_seen = [number], False

    def _coordinate(self, number: int) -> list[Link]:
        """Handle "a shirt and a hat", which share a relation, and "... and a woman runs", a new clause."""
        before = self.incoming[number - 1]
        after = self.phrases[number].span[1]
        follows = self.tokens[after].tag if after < len(self.tokens) else "END"
        if number - 1 in self.subjects and not before:
            self.subjects.append(number)
            return []
        if follows in _FINITE and self.finite_seen:
            self._new_clause(number)
            return []
        return [replace(one, object=number) for one in before if one.subject != number]

    def _verb(self, number: int, gap: Span, verb: int) -> list[Link]:
        tokens = self.tokens
        helper = tokens[verb].word in _AUXILIARIES
        words_before = [token.word for token in tokens[gap[0] : verb]]
        relative = bool(_RELATIVES & set(words_before))
        joined = bool({"and", ",", "while", "as", "whilst", "or"} & set(words_before))
        finite = tokens[verb].tag in _FINITE or any(word in _AUXILIARIES for word in words_before)
        before = self.incoming[number - 1]
        subjects = self.subjects
        if relative or (before and not finite and not joined and not before[0].has_preposition):
            subjects = [number - 1]
        else:
            self.finite_seen = self.finite_seen or finite
        start = verb + 1 if helper and verb + 1 < gap[1] else verb
        end = gap[1]
        while end > start + 1 and tokens[end - 1].tag in (",", "CC", "RB", "PRP", "WP", ":"):
            end -= 1
        if tokens[start].tag == "RB" and end > start + 1:
            start += 1
        preposition = tokens[end - 1].tag in ("IN", "TO", "RP") and end - 1 > start - helper
        return [Link(one, (start, end), number, not helper, preposition) for one in subjects if one != number]

    def _preposition(self, number: int, gap: Span) -> list[Link]:
        start, end = gap
        while start < end and self.tokens[start].tag in (",", "CC", "RB", "JJ", ":", "."):
            start += 1
        if start == end or self.tokens[end - 1].tag not in ("IN", "TO", "RP"):
            return []
        word = self.tokens[start].word
        subjects = self._attach(number, word)
        return [Link(one, (start, end), number, False, True) for one in subjects if one != number]

    def _attach(self, number: int, preposition: str) -> list[int]:
        before = self.incoming[number - 1]
        if preposition == "of":
            return [number - 1]
        if not before:
            return list(self.subjects) if number - 1 in self.subjects else [number - 1]
        subjects = list(dict.fromkeys(link.subject for link in before))
        if before[0].has_verb:
            return subjects if not before[0].has_preposition or preposition in _MOVING else [number - 1]
        return subjects if preposition in _BESIDE or preposition in _MOVING else [number - 1]
