"""Finding and opening a data set of labelled images."""

from __future__ import annotations

from pathlib import Path

from unimo.data.readers.base import concat
from unimo.data.readers.cifar import CifarImages, find_cifar
from unimo.data.readers.image_folder import open_image_folder
from unimo.data.readers.labeled import LabeledImages, RelabeledImages, relabel
from unimo.data.scenes.labels import SceneShapes
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig


def open_labeled_images(corpus: CorpusConfig, split: str, data: DataConfig) -> LabeledImages:
    """Open one split of an image classification set.

    Args:
        corpus: `scenes` (the shape of an object), a tree with one folder for each class
            (`readers/image_folder.py`), or a folder of CIFAR files (`readers/cifar.py`).
        split: `train`, `val`, `test`, or several joined by `+`.

    Raises:
        DataError: no such data set or split, or damaged files.
    """
    parts = [_open_split(corpus, word, data) for word in split.split("+")]
    if len(parts) == 1:
        return parts[0]
    names = parts[0].class_names
    whole = concat([relabel(part, names) for part in parts], parts[0].name)
    return RelabeledImages(whole, names, range(len(names)))


def _open_split(corpus: CorpusConfig, split: str, data: DataConfig) -> LabeledImages:
    if corpus.path == "scenes":
        return SceneShapes(split, data.scenes)
    path = Path(data.root).expanduser() / Path(corpus.path).expanduser()
    if not path.is_dir():
        raise DataError(
            f"no folder {path.absolute()}; expected one folder a class (train/<class>/*.jpg) or the files "
            "of CIFAR-10 or CIFAR-100; the built-in data set is `scenes`"
        )
    name = corpus.name or path.name
    cifar = find_cifar(path)
    return CifarImages(cifar, split, name) if cifar else open_image_folder(path, split, name)
