"""Pictures of a split as a segmentation model sees them, beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from unimo.data.images.class_maps import NO_CLASS
from unimo.data.prepare.broken import BrokenRecords
from unimo.errors import CapabilityError, DataError
from unimo.inference.evaluation import processor_changes
from unimo.inference.loading import load_task
from unimo.metrics.segmentation import class_ious, confusion, scores
from unimo.settings import RunConfig
from unimo.tasks.base import to_tensors


@dataclass(frozen=True)
class Example:
    """One picture."""

    name: str
    image: Image.Image
    truth: np.ndarray
    """Classes uint8 [H, W], `NO_CLASS` where nothing is known."""
    found: np.ndarray
    """Predicted classes, uint8 [H, W]."""

    @property
    def accuracy(self) -> float:
        """Share of the pixels with a class that are right, in percent; 0 if none has one."""
        known = self.truth != NO_CLASS
        return 100.0 * float((self.truth == self.found)[known].mean()) if known.any() else 0.0


@dataclass(frozen=True)
class Seen:
    """The examples of a model, and its scores on them."""

    model: str
    classes: Sequence[str]
    examples: Sequence[Example]

    @cached_property
    def counts(self) -> np.ndarray:
        """Pixels of the examples by true and predicted class."""
        size = len(self.classes)
        return sum(confusion(each.truth, each.found, size) for each in self.examples)

    @property
    def ious(self) -> np.ndarray:
        """Intersection over union of each class on the examples, in percent; NaN for those of no pixel."""
        return class_ious(self.counts)

    @property
    def headline(self) -> str:
        """The scores on the examples in a line."""
        found = scores(self.counts)
        said = ", ".join(f"{name} {found[name]:.1f}" for name in ("miou", "pixel_accuracy", "majority_miou"))
        return f"{self.model}: {len(self.examples)} pictures; {said}"


def collect(
    title: str,
    directory: Path,
    run: RunConfig,
    split: str,
    count: int,
    progress: Callable[..., Iterable] = lambda items, **_: items,
) -> Seen:
    """Segment pictures of a split, which are spread evenly over it.

    Args:
        title: name of the model.
        directory: model directory.
        run: its config, under the overrides of the caller.
        count: largest number of pictures; broken ones are left out.

    Raises:
        CapabilityError: the model does something else.
        DataError: no such split, or only broken pictures.
    """
    if run.task.name != "segmentation":
        raise CapabilityError(
            f"{directory} was trained on {run.task.name}, not on segmentation; fine-tune it: "
            f"python tools/finetune.py --task segmentation --init {directory}"
        )
    task, processor = load_task(directory, processor_changes(run), config=run.task)
    data = task.open_data(run, processor, task.metadata)
    dataset, collator = data.eval_dataset(split), data.collator(False)
    numbers = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    broken, examples, rng = BrokenRecords(dataset.name, 1.0, ""), [], np.random.default_rng(0)
    with task.evaluation_mode():
        for number in progress(numbers, total=len(numbers), what="segment"):
            with broken.skipping():
                record = dataset[int(number)]
                batch = collator.collate([collator.prepare(record, rng)], rng)
                image = processor.open(record.image, reduce=False)
                (found,) = task.class_maps(to_tensors(batch))
                examples.append(Example(record.sample_id, image, batch.class_maps[0], found))
    if not examples:
        raise DataError(f"no picture of {dataset.name}, {split}, is sound: {'; '.join(broken.examples[:3])}")
    return Seen(title, task.classes, examples)
