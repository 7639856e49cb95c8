"""Scene graphs of captions: objects, their attributes, and relations between them (UNIMO, section 2.1).

Numbers and pronouns are no nodes, and verbs without an object are ignored. A parser is any function from a
caption to a `SceneGraph`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from unimo.data.masking.noun_phrases import Span
from unimo.data.masking.tagging import Token

NodeKind = Literal["object", "attribute", "relation"]


@dataclass(frozen=True)
class Node:
    """A node of the graph, which stands at the characters `start` to `end - 1` of the caption."""

    kind: NodeKind
    text: str
    """Its words in lower case."""
    form: str
    """Grammatical form, such as `NN`, `NNS`, or `VBG+IN` for "jumping over"; only nodes of the same form can
    replace each other."""
    start: int
    end: int


@dataclass(frozen=True)
class SceneGraph:
    """The nodes of one caption; edges refer to objects by their number."""

    objects: tuple[Node, ...]
    attributes: tuple[tuple[int, Node], ...]
    relations: tuple[tuple[int, Node, int], ...]

    def nodes(self) -> list[Node]:
        """Return all nodes, each once: a relation shared by two objects is one node."""
        edges = [node for _, node in self.attributes] + [node for _, node, _ in self.relations]
        return list(dict.fromkeys([*self.objects, *edges]))


Parser = Callable[[str], SceneGraph]


def node(kind: NodeKind, tokens: Sequence[Token], span: Span, form: str = "") -> Node:
    """Make a node from tokens of a caption; unless `form` is given, it is that of the last token."""
    words = tokens[span[0] : span[1]]
    text = " ".join(token.word for token in words)
    form = form or words[-1].tag.replace("NNPS", "NNS").replace("NNP", "NN")
    return Node(kind, text, form, words[0].start, words[-1].end)


def relation(tokens: Sequence[Token], span: Span, has_verb: bool, has_preposition: bool) -> Node:
    """Make the node of a relation from tokens of a caption; its form is that of verb and preposition."""
    parts = [tokens[span[0]].tag] * has_verb + ["IN"] * has_preposition
    return node("relation", tokens, span, "+".join(parts) or tokens[span[1] - 1].tag)
