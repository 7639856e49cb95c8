"""The data of classification tasks, ready to make loaders from."""

from __future__ import annotations

from collections.abc import Sequence

from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.data.readers.base import Dataset
from unimo.data.readers.glue import TASKS, GlueName
from unimo.data.readers.labeled import relabel
from unimo.data.readers.open_glue import open_glue
from unimo.data.readers.open_labeled import open_labeled_images
from unimo.errors import DataError
from unimo.settings import CorpusConfig, RunConfig
from unimo.tasks.classification.batches import ImageCollator, TextCollator


def open_text_classification(run: RunConfig, processor: Processor, dataset: GlueName) -> TaskData:
    """Sentences of `data.path`; `metadata["classes"]` names the classes (none for regression)."""
    classes = TASKS[dataset].class_names

    def collator(train: bool) -> TextCollator:
        return TextCollator(processor, len(classes), train)

    return TaskData(
        corpora=run.data.path,
        open_split=lambda corpus, split: open_glue(corpus, split, run.data, dataset),
        processor=processor,
        collator=collator,
        metadata={"classes": list(classes)},
    )


def open_image_classification(
    run: RunConfig, processor: Processor, classes: Sequence[str] | None = None
) -> TaskData:
    """Labelled images of `data.path`; `metadata["classes"]` names the classes.

    Args:
        run: the run.
        processor: of the model.
        classes: those of an existing model; by default the training classes of all corpora.

    Raises:
        DataError: a corpus cannot be opened, or has no training split to take the classes from.
    """
    if classes is None:
        classes = class_names(run)

    def collator(train: bool) -> ImageCollator:
        return ImageCollator(processor, len(classes), train)

    def open_split(corpus: CorpusConfig, split: str) -> Dataset:
        return relabel(open_labeled_images(corpus, split, run.data), classes)

    return TaskData(
        corpora=run.data.path,
        open_split=open_split,
        processor=processor,
        collator=collator,
        metadata={"classes": list(classes)},
    )


def class_names(run: RunConfig, split: str = "train") -> list[str]:
    """Classes of all corpora of `data.path` in first-seen order.

    Raises:
        DataError: a corpus cannot be opened.
    """
    opened = (open_labeled_images(corpus, split, run.data) for corpus in run.data.path)
    names = list(dict.fromkeys(name for dataset in opened for name in dataset.class_names))
    if len(names) < 2:
        raise DataError(f"image classification needs at least 2 classes; found: {', '.join(names)}")
    return names
