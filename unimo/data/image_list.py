"""The images of a corpus, each once, in the same order on every rank and in every later run."""

from __future__ import annotations

import hashlib
from array import array
from typing import Literal

from unimo.data.readers.base import Dataset, concat
from unimo.data.readers.open import open_all_splits, open_corpus, open_labeled_images
from unimo.data.record import ImageSource, split_pair_id
from unimo.data.splits import split_words
from unimo.errors import ConfigError, RecordError
from unimo.settings import CorpusConfig, DataConfig, ScenesConfig

ImageKind = Literal["images", "pairs", "labels", "nlvr2"]


class ImageList:
    """Numbered images of a corpus, each represented by its first sample.

    Places in the corpus (sample times images of a sample, and which of these) are kept instead of ids, to
    save memory.

    Args:
        of_sample: number of images of a sample, 1 or 2.
    """

    def __init__(self, dataset: Dataset, of_sample: int = 1) -> None:
        self.dataset, self.name, self._of_sample = dataset, dataset.name, of_sample
        self._places = array("q")
        seen: set[str] = set()
        digest = hashlib.sha256()
        for place in range(len(dataset) * of_sample):
            image_id = self._id(place)
            if image_id not in seen:
                seen.add(image_id)
                digest.update(image_id.encode("utf8", "surrogateescape") + b"\0")
                self._places.append(place)
        self.fingerprint = digest.hexdigest()
        """Digest of the ids in their order, which identifies the list."""

    def __len__(self) -> int:
        return len(self._places)

    def image_id(self, number: int) -> str:
        """Return the id of an image, as in its records; a broken sample gets a unique name."""
        return self._id(self._places[number])

    def source(self, number: int) -> ImageSource:
        """Return the encoded image.

        Raises:
            RecordError: the sample is broken.
        """
        index, side = divmod(self._places[number], self._of_sample)
        if self._of_sample == 1:
            return self.dataset.image_source(index)
        return self.dataset[index].picture(side).images[0]

    def _id(self, place: int) -> str:
        index, side = divmod(place, self._of_sample)
        try:
            image_id = split_pair_id(self.dataset.image_id(index))[side]
        except (RecordError, IndexError):  # broken, or of fewer images
            return f"{self.dataset.name}[{place}]"
        return image_id.encode("utf8", "backslashreplace").decode()  # names of files may be no UTF-8


def open_images(
    path: str, kind: ImageKind = "images", split: str = "all", scenes_images: int | None = None
) -> ImageList:
    """Open the images of a folder, of another corpus that `open_corpus` reads, or of `scenes`.

    Args:
        kind: `images`; `pairs` for corpora whose images with texts are different ones (`scenes`); `labels`
            for labelled images; `nlvr2` for sentences about two images.
        split: one split, several joined by `+`, or `all`.
        scenes_images: size of a split of `scenes`; None means its default.

    Raises:
        ConfigError: labelled images without a split.
        DataError: no such corpus or split.
    """
    of_sample = 2 if kind == "nlvr2" else 1
    sizes = () if scenes_images is None else (scenes_images, scenes_images)
    corpus, data = CorpusConfig(path), DataConfig(scenes=ScenesConfig(*sizes, captions_per_image=1))
    if kind == "labels" and split == "all":
        raise ConfigError("--kind labels: name the splits, e.g. --split train+val")
    if split == "all":
        return ImageList(open_all_splits(corpus, kind, data), of_sample)
    if kind == "labels":
        parts = [open_labeled_images(corpus, word, data) for word in split_words(split)]
    else:
        parts = [open_corpus(corpus, word, kind, data) for word in split_words(split)]
    return ImageList(concat(parts, parts[0].name), of_sample)
