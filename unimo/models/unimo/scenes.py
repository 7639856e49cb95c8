"""Extras of the built-in corpus for CMCL: all of them follow from the scenes, nothing is stored.

What `tools/augment_corpus.py` has to guess for real captions is known here: a rewritten caption is a hard
negative only if it is false of its scene, and pictures are alike when their objects are.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np

from unimo.data.loading.sampler import generator
from unimo.data.readers.base import Kind
from unimo.data.record import Record
from unimo.data.scenes import language
from unimo.data.scenes.dataset import SPLITS, ScenesDataset
from unimo.data.scenes.scene import COLORS, MAX_OBJECTS, PLACES, RADII, SHAPES, Scene
from unimo.settings import ScenesConfig

RELATIONS = ("left of", "right of", "above", "below")
SEARCHED = 5000
"""Texts, and pictures, that are looked through."""

_COUNTS = tuple(
    f"there {'is' if number == 1 else 'are'} {language.NUMBER_WORDS[number]} object{'s' * (number > 1)} ."
    for number in range(1, MAX_OBJECTS + 1)
)
_INSTEAD = {
    word: [other for other in group if other != word]
    for group in (tuple(COLORS), SHAPES, tuple(RADII), PLACES, RELATIONS)
    for word in group
}
_SLOT = re.compile("|".join(sorted(_INSTEAD, key=len, reverse=True)))  # "top left" before "left of"
_IMAGE = re.compile(rf"({'|'.join(SPLITS)})-(\d+)")
_ONE = rf"(?:a|the)(?: ({'|'.join(RADII)}))? ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
_OBJECT = re.compile(rf"{_ONE}(?: at the ({'|'.join(PLACES)}))?(?: is ({'|'.join(RADII)}))?")
_RELATED = re.compile(rf"(.+) ({'|'.join(RELATIONS)}) (.+)")

Told = tuple[str, str, str, str]
"""What is said of an object: size, colour, shape, place; empty where nothing is said."""


class SceneExtras:
    """The three sources of `Sources`, for records of `scenes` pairs.

    A record whose `image_id` is none of `scenes`, or whose text does not hold of its scene, has no extras.
    Equal configs give equal extras.

    Args:
        config: size and seed of the corpus.
        keep: texts and pictures given of a record at most.
        positives: other captions given at most.
    """

    def __init__(self, config: ScenesConfig | None = None, *, keep: int = 10, positives: int = 3) -> None:
        self.config = config or ScenesConfig()
        self.keep, self.positives = keep, positives
        # Methods would be cached together with every instance that ever was.
        self._texts = functools.cache(self._search_texts)
        self._images = functools.cache(self._search_images)
        self._picture = functools.lru_cache(SEARCHED)(self._read_picture)
        self._scene = functools.lru_cache(64)(self._find_scene)  # three sources ask for the same one
        self._pairs = functools.cache(functools.partial(ScenesDataset, "pairs", config=self.config))

    def rewrites(self, record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Other true captions of the scene, and false ones in turns: the caption of another scene (sentence
        level), and the caption with one word or place changed (word and phrase level).

        The former are drawn by lot: the most alike ones would differ by a word too.
        """
        split, scene = self._scene(record.image_id, record.text or "")
        if scene is None:
            return (), ()
        rng = generator(self.config.seed, "rewrites", split, record.image_id, record.sample_id)
        told = dict.fromkeys(language.captions(scene, 4 * self.positives, rng))
        positives = tuple(text for text in told if text != record.text)[: self.positives]
        changed = false_captions(scene, record.text)
        rewritten = [changed[at] for at in rng.permutation(len(changed))]
        told = self._texts(split)[0]
        drawn = (told[at] for at in rng.integers(len(told), size=2 * len(rewritten)))
        others = [text for text in drawn if not holds(scene, text)]
        turns = itertools.chain.from_iterable(zip(others, rewritten, strict=False))
        return positives, tuple(dict.fromkeys(turns))

    def texts(self, record: Record) -> tuple[str, ...]:
        """Captions of scenes without pictures, those first that tell of the same objects."""
        split, scene = self._scene(record.image_id, record.text or "")
        if scene is None:
            return ()
        told, search = self._texts(split)
        found = search.best(mentioned(record.text) or _objects(scene), 4 * self.keep)
        # The caption itself would be no other text, and people write many captions twice here.
        other = dict.fromkeys(told[at] for at in found if told[at] != record.text)
        return tuple(other)[: self.keep]

    def images(self, record: Record) -> tuple[Record, ...]:
        """Pictures without captions, those first whose objects are most like the scene's."""
        split, scene = self._scene(record.image_id, record.text or "")
        if scene is None:
            return ()
        found = self._images(split).best(_objects(scene), self.keep)
        return tuple(self._picture(split, int(at)) for at in found)

    def _find_scene(self, image_id: str, text: str) -> tuple[str, Scene | None]:
        match = _IMAGE.fullmatch(image_id)
        if not match:
            return "", None
        split, pairs, number = match[1], self._pairs(split=match[1]), int(match[2])
        scene = pairs.scene(number) if number < pairs.num_images else None
        return split, scene if scene and holds(scene, text) else None

    def _search_texts(self, split: str) -> tuple[list[str], _Search]:
        dataset = self._dataset("texts", split)
        told = [dataset[at].text or "" for at in range(min(SEARCHED, len(dataset)))]
        return told, _Search([mentioned(text) for text in told])

    def _search_images(self, split: str) -> _Search:
        dataset = self._dataset("images", split)
        return _Search([_objects(dataset.scene(at)) for at in range(min(SEARCHED, len(dataset)))])

    def _read_picture(self, split: str, number: int) -> Record:
        return self._dataset("images", split)[number]

    def _dataset(self, kind: Kind, split: str) -> ScenesDataset:
        return ScenesDataset(kind, split, self.config)


class _Search:
    """TF-IDF cosine over what is said of objects; the columns are in memory, some hundred floats an entry."""

    def __init__(self, entries: Sequence[Iterable[Told]]) -> None:
        counts = [_features(told) for told in entries]
        self._names = {name: at for at, name in enumerate(sorted({name for row in counts for name in row}))}
        table = np.zeros((len(self._names), len(entries)), np.float32)
        for number, row in enumerate(counts):
            for name in row:
                table[self._names[name], number] += 1
        self._inverse = np.log((1 + len(entries)) / (1 + (table > 0).sum(1))) + 1
        table *= self._inverse[:, None]
        self._table = table / np.maximum(np.linalg.norm(table, axis=0), 1e-9)

    def best(self, told: Iterable[Told], top: int) -> np.ndarray:
        """Numbers of the entries that share something, most alike first; equal ones in their order."""
        rows = [self._names[name] for name in _features(told) if name in self._names]
        if not rows:
            return np.zeros(0, np.int64)
        scores = self._inverse[rows] @ self._table[rows]
        chosen = np.argpartition(-scores, min(top, len(scores) - 1))[:top]
        chosen = np.sort(chosen[scores[chosen] > 0])
        return chosen[np.argsort(-scores[chosen], kind="stable")]


def _features(told: Iterable[Told]) -> list[str]:
    names = []
    for size, color, shape, place in told:
        names.append(f"{color} {shape}")
        names += [f"{size} {color} {shape}"] if size else []
        names += [f"{color} {shape} at {place}"] if place else []
    return names


def _objects(scene: Scene) -> list[Told]:
    return [(item.size, item.color, item.shape, item.place) for item in scene.objects]


def mentioned(text: str) -> list[Told]:
    """What a caption says of objects; nothing for one that only counts them, or for another text."""
    return [
        (match[1] or match[5] or "", match[2], match[3], match[4] or "") for match in _OBJECT.finditer(text)
    ]


def holds(scene: Scene, text: str) -> bool:
    """Whether a caption is true of a scene; False for a text that is none of its captions.

    "left of" and its like hold already when only the columns (rows) are so, which is more than the captions
    claim: a sentence that a person could take for true is no negative.
    """
    if text in _COUNTS:
        return _COUNTS.index(text) + 1 == len(scene.objects)
    known = _objects(scene)
    return text.endswith(" .") and all(
        _clause_holds(scene, known, clause) for clause in text[:-2].split(" , ")
    )


def _clause_holds(scene: Scene, known: Sequence[Told], clause: str) -> bool:
    related = _RELATED.fullmatch(clause)
    if not related:
        return bool(_meant(known, clause))
    pairs = itertools.product(_meant(known, related[1]), _meant(known, related[3]))
    return any(_lies(scene, first, related[2], second) for first, second in pairs)


def _meant(known: Sequence[Told], clause: str) -> list[int]:
    """Numbers of the objects that a clause can mean."""
    match = _OBJECT.fullmatch(clause)
    if not match:
        return []
    size, color, shape, place = match[1] or match[5], match[2], match[3], match[4]
    return [
        number
        for number, (its_size, its_color, its_shape, its_place) in enumerate(known)
        if color == its_color and shape == its_shape
        if size in (None, its_size) and place in (None, its_place)
    ]


def _lies(scene: Scene, first: int, relation: str, second: int) -> bool:
    one, other = scene.objects[first], scene.objects[second]
    return {
        "left of": one.column < other.column,
        "right of": one.column > other.column,
        "above": one.row < other.row,
        "below": one.row > other.row,
    }[relation]


def false_captions(scene: Scene, text: str) -> list[str]:
    """The false ones among all captions with one colour, size, shape, place, relation or number changed."""
    made = list(_COUNTS) if text in _COUNTS else []
    for slot in _SLOT.finditer(text):
        made += [text[: slot.start()] + other + text[slot.end() :] for other in _INSTEAD[slot.group()]]
    return [new for new in made if not holds(scene, new)]
