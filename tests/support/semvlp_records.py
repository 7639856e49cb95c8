"""Records of captions and questions with made-up objects, and SemVLP's batches of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from small_unimo import FEATURE, REGIONS

from unimo.data.processor import Processor, ProcessorConfig
from unimo.data.readers.answer_table import AnswerTable
from unimo.data.record import Record
from unimo.data.regions.base import Regions
from unimo.data.tokenizers import load_tokenizer
from unimo.models.semvlp.batches import PretrainBatch
from unimo.models.semvlp.collate import PretrainCollator
from unimo.models.semvlp.config import PretrainingConfig


class Source:
    """Six regions an image, the first of which has no class. The fifth overlaps the fourth and the sixth by
    0.32, which overlap each other less, and the three have almost the same feature. The attribute of a region
    is its number."""

    feature_size, num_classes, num_attributes = FEATURE, 5, 6

    def attributes_of(self, record: Record) -> np.ndarray:
        return np.arange(REGIONS)

    def of(self, record: Record) -> Regions:
        rng = np.random.default_rng(len(record.text))
        corner = np.array([0, 40, 80, 120, 126, 132], np.float32)[:, None]
        boxes = np.hstack([corner, corner, corner + 20, corner + 20])
        probs = rng.random((REGIONS, 5)).astype(np.float32)
        probs[0] = 0
        features = rng.normal(size=(REGIONS, FEATURE)).astype(np.float32)
        features[4:] = features[3] + 0.1 * features[4:]
        return Regions(features, boxes, 200, 200, probs)


def make_collator(answers: str = "abc", train: bool = True, **options: Any) -> PretrainCollator:
    """Half of the tokens and objects are masked, and attributes read."""
    processor = Processor(load_tokenizer("scenes"), ProcessorConfig(max_text_len=20, regions="grid"))
    processor.visual.source = Source()
    options = {"mlm_probability": 0.5, "object_mask_probability": 0.5, **options}
    return PretrainCollator(processor, PretrainingConfig(**options), AnswerTable(answers), True, train)


def made_records(count: int = 8) -> list[Record]:
    """Captions with an answer each, `a`, `b` and `c` in turn."""
    texts = ["a small red circle .", "there are two objects .", "a large blue square at the top right ."]
    return [
        Record(
            f"s{row}", "c", (b"x",), texts[row % 3], None, f"{row}.png", answer_scores={"abc"[row % 3]: 1.0}
        )
        for row in range(count)
    ]


def collated(collator: PretrainCollator, count: int = 8, seed: int = 0) -> PretrainBatch:
    """A batch of `made_records`."""
    rng = np.random.default_rng(seed)
    return collator.collate([collator.prepare(record, rng) for record in made_records(count)], rng)
