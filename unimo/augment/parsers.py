"""The parsers of captions: rules on tagged words, or Stanford's program."""

from __future__ import annotations

from unimo.augment.relations import RelationReader
from unimo.augment.scene_graph import Parser, SceneGraph, node, relation
from unimo.augment.stanford import StanfordParser
from unimo.data.masking.noun_phrases import Span, noun_phrases
from unimo.data.masking.tagging import Token, load_tagger, tag_caption


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
