"""Broken records of a training run or an evaluation: counted and skipped, whichever value is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from picture_files import write_pictures

from unimo.data.loading.loader import EvalLoader, TrainLoader
from unimo.data.loading.sampler import MixtureSampler
from unimo.data.processor import Processor, ProcessorConfig
from unimo.data.readers.base import ConcatDataset
from unimo.data.readers.jsonl import JsonlDataset
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import DataError
from unimo.tasks.vqa import VqaCollator

GOOD = [{"image": f"{number}.jpg", "question": "what is it ?", "answer": "yes"} for number in range(20)]
WRONG = [
    *(
        {"image": value}
        for value in ("a\0.jpg", "\ud83d.jpg", None, 5, "n" * 300, "none.jpg", ".", "sparse.jpg")
    ),
    *({"question": value} for value in (None, 5, float("nan"), ["x"], "", "\u200b", "half \ud83d", "a\0b")),
    *(
        {"answer": value}
        for value in (None, 5, [], {}, "", {"yes": 3}, {"yes": 0}, {"yes": float("nan")}, [None])
    ),
    *({"image_id": value} for value in (5.5, True, ["x"], "a\0")),
    *({"question_id": value} for value in (5.5, True, ["x"], "a\0")),
]


@pytest.fixture
def processor() -> Processor:
    return Processor(load_tokenizer("scenes"), ProcessorConfig(image_size=16))


@pytest.fixture
def corpus(tmp_path):
    """Function that writes 20 questions and further lines, and opens them."""
    write_pictures(tmp_path, [f"{number}.jpg" for number in range(20)])
    with open(tmp_path / "sparse.jpg", "wb") as file:
        file.truncate(1 << 40)  # a terabyte without content

    def write(*lines: dict) -> JsonlDataset:
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, [*GOOD, *lines])))
        return JsonlDataset(tmp_path / "train.jsonl", "vqa")

    return write


@pytest.mark.parametrize("change", WRONG, ids=lambda change: repr(change)[:40])
def test_one_broken_record(corpus, processor, change, caplog):
    dataset = corpus(GOOD[0] | change)
    sampler = MixtureSampler({"train": len(dataset)}, {"train": 1.0}, 7, 0)
    collator = VqaCollator(processor, ["yes", "no"], train=True)
    loader = TrainLoader({"train": dataset}, sampler, collator, num_workers=0, max_bad_rate=0.1)
    read = [sample for _ in range(3) for sample in next(loader).sample_ids]
    assert sorted(read) == sorted(f"train:{number}#0" for number in range(1, 21))
    assert loader.counter.state_dict() == {"read": {"train": 21}, "bad": {"train": 1}}
    assert caplog.text.count("skipped train[20]: ") == 1


@pytest.mark.parametrize("change", [{"question": None}, {"image": "a\0.jpg"}, {"answer": {"yes": 10}}])
def test_broken_records_of_an_evaluation(corpus, processor, change):
    wrong = GOOD[0] | change
    collator = VqaCollator(processor, ["yes", "no"], train=False)
    loader = EvalLoader(corpus(wrong), collator, 8, num_workers=0, max_bad_rate=0.1)
    batches = list(loader)
    assert sum(len(batch.sample_ids) for batch in batches) == 20 and loader.counter.bad["train"] == 1
    assert all(np.isfinite(batch.answer_targets).all() for batch in batches)
    dataset = corpus(*[wrong] * 3)
    alone = ConcatDataset([dataset], "train", [[20, 21, 22]])
    with pytest.raises(DataError, match="all 3 records of train were broken; the last one: "):
        list(EvalLoader(alone, collator, 2, num_workers=0, max_bad_rate=1.0))
