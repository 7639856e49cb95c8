"""Loss and gradients of fine-tuning a small UNIMO as released, on one batch, by one rank or by two.

    python tests/support/joined_released.py OUTPUT circle | adversarial

The ranks hold different numbers of pairs. Rank 0 writes `loss.json`; each rank writes the averaged gradients
to `gradients-RANK.safetensors`. Adversarial training starts without noise and takes one step of ascent, whose
direction does not depend on how the batch is split.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from rank_step import take_step

from unimo import cli, distributed
from unimo.registry import create_model
from unimo.settings import TrainConfig
from unimo.tasks.adversarial import AdversarialConfig
from unimo.tasks.entailment import EntailmentBatch, EntailmentConfig, EntailmentTask
from unimo.tasks.retrieval.mismatched import CircleRetrievalTask
from unimo.tasks.retrieval.negatives import NegativesBatch
from unimo.tasks.retrieval.task import RetrievalConfig

VOCABULARY, LENGTH, REGIONS, FEATURE, FILL = 50, 9, 4, 12, 2
PAIRS = (4, 3)
"""Of the two ranks; each has two samples more that only are negatives."""


def part_of(rank: int) -> dict[str, Any]:
    """Fields of the batch of one rank, those of both tasks."""
    rng = np.random.default_rng(rank)
    pairs, size = PAIRS[rank], PAIRS[rank] + FILL
    lengths = rng.integers(4, LENGTH + 1, size=(size, 1))
    counts = rng.integers(2, REGIONS + 1, size=(size, 1))
    others = [[row for row in range(size) if row != own] for own in range(pairs)]
    return {
        "input_ids": rng.integers(5, VOCABULARY, size=(size, LENGTH)),
        "attention_mask": (np.arange(LENGTH) < lengths).astype(np.int64),
        "images": {
            "features": rng.normal(size=(size, REGIONS, FEATURE)).astype(np.float32),
            "locations": rng.random((size, REGIONS, 5)).astype(np.float32),
            "mask": (np.arange(REGIONS) < counts).astype(np.int64),
        },
        "image_group": np.arange(size) + 10 * rank,
        "labels": rng.integers(3, size=size),
        "negative_images": np.stack([rng.permutation(rows)[:3] for rows in others]),
        "negative_texts": np.stack([rng.permutation(rows)[:3] for rows in others]),
    }


def join(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both batches as one: pairs first, then what only is negative."""
    order = np.argsort(
        [row >= PAIRS[rank] for rank in (0, 1) for row in range(PAIRS[rank] + FILL)], kind="stable"
    )
    places = np.argsort(order)

    def rows(name: str, parts: tuple[Any, Any]) -> Any:
        if isinstance(parts[0], dict):
            return {key: rows(key, (parts[0][key], parts[1][key])) for key in parts[0]}
        if name.startswith("negative"):
            return np.concatenate([places[parts[0]], places[parts[1] + PAIRS[0] + FILL]])
        return np.concatenate(parts)[order]

    return {name: rows(name, (first[name], second[name])) for name in first}


def fields_of(ranks: Sequence[int]) -> dict[str, Any]:
    """Fields of the batch of one rank, or of that of both."""
    fields = part_of(ranks[0]) if len(ranks) == 1 else join(part_of(0), part_of(1))
    return fields | {"sample_ids": [str(row) for row in range(len(fields["labels"]))]}


def ranked(ranks: Sequence[int]) -> NegativesBatch:
    """The batch of some ranks for retrieval."""
    fields = fields_of(ranks)
    del fields["labels"]
    return NegativesBatch(**fields, image_ids=fields["sample_ids"])


def labeled(ranks: Sequence[int]) -> EntailmentBatch:
    """The batch of some ranks for entailment."""
    fields = fields_of(ranks)
    del fields["negative_images"], fields["negative_texts"]
    return EntailmentBatch(**fields)


def main() -> None:
    output, kind = Path(sys.argv[1]), sys.argv[2]
    distributed.setup(TrainConfig(device="cpu"))
    paddle.seed(3)
    sizes = {"hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "num_layers": 2}
    model = create_model(
        "unimo_tiny",
        text={**sizes, "vocab_size": VOCABULARY},
        regions={"feature_size": FEATURE, "num_classes": 0},
    )
    if kind == "circle":
        take_step(output, CircleRetrievalTask(model, RetrievalConfig(loss="circle", negatives=6)), ranked)
    else:
        config = AdversarialConfig(steps=2, init_mag=0.0, projection="paper", max_norm=0.03)
        take_step(output, EntailmentTask(model, EntailmentConfig(adversarial=config)), labeled)


if __name__ == "__main__":
    cli.run(main)
