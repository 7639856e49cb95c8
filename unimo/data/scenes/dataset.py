"""`scenes`, the built-in corpus: images of coloured shapes, rendered from a seed, with texts and labels.

It makes every command work on a fresh machine: nothing is stored, and a sample is a pure function of (seed,
split, index). `scene.py` renders a scene, `language.py` writes texts about it.
"""

from __future__ import annotations

import io
from functools import partial

import numpy as np
from PIL import Image

from unimo.data.loading.sampler import generator
from unimo.data.readers.base import ConcatDataset, Dataset, Kind, LabeledImages, check_index
from unimo.data.record import ImageSource, Record, pair_id
from unimo.data.scenes import language
from unimo.data.scenes.pairs import draw_pairs
from unimo.data.scenes.related import related_questions
from unimo.data.scenes.scene import (
    COLORS,
    MAX_OBJECTS,
    PLACES,
    RADII,
    SHAPES,
    Scene,
    make_scene,
    render,
    render_classes,
)
from unimo.data.splits import split_words
from unimo.errors import ConfigError, RecordError
from unimo.metrics.vqa import answer_type
from unimo.settings import ScenesConfig

SPLITS = {"train": 0, "val": 1, "test": 2}
VAL_PARTS = ("trainable_val", "rest_val")
"""Parts of `val`, as of VQA v2; `open_scenes` knows them."""
WITHOUT_TEXT: tuple[Kind, ...] = ("images", "segmentation")
TEXTS_PER_IMAGE: dict[Kind, int] = {
    "vqa": 6,
    "gqa": 6,
    "entailment": 6,
    "nlvr2": 4,
    **dict.fromkeys(WITHOUT_TEXT, 1),
}
"""Samples of one image, or with `nlvr2` pairs of one sentence; for `pairs` and `texts` the config sets the
number."""
OTHER_SCENES: dict[Kind, int] = {"texts": 10, "images": 20, "nlvr2": 30}
"""Seeds of kinds whose scenes differ from those of the pairs."""


class ScenesDataset(Dataset):
    """The records of one split and kind.

    Args:
        kind: `pairs` (caption), `vqa` (question, answer, question type), `gqa` (question, answer, facts, with
            ids of entailed questions about the same image), `entailment` (hypothesis, label), `nlvr2`
            (sentence about two images, label; there is a sentence for each image of the config),
            `texts` (captions without an image), `images` (images without a caption) or `segmentation` (the
            shape at each pixel).
        split: `train`, `val` or `test`; their images are rendered from different seeds.

    Raises:
        ConfigError: unknown split.
    """

    name = "scenes"

    def __init__(self, kind: Kind, split: str, config: ScenesConfig | None = None) -> None:
        if split not in SPLITS:
            raise ConfigError(f"scenes has no split {split!r}; known: {', '.join(SPLITS)}")
        self.kind, self.split, self.config = kind, split, config or ScenesConfig()
        self.num_images = self.config.train_images if split == "train" else self.config.val_images
        self.texts_per_image = TEXTS_PER_IMAGE.get(kind, self.config.captions_per_image)

    def __len__(self) -> int:
        return self.num_images * self.texts_per_image

    def count_images(self) -> int:
        return self.num_images * {"texts": 0, "nlvr2": 4}.get(self.kind, 1)

    def count_texts(self) -> int:
        return 0 if self.kind in WITHOUT_TEXT else len(self)

    def scene(self, image: int) -> Scene:
        """Make the scene of image number `image` of this split."""
        return make_scene(self._rng(image, 0))

    def image_source(self, index: int) -> ImageSource:
        if self.kind == "nlvr2":
            raise RecordError(f"{self.image_id(index)}: a pair of images; read the sample")
        return encode(render(self.scene(index // self.texts_per_image)))

    def image_id(self, index: int) -> str:
        if self.kind == "nlvr2":
            sentence, turn = divmod(index, self.texts_per_image)
            sides = zip(("left", "right"), divmod(turn, 2), strict=True)
            return pair_id(*(f"{self.split}-{sentence}-{side}-{which}" for side, which in sides))
        unpaired = "images-" if self.kind == "images" else ""
        return f"{unpaired}{self.split}-{index // self.texts_per_image}"

    def __getitem__(self, index: int) -> Record:
        count = self.texts_per_image
        image, turn = divmod(index, count)
        if self.kind == "nlvr2":
            pair = draw_pairs(self._rng(image, 0))[turn]
            return Record(
                f"{self.split}-{image}-{turn}",
                self.name,
                images=tuple(encode(render(scene)) for scene in (pair.left, pair.right)),
                text=pair.text,
                image_id=self.image_id(index),
                question_id=f"{self.split}-{image}-{turn}-0",
                label=int(pair.is_true),
            )
        scene, rng = self.scene(image), self._rng(image, 1)
        images = () if self.kind == "texts" else (encode(render(scene)),)
        sample_id = f"{self.split}-{image}-{turn}"
        record = partial(Record, sample_id, self.name, images, image_id=self.image_id(index))
        if self.kind in WITHOUT_TEXT:
            is_mapped = self.kind == "segmentation"
            return record(class_map=encode(render_classes(scene)) if is_mapped else None)
        if self.kind == "vqa":
            kind, text, answer = language.questions(scene, count, rng)[turn]
            return record(text=text, question_id=index, answer_scores={answer: 1.0}, question_type=kind)
        if self.kind == "gqa":
            ids = [f"{self.split}-{image}-{place}" for place in range(count)]
            question = related_questions(scene, ids, rng)[turn]
            scores = {question.answer: 1.0}
            return record(
                text=question.text,
                question_id=sample_id,
                answer_scores=scores,
                question_type=answer_type(scores),
                facts=question.facts,
            )
        if self.kind == "entailment":
            text, label = language.hypotheses(scene, count, rng)[turn]
            return record(text=text, label=label)
        return record(text=language.captions(scene, count, rng)[turn])

    def _rng(self, image: int, stream: int) -> np.random.Generator:
        source = SPLITS[self.split] + OTHER_SCENES.get(self.kind, 0)
        return np.random.default_rng([self.config.seed, source, image, stream])


def open_scenes(kind: Kind, split: str, config: ScenesConfig) -> Dataset:
    """Open one split of `scenes`, or several joined by `+`.

    `rest_val` is the last fifth of the images of `val`, `trainable_val` the others.

    Raises:
        ConfigError: unknown split, or some that share samples.
    """
    parts, rows = [], []
    for word in split_words(split):
        if word not in (*SPLITS, *VAL_PARTS):
            raise ConfigError(f"scenes has no split {word!r}; known: {', '.join((*SPLITS, *VAL_PARTS))}")
        whole = ScenesDataset(kind, "val" if word in VAL_PARTS else word, config)
        cut = whole.texts_per_image * (whole.num_images - max(1, whole.num_images // 5))
        parts.append(whole)
        rows.append(range(cut if word == "rest_val" else 0, cut if word == "trainable_val" else len(whole)))
    return ConcatDataset(parts, ScenesDataset.name, rows)


class OneASceneDataset(Dataset):
    """Base of corpora with one sample for each scene of a split, `train`, `val` or `test`.

    Raises:
        ConfigError: unknown split.
    """

    name = "scenes"

    def __init__(self, split: str, config: ScenesConfig | None = None) -> None:
        self.split, self._whole = split, ScenesDataset("pairs", split, config)

    def __len__(self) -> int:
        return self._whole.num_images

    def draw(self, index: int, use: str) -> tuple[str, Scene, np.random.Generator]:
        """Return the name and the scene of a sample, and a generator for this use of it."""
        check_index(index, len(self))
        rng = generator(self._whole.config.seed, use, self.split, index)
        return f"{self.split}-{index}", self._whole.scene(index), rng


def answers() -> list[str]:
    """Return all answers of `scenes` VQA in the order of its classes."""
    numbers = [str(n) for n in range(MAX_OBJECTS + 1)]
    return [*COLORS, *SHAPES, *RADII, *PLACES, *numbers, "yes", "no", "nothing"]


def pixel_classes() -> list[str]:
    """Return the classes of the pixels of `scenes`, in the order of their numbers."""
    return ["background", *SHAPES]


def vocabulary() -> list[str]:
    """Return every word that `scenes` texts can contain, sorted."""
    return sorted({*" ".join([*COLORS, *SHAPES, *RADII, *PLACES, *language.TEMPLATE_WORDS]).split()})


def encode(image: Image.Image) -> bytes:
    """Encode an image as BMP, which takes a tenth of the time of PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="BMP")
    return buffer.getvalue()


class SceneShapes(OneASceneDataset, LabeledImages):
    """The images of `scenes` with one of their objects."""

    class_names = SHAPES

    def scene(self, index: int) -> Scene:
        """Make the scene of image number `index`, with one object."""
        _, whole, rng = self.draw(index, "shape")
        return Scene((language.pick(whole.objects, rng),), whole.background)

    def __getitem__(self, index: int) -> Record:
        scene = self.scene(index)
        shape = scene.objects[0].shape
        return Record(
            f"{self.split}-{index}",
            self.name,
            images=(encode(render(scene)),),
            image_id=f"shapes-{self.split}-{index}",
            label=SHAPES.index(shape),
            label_name=shape,
        )

    def image_source(self, index: int) -> bytes:
        return encode(render(self.scene(index)))
