"""Agreement of captions with pictures of `scenes`: the colours and shapes that they name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable

from unimo.data.scenes.scene import COLORS, SHAPES

Object = tuple[str, str]
"""Colour and shape."""


def named_objects(caption: str) -> list[Object]:
    """Return colour and shape of each object that a caption names: a colour followed by a shape."""
    words = re.findall(r"\w+", caption.lower())
    pairs = zip(words, words[1:], strict=False)
    return [(color, shape) for color, shape in pairs if color in COLORS and shape in SHAPES]


def scene_caption_scores(captions: Iterable[tuple[str, Collection[Object]]]) -> dict[str, float]:
    """Compute the agreement of captions with the pictures that they describe, in percent.

    Args:
        captions: pairs of a caption and the objects that are in its picture.

    Returns:
        `scenes_exact`: share of captions that name at least one object, only objects that are there (two red
        circles only if there are two), and no colour or shape without the other; `scenes_objects`,
        `scenes_colors`, `scenes_shapes`: share of all named objects, colours and shapes that are there. A
        score is left out if no caption names such a thing.
    """
    right: Counter[str] = Counter()
    named: Counter[str] = Counter()
    for caption, there in captions:
        words = re.findall(r"\w+", caption.lower())
        objects = named_objects(caption)
        said = {
            "objects": (objects, list(there)),
            "colors": ([word for word in words if word in COLORS], [color for color, _ in there]),
            "shapes": ([word for word in words if word in SHAPES], [shape for _, shape in there]),
        }
        whole = bool(objects)
        for kind, (mentions, truth) in said.items():
            hits = (Counter(mentions) & Counter(truth)).total()
            right[kind] += hits
            named[kind] += len(mentions)
            whole &= hits == len(mentions) == len(objects)
        right["exact"] += whole
        named["exact"] += 1
    return {f"scenes_{kind}": 100 * right[kind] / count for kind, count in named.items() if count}
