"""Patches cut out of the images of a data set, as the model sees them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unimo.data.readers.base import Dataset, WrappedDataset

if TYPE_CHECKING:
    from unimo.data.processor import Processor
    from unimo.data.record import Record


class NumberedDataset(WrappedDataset):
    """A data set whose sample ids are indices, so that a sample of a batch can be found again."""

    def __getitem__(self, index: int) -> Record:
        return dataclasses.replace(self._whole[index], sample_id=str(index))


class PatchCutter:
    """Cuts patches with their surroundings out of images, after the evaluation transform of the processor.

    Args:
        vision: config with `patch_size` and, if patches start outside the image, `patch_padding`.
        context: number of patches on each side; the area outside of the image is white.
    """

    def __init__(self, dataset: Dataset, processor: Processor, vision: Any, context: int) -> None:
        self._dataset, self._processor, self._context = dataset, processor, context
        self._side, self._shift = vision.patch_size, getattr(vision, "patch_padding", 0)
        size = processor.config.image_size
        self._columns = size // self._side
        # The results for black and white give the scale of any transform.
        black, white = (processor.pixels(Image.new("RGB", (size, size), c)) for c in ("black", "white"))
        self._black, self._range = black, np.where(white == black, np.float32(1), white - black)

    def picture(self, index: int) -> Image.Image:
        """Return the image of sample `index` as the model sees it, converted back to 8 bits a colour."""
        pixels = self._processor.pixels(self._dataset.image_source(index))
        shares = np.clip((pixels - self._black) / self._range, 0, 1)
        return Image.fromarray((shares * 255).round().astype(np.uint8).transpose(1, 2, 0))

    def __call__(self, index: int, patch: int) -> Image.Image:
        """Return patch number `patch`, counted row by row, of the image of sample `index`."""
        row, column = divmod(patch, self._columns)
        left, top = (number * self._side - self._shift for number in (column, row))
        margin = self._context * self._side
        canvas = Image.new("RGB", (self._side + 2 * margin,) * 2, "white")
        canvas.paste(self.picture(index), (margin - left, margin - top))
        return canvas
