"""Images with class labels: the base of their readers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from unimo.data.readers.base import Dataset, WrappedDataset
from unimo.data.record import Record
from unimo.errors import DataError


class LabeledImages(Dataset):
    """Images without text whose `Record.label` is an index into `class_names`."""

    class_names: Sequence[str]
    """Names of the classes, in the order of the labels."""


def spoken(class_name: str) -> str:
    """Return a class name in ordinary words: `polar_bear` becomes `polar bear`."""
    return class_name.replace("_", " ").strip()


class RelabeledImages(WrappedDataset, LabeledImages):
    """A data set with the labels of other classes.

    Args:
        class_names: the new classes, for example those of a trained model.
        class_of: for each label of `dataset` its index in `class_names`.
    """

    def __init__(self, dataset: Dataset, class_names: Sequence[str], class_of: Sequence[int]) -> None:
        super().__init__(dataset)
        self.class_names, self._class_of = class_names, class_of

    def __getitem__(self, index: int) -> Record:
        record = self._whole[index]
        return dataclasses.replace(record, label=self._class_of[record.label])


def relabel(dataset: LabeledImages, class_names: Sequence[str]) -> LabeledImages:
    """Map the labels of a data set to `class_names`, by the names of its classes.

    Raises:
        DataError: it has classes that are not among them.
    """
    if list(dataset.class_names) == list(class_names):
        return dataset
    index_of = {name: index for index, name in enumerate(class_names)}
    unknown = [name for name in dataset.class_names if name not in index_of]
    if unknown:
        raise DataError(
            f"{dataset.name} has {len(unknown)} classes that the model does not know: "
            f"{', '.join(unknown[:5])}; its {len(class_names)} classes: {', '.join(class_names[:5])} ..."
        )
    return RelabeledImages(dataset, class_names, [index_of[name] for name in dataset.class_names])
