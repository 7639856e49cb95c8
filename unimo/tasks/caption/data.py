"""Captions by image: training reads one caption per sample, evaluation one image with all of its captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from unimo.data.checks import check_id, check_text
from unimo.data.loading.task_data import TaskData
from unimo.data.prepare.broken import MOST, BrokenRecords
from unimo.data.readers.base import Dataset, check_index
from unimo.data.record import ImageSource, Record, coco_number
from unimo.errors import DataError, RecordError, shown
from unimo.files import read_json
from unimo.settings import ScenesConfig
from unimo.tasks.caption.batches import CaptionRecord, Objects

ImageId = int | str
References = Mapping[ImageId, tuple[str, ...]]


def result_image_id(image_id: ImageId) -> ImageId:
    """Return the id of an image in COCO's result files: a number for COCO's own names, else the id itself."""
    number = coco_number(str(image_id))
    return image_id if number is None else number


class ImageCaptions(Dataset):
    """The images of a caption data set, each once, in the order of their first caption.

    Args:
        captions: data set of one caption per sample; those of an image share its `image_id`.
        references: captions to use instead, by `result_image_id`.
        objects_of: returns the objects in a picture of `scenes`, given one of its records.

    Raises:
        DataError: an image has no references.
    """

    def __init__(
        self,
        captions: Dataset,
        references: References | None = None,
        objects_of: Callable[[Record], Objects] | None = None,
    ) -> None:
        self.name = captions.name
        self._captions, self._objects_of = captions, objects_of
        grouped: dict[tuple[str, str], list[str]] = {}
        first: dict[tuple[str, str], int] = {}
        for index in range(len(captions)):
            try:
                record = captions[index]
                key = (record.corpus, record.image_id or f"sample {record.sample_id}")
                grouped.setdefault(key, []).append(record.text)
            except RecordError:
                key = ("", str(index))  # stays a sample of its own, which the loader will count
            first.setdefault(key, index)
        self._first = list(first.values())
        if references is None:
            self._texts = [tuple(grouped.get(key, ())) for key in first]
        else:
            self._texts = [references.get(result_image_id(name), ()) for _, name in first]
            names = [name for corpus, name in first if corpus]
            missing = [name for name in names if not references.get(result_image_id(name))]
            if missing:
                known = ", ".join(map(str, list(references)[:3])) or "nothing"
                raise DataError(
                    f"task.references has no captions for {len(missing)} of {len(names)} images, e.g. "
                    f"{', '.join(missing[:3])}; images in it: {known}, ... Take the file of the same split, "
                    "or leave task.references empty to use the captions of the data"
                )

    def __len__(self) -> int:
        return len(self._first)

    def count_images(self) -> int:
        return len(self)

    def count_texts(self) -> int:
        return sum(map(len, self._texts))

    def __getitem__(self, index: int) -> CaptionRecord:
        check_index(index, len(self))
        record = self._captions[self._first[index]]
        values = {item.name: getattr(record, item.name) for item in fields(record)}
        objects = self._objects_of(record) if self._objects_of else None
        return CaptionRecord(**values, references=self._texts[index], objects=objects)

    def image_source(self, index: int) -> ImageSource:
        check_index(index, len(self))
        return self._captions.image_source(self._first[index])


def read_references(path: str | Path) -> dict[ImageId, tuple[str, ...]]:
    """Read a COCO annotation file, `{"annotations": [{"image_id": .., "caption": ".."}, ..]}`.

    Raises:
        DataError: the file cannot be read, has another content, or more than half of it is broken.
    """
    content = read_json(path, DataError, "task.references")
    rows = content.get("annotations") if isinstance(content, Mapping) else None
    if not isinstance(rows, list):
        raise DataError(
            f"task.references {path}: expected a JSON object with a list `annotations`, as of COCO"
        )
    found: dict[ImageId, list[str]] = {}
    broken = BrokenRecords(f"task.references {path}", MOST, "")
    for number, row in enumerate(rows):
        with broken.skipping():
            image_id, caption = _read_annotation(row, f"{path}, annotation {number}")
            found.setdefault(result_image_id(image_id), []).append(caption)
    broken.check()
    return {image_id: tuple(captions) for image_id, captions in found.items()}


def _read_annotation(row: object, where: str) -> tuple[ImageId, str]:
    content = row if isinstance(row, Mapping) else {}
    try:
        return check_id(content.get("image_id"), ""), check_text(content.get("caption"))
    except RecordError as error:
        raise RecordError(
            f"{where}: expected an `image_id` and a `caption` that is not empty, found {shown(row)}"
        ) from error


@dataclass
class CaptionData(TaskData):
    """Caption corpora: samples are captions in training and images in evaluation."""

    references: References | None = None
    """Captions to evaluate with; None for those of the corpora."""
    scenes: ScenesConfig | None = None
    """Size of the built-in corpus, if nothing else is read."""

    def eval_dataset(self, split: str) -> ImageCaptions:
        """Return the images of a split of all corpora, with their references."""
        return ImageCaptions(super().eval_dataset(split), self.references, self._objects_of())

    def _objects_of(self) -> Callable[[Record], Objects] | None:
        if self.scenes is None:
            return None
        from unimo.data.scenes.dataset import SPLITS, ScenesDataset

        pictures = {split: ScenesDataset("pairs", split, self.scenes) for split in SPLITS}

        def objects_of(record: Record) -> Objects:
            split, _, number = record.image_id.rpartition("-")
            scene = pictures[split].scene(int(number))
            return tuple((item.color, item.shape) for item in scene.objects)

        return objects_of
