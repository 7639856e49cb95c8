"""YAML as plain data: words as YAML 1.2 reads them, no more values than a config can have."""

from __future__ import annotations

import re
from typing import Any

import yaml

from unimo.errors import ConfigError
from unimo.limits import CONFIG_DEPTH, CONFIG_NODES


class Loader(yaml.SafeLoader):
    """Reads plain words as YAML 1.2 does: `no` is a word, and so are `010`, `1_000`, `12:30` and dates."""

    _composed = 0

    yaml_implicit_resolvers = {
        first: [(tag, words) for tag, words in found if tag.endswith((":null", ":merge"))]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Make the next node, unless there are too many: each takes microseconds and a kilobyte."""
        self._composed += 1
        if self._composed > CONFIG_NODES:
            raise yaml.YAMLError(f"more than {CONFIG_NODES:,} values, the limit")
        return super().compose_node(parent, index)


for _kind, _words, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"-?(0|[1-9][0-9]{0,17})", "-0123456789"),
    ("float", r"[-+]?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_words})$"), list(_first))


def parse_yaml(text: str, where: str, loader: type[Loader] = Loader) -> Any:
    """Read plain data from YAML.

    Args:
        text: the YAML.
        where: what holds it, for messages.
        loader: a safe loader that knows further tags.

    Raises:
        ConfigError: it is not valid, is nested too deeply, or has aliases that make it many times larger.
    """
    try:
        reader = loader(text)
        try:
            node = reader.get_single_node()
            if node is None:
                return None
            _count_nodes(node, {}, where)
            return reader.construct_document(node)
        finally:
            reader.dispose()
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deeply") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # the last: `!!int x` and such
        raise ConfigError(f"{where} is not valid YAML: {error}") from error


def _count_nodes(node: yaml.Node, counted: dict[int, int], where: str, depth: int = 0) -> int:
    """Return the number of values under a node, those of an alias each time that it is used.

    Lists of aliases of lists of aliases are few nodes, and billions of values when they are written out.

    Args:
        counted: results for nodes seen before, and 0 for those that contain this one.

    Raises:
        ConfigError: more than `CONFIG_NODES`, nested more than `CONFIG_DEPTH` times, or a node in itself.
    """
    if id(node) not in counted:
        if depth > CONFIG_DEPTH:
            raise ConfigError(f"{where} is nested too deeply: more than {CONFIG_DEPTH} times")
        counted[id(node)] = 0
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        counted[id(node)] = 1 + sum(_count_nodes(part, counted, where, depth + 1) for part in parts)
    if not 0 < counted[id(node)] <= CONFIG_NODES:
        raise ConfigError(
            f"{where}: its aliases stand for more than {CONFIG_NODES:,} values, the limit, or for "
            "themselves; write out what they stand for"
        )
    return counted[id(node)]
