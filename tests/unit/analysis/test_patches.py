"""Cut patches have the pixels that the model sees, for any normalisation."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unimo.analysis.grounded_tokens import NumberedDataset, PatchCutter
from unimo.data.processor import Processor, ProcessorConfig
from unimo.data.readers.base import Dataset
from unimo.data.record import Record
from unimo.data.tokenizers import load_tokenizer


class Pictures(Dataset):
    """Two images of noise, 32 x 32."""

    name = "noise"

    def __init__(self):
        rng = np.random.default_rng(0)
        self.arrays = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return Record(f"name-{index}", self.name, (self.image_source(index),), "text")

    def image_source(self, index):
        buffer = io.BytesIO()
        Image.fromarray(self.arrays[index]).save(buffer, format="PNG")
        return buffer.getvalue()


def cutter(transform, context, padding=0):
    processor = Processor(load_tokenizer("scenes"), ProcessorConfig(32, eval_transform=transform))
    return PatchCutter(Pictures(), processor, SimpleNamespace(patch_size=8, patch_padding=padding), context)


@pytest.mark.parametrize("transform", ["clip", "vit"])
def test_patch_without_surroundings(transform):
    # 4 x 4 patches: number 6 is in row 1, column 2.
    patch = np.asarray(cutter(transform, context=0)(1, 6))
    assert np.array_equal(patch, Pictures().arrays[1][8:16, 16:24])


def test_surroundings_are_white_beyond_the_picture():
    patch = np.asarray(cutter("clip", context=1)(0, 0))
    assert patch.shape == (24, 24, 3)
    assert np.array_equal(patch[8:, 8:], Pictures().arrays[0][:16, :16])
    assert (patch[:8] == 255).all() and (patch[:, :8] == 255).all()


def test_padded_patches_start_outside():
    patch = np.asarray(cutter("clip", context=0, padding=3)(0, 5))
    assert np.array_equal(patch, Pictures().arrays[0][5:13, 5:13])


def test_numbered_samples_are_found_again():
    dataset = NumberedDataset(Pictures())
    record = dataset[1]
    assert (record.sample_id, record.text, len(dataset)) == ("1", "text", 2)
    assert dataset.image_source(int(record.sample_id)) == record.image
