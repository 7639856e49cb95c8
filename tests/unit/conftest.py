"""A small corpus in memory, and a processor for it."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from unimo.data.processor import Processor, ProcessorConfig
from unimo.data.record import Record
from unimo.data.tokenizers import build_word_tokenizer
from unimo.errors import RecordError

WORDS = ["a", "red", "green", "blue", "circle", "square", "star", "left", "of", "the", "is", ".", "?"]


def image_file(color=(200, 30, 30), size=(24, 16), kind="PNG", **options) -> bytes:
    """Bytes of a picture of one colour with a darker corner."""
    image = Image.new("RGB", size, color)
    image.paste(tuple(value // 2 for value in color), (0, 0, size[0] // 2, size[1] // 2))
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


class MemoryCorpus:
    """`size` records, two texts an image; `broken` ones raise, `truncated` ones have half an image."""

    def __init__(self, name="memory", size=40, broken=(), truncated=()):
        self.name, self.size = name, size
        self.broken, self.truncated = set(broken), set(truncated)
        self.reads = 0

    def __len__(self):
        return self.size

    def image_source(self, index):
        data = image_file((index // 2 * 5 % 256, 90, 200))
        return data[: len(data) // 2] if index in self.truncated else data

    def __getitem__(self, index):
        self.reads += 1
        if index in self.broken:
            raise RecordError(f"record {index} is broken")
        words = [WORDS[(index * 3 + step) % len(WORDS)] for step in range(3 + index % 4)]
        return Record(
            sample_id=f"{self.name}-{index}",
            corpus=self.name,
            images=(self.image_source(index),),
            text=" ".join(words),
            image_id=f"{self.name}-image-{index // 2}",
            question_id=index,
            question_type="color" if index % 2 else "shape",
            answer_scores={WORDS[index % 3 + 1]: 1.0},
            label=index % 3,
        )


@pytest.fixture
def corpus_class():
    return MemoryCorpus


@pytest.fixture
def make_image():
    return image_file


@pytest.fixture
def processor() -> Processor:
    return Processor(build_word_tokenizer(WORDS), ProcessorConfig(image_size=16, max_text_len=12))


@pytest.fixture
def same_batch():
    """A function that asserts two batches to be equal, bit for bit."""

    def check(first, second, name="batch"):
        assert type(first) is type(second)
        if dataclasses.is_dataclass(first):
            first, second = vars(first), vars(second)
        if isinstance(first, dict):
            assert first.keys() == second.keys()
            for key, value in first.items():
                check(value, second[key], key)
        elif isinstance(first, np.ndarray):
            np.testing.assert_array_equal(first, second, err_msg=name)
        else:
            assert first == second, name

    return check
