"""Images with class labels: what their readers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from unimo.data.readers.base import Dataset
from unimo.data.record import ImageSource, Record
from unimo.errors import DataError


class LabeledImages(Dataset):
    """Images whose `Record.label` is a place in `class_names`; they have no text."""

    class_names: Sequence[str]
    """One name a class, in the order of the labels."""


def spoken(class_name: str) -> str:
    """A class name as a person would say it: `polar_bear` is a polar bear."""
    return class_name.replace("_", " ").strip()


class RelabeledImages(LabeledImages):
    """Another data set with its labels as places in `class_names`.

    Args:
        dataset: what is read.
        class_names: the classes to count in, for example those of a trained model.
        class_of: for each label of `dataset` its place in `class_names`.
    """

    def __init__(self, dataset: Dataset, class_names: Sequence[str], class_of: Sequence[int]) -> None:
        self.name, self.class_names = dataset.name, class_names
        self._dataset, self._class_of = dataset, class_of

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Record:
        record = self._dataset[index]
        return dataclasses.replace(record, label=self._class_of[record.label])

    def image_source(self, index: int) -> ImageSource:
        return self._dataset.image_source(index)


def relabel(dataset: LabeledImages, class_names: Sequence[str]) -> LabeledImages:
    """The data set with labels that count in `class_names`, by name.

    Raises:
        DataError: it has classes that are not among them.
    """
    if list(dataset.class_names) == list(class_names):
        return dataset
    place = {name: number for number, name in enumerate(class_names)}
    strange = [name for name in dataset.class_names if name not in place]
    if strange:
        raise DataError(
            f"{dataset.name} has {len(strange)} classes that the model does not know: "
            f"{', '.join(strange[:5])}; its {len(class_names)} classes: {', '.join(class_names[:5])} ..."
        )
    return RelabeledImages(dataset, class_names, [place[name] for name in dataset.class_names])
