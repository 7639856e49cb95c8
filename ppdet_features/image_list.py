"""The pictures of a corpus, each once, in an order that every rank and every later run agrees on."""

from __future__ import annotations

import hashlib
from array import array
from typing import Literal

from unimo.data.readers.base import ConcatDataset, Dataset
from unimo.data.readers.open import open_all_splits, open_corpus
from unimo.data.readers.open_labeled import open_labeled_images
from unimo.data.record import ImageSource
from unimo.errors import ConfigError, RecordError
from unimo.settings import CorpusConfig, DataConfig, ScenesConfig

ImageKind = Literal["images", "pairs", "labels"]


class ImageList:
    """Numbered pictures. Only their places in the corpus are kept, not their ids.

    Args:
        dataset: gives them; the first sample of an image stands for it.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._indices = array("q")
        seen: set[str] = set()
        digest = hashlib.sha256()
        for index in range(len(dataset)):
            image_id = self._id(index)
            if image_id not in seen:
                seen.add(image_id)
                digest.update(image_id.encode("utf8", "surrogateescape") + b"\0")
                self._indices.append(index)
        self.fingerprint = digest.hexdigest()
        """Names the list: two lists with the same ids in the same order have the same one."""

    @property
    def name(self) -> str:
        """Of the corpus."""
        return self.dataset.name

    def __len__(self) -> int:
        return len(self._indices)

    def image_id(self, number: int) -> str:
        """Id of a picture, as records have it; a broken sample gets a name of its own."""
        return self._id(self._indices[number])

    def source(self, number: int) -> ImageSource:
        """The encoded picture.

        Raises:
            RecordError: the sample is broken.
        """
        return self.dataset.image_source(self._indices[number])

    def _id(self, index: int) -> str:
        try:
            image_id = self.dataset.image_id(index)
        except RecordError:
            return f"{self.dataset.name}[{index}]"
        return image_id.encode("utf8", "backslashreplace").decode()  # names of files may be no UTF-8


def open_images(
    path: str, kind: ImageKind = "images", split: str = "all", scenes_images: int | None = None
) -> ImageList:
    """The pictures that `--images` names.

    Args:
        path: a folder of picture files, whatever else `open_corpus` reads, or `scenes`.
        kind: `images`; `pairs` where pictures without texts are others (`scenes`); `labels` for labelled
            images.
        split: one, several joined by `+`, or `all`.
        scenes_images: size of a `scenes` split; its own default when None.

    Raises:
        DataError: nothing there, or no such split.
    """
    corpus, scenes = CorpusConfig(path), ScenesConfig(captions_per_image=1)
    if scenes_images is not None:
        scenes = ScenesConfig(scenes_images, scenes_images, captions_per_image=1)
    data = DataConfig(scenes=scenes)
    if kind == "labels" and split == "all":
        raise ConfigError("--kind labels: name the splits, e.g. --split train+val")
    if split == "all":
        return ImageList(open_all_splits(corpus, kind, data))
    if kind == "labels":
        parts = [open_labeled_images(corpus, word, data) for word in split.split("+")]
    else:
        parts = [open_corpus(corpus, word, kind, data) for word in split.split("+")]
    return ImageList(parts[0] if len(parts) == 1 else ConcatDataset(parts, parts[0].name))
