"""Edges of scene graphs as texts."""

from __future__ import annotations

from unimo.augment.scene_graph import SceneGraph


def pairs(graph: SceneGraph) -> list[tuple[str, str]]:
    """(object, attribute)."""
    return [(graph.objects[owner].text, node.text) for owner, node in graph.attributes]


def triples(graph: SceneGraph) -> list[tuple[str, str, str]]:
    """(subject, relation, object)."""
    return [(graph.objects[a].text, node.text, graph.objects[b].text) for a, node, b in graph.relations]
