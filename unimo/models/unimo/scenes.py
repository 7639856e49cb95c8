"""Companions of the pairs of the built-in corpus for CMCL: they follow from the scenes, nothing is stored.

What `tools/augment_corpus.py` has to guess for real captions is known here: a rewritten caption is a hard
negative only if it is false of its scene, and pictures are alike when their objects are.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from unimo.data.loading.sampler import generator
from unimo.data.record import Record
from unimo.data.scenes import language
from unimo.data.scenes.dataset import SPLITS, ScenesDataset
from unimo.data.scenes.scene import COLORS, MAX_OBJECTS, PLACES, RADII, SHAPES, Scene, SceneObject
from unimo.settings import ScenesConfig

RELATIONS: dict[str, Callable[[SceneObject, SceneObject], bool]] = {
    "left of": lambda one, other: one.column < other.column,
    "right of": lambda one, other: one.column > other.column,
    "above": lambda one, other: one.row < other.row,
    "below": lambda one, other: one.row > other.row,
}
SEARCHED = 5000
"""Texts, and images, among which related ones are searched."""

_COUNTS = tuple(
    f"there {'is' if number == 1 else 'are'} {language.NUMBER_WORDS[number]} object{'s' * (number > 1)} ."
    for number in range(1, MAX_OBJECTS + 1)
)
_INSTEAD = {
    word: [other for other in group if other != word]
    for group in (COLORS, SHAPES, RADII, PLACES, RELATIONS)
    for word in group
}
_SLOT = re.compile("|".join(sorted(_INSTEAD, key=len, reverse=True)))  # "top left" before "left of"
_IMAGE = re.compile(rf"({'|'.join(SPLITS)})-(\d+)")
_ONE = rf"(?:a|the)(?: ({'|'.join(RADII)}))? ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
_OBJECT = re.compile(rf"{_ONE}(?: at the ({'|'.join(PLACES)}))?(?: is ({'|'.join(RADII)}))?")
_RELATED = re.compile(rf"(.+) ({'|'.join(RELATIONS)}) (.+)")

Mention = tuple[str, str, str, str]
"""Size, colour, shape and place of an object; empty where a text does not say it."""


class SceneExtras:
    """The three sources of `Sources`, for records of `scenes` pairs.

    A record whose `image_id` is none of `scenes`, or whose text does not hold of its scene, has no extras.
    Equal configs give equal extras.

    Args:
        config: size and seed of the corpus.
        keep: most related texts and images of a record.
        positives: most other captions of a record.
    """

    def __init__(self, config: ScenesConfig | None = None, *, keep: int = 10, positives: int = 3) -> None:
        self.config = config or ScenesConfig()
        self.keep, self.positives = keep, positives
        self._split = functools.cache(functools.partial(_Split, self.config))
        self._scene = functools.lru_cache(64)(self._find_scene)  # three sources ask for the same one

    def rewrites(self, record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return other true captions of the scene, and false ones.

        The latter are in turns the caption of another scene (sentence level), and the caption with one word
        or place changed (word and phrase level). The former are drawn at random: the most alike ones would
        differ by a word too.
        """
        split, scene = self._scene(record.image_id, record.text or "")
        if scene is None:
            return (), ()
        rng = generator(self.config.seed, "rewrites", split, record.image_id, record.sample_id)
        true = dict.fromkeys(language.captions(scene, 4 * self.positives, rng))
        positives = tuple(text for text in true if text != record.text)[: self.positives]
        changed = false_captions(scene, record.text)
        rewritten = [changed[at] for at in rng.permutation(len(changed))]
        texts = self._split(split).texts
        drawn = (texts[at] for at in rng.integers(len(texts), size=2 * len(rewritten)))
        others = [text for text in drawn if not holds(scene, text)]
        turns = itertools.chain.from_iterable(zip(others, rewritten, strict=False))
        return positives, tuple(dict.fromkeys(turns))

    def texts(self, record: Record) -> tuple[str, ...]:
        """Return captions of scenes without pictures, those first that mention the same objects."""
        split, scene = self._scene(record.image_id, record.text or "")
        if scene is None:
            return ()
        corpus = self._split(split)
        found = corpus.by_text.best(mentioned(record.text) or _objects(scene), 4 * self.keep)
        # The caption itself would be no other text, and many captions occur twice here.
        other = dict.fromkeys(corpus.texts[at] for at in found if corpus.texts[at] != record.text)
        return tuple(other)[: self.keep]

    def images(self, record: Record) -> tuple[Record, ...]:
        """Return images without captions, those first whose objects are most like the scene's."""
        split, scene = self._scene(record.image_id, record.text or "")
        if scene is None:
            return ()
        corpus = self._split(split)
        return tuple(corpus.image(int(at)) for at in corpus.by_image.best(_objects(scene), self.keep))

    def _find_scene(self, image_id: str, text: str) -> tuple[str, Scene | None]:
        match = _IMAGE.fullmatch(image_id)
        if not match:
            return "", None
        split, number = match[1], int(match[2])
        pairs = self._split(split).pairs
        scene = pairs.scene(number) if number < pairs.num_images else None
        return split, scene if scene and holds(scene, text) else None


class _Split:
    """One split of the corpus. What is searched is read when it is first needed."""

    def __init__(self, config: ScenesConfig, split: str) -> None:
        self.pairs, self._texts, self._images = (
            ScenesDataset(kind, split, config) for kind in ("pairs", "texts", "images")
        )
        self.image = functools.lru_cache(SEARCHED)(self._images.__getitem__)

    @functools.cached_property
    def texts(self) -> list[str]:
        return [self._texts[at].text or "" for at in range(min(SEARCHED, len(self._texts)))]

    @functools.cached_property
    def by_text(self) -> _Search:
        return _Search([mentioned(text) for text in self.texts])

    @functools.cached_property
    def by_image(self) -> _Search:
        images = self._images
        return _Search([_objects(images.scene(at)) for at in range(min(SEARCHED, len(images)))])


class _Search:
    """TF-IDF cosine over mentions of objects; the columns are in memory, some hundred floats an entry."""

    def __init__(self, entries: Sequence[Iterable[Mention]]) -> None:
        counts = [_features(mentions) for mentions in entries]
        self._names = {name: at for at, name in enumerate(sorted({name for row in counts for name in row}))}
        table = np.zeros((len(self._names), len(entries)), np.float32)
        for number, row in enumerate(counts):
            for name in row:
                table[self._names[name], number] += 1
        self._inverse = np.log((1 + len(entries)) / (1 + (table > 0).sum(1))) + 1
        table *= self._inverse[:, None]
        self._table = table / np.maximum(np.linalg.norm(table, axis=0), 1e-9)

    def best(self, mentions: Iterable[Mention], top: int) -> np.ndarray:
        """Return the numbers of the entries that share something, most alike first, ties in their order."""
        rows = [self._names[name] for name in _features(mentions) if name in self._names]
        if not rows:
            return np.zeros(0, np.int64)
        scores = self._inverse[rows] @ self._table[rows]
        chosen = np.argpartition(-scores, min(top, len(scores) - 1))[:top]
        chosen = np.sort(chosen[scores[chosen] > 0])
        return chosen[np.argsort(-scores[chosen], kind="stable")]


def _features(mentions: Iterable[Mention]) -> list[str]:
    names = []
    for size, color, shape, place in mentions:
        names.append(f"{color} {shape}")
        names += [f"{size} {color} {shape}"] if size else []
        names += [f"{color} {shape} at {place}"] if place else []
    return names


def _objects(scene: Scene) -> list[Mention]:
    return [(item.size, item.color, item.shape, item.place) for item in scene.objects]


def mentioned(text: str) -> list[Mention]:
    """Return the objects that a caption mentions; none for one that only counts them, or for another text."""
    return [
        (match[1] or match[5] or "", match[2], match[3], match[4] or "") for match in _OBJECT.finditer(text)
    ]


def holds(scene: Scene, text: str) -> bool:
    """Return whether a caption is true of a scene; False for a text that is none of its captions.

    "left of" and the other relations hold as soon as the columns (rows) have that order, which is more often
    than captions claim them: a sentence that a person could take for true is no negative.
    """
    if text in _COUNTS:
        return _COUNTS.index(text) + 1 == len(scene.objects)
    return text.endswith(" .") and all(_clause_holds(scene, clause) for clause in text[:-2].split(" , "))


def _clause_holds(scene: Scene, clause: str) -> bool:
    related = _RELATED.fullmatch(clause)
    if not related:
        return bool(_meant(scene, clause))
    pairs = itertools.product(_meant(scene, related[1]), _meant(scene, related[3]))
    return any(RELATIONS[related[2]](one, other) for one, other in pairs)


def _meant(scene: Scene, clause: str) -> list[SceneObject]:
    """Return the objects that a clause can mean."""
    match = _OBJECT.fullmatch(clause)
    if not match:
        return []
    size, color, shape, place = match[1] or match[5], match[2], match[3], match[4]
    return [
        item
        for item in scene.objects
        if color == item.color and shape == item.shape
        if size in (None, item.size) and place in (None, item.place)
    ]


def false_captions(scene: Scene, text: str) -> list[str]:
    """Return the false captions with one colour, size, shape, place, relation or number changed."""
    made = list(_COUNTS) if text in _COUNTS else []
    for slot in _SLOT.finditer(text):
        made += [text[: slot.start()] + other + text[slot.end() :] for other in _INSTEAD[slot.group()]]
    return [new for new in made if not holds(scene, new)]
