"""Losses and gradients of a small UNIMO-2 on one batch of three parts, by one rank or by two.

    python tests/support/joined_unpaired.py OUTPUT [hard]

The ranks hold different numbers of pairs, texts, images and masked tokens. Rank 0 writes `loss.json`; each
rank writes the averaged gradients to `gradients-RANK.safetensors`. With `hard` ITM's false images are drawn
from the whole batch; groups leave one candidate to all texts of both ranks, so that chance does not matter.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from rank_step import join_fields, take_step

from unimo import cli, distributed
from unimo.models.batches import MaskedTextBatch, PretrainBatch
from unimo.models.paper import PretrainConfig
from unimo.models.unimo2.batches import UnpairedBatch, ViewsBatch
from unimo.registry import create_model
from unimo.settings import TrainConfig
from unimo.tasks.pretrain import PretrainTask

VOCABULARY, LENGTH, SIZE = 50, 9, 32
PAIRS, TEXTS, IMAGES = (4, 3), (1, 3), (2, 3)
"""Of the two ranks."""


def masked_texts(rng: np.random.Generator, count: int) -> dict[str, Any]:
    """Texts of which about a third is masked."""
    ids = rng.integers(5, VOCABULARY, size=(count, LENGTH))
    mask = (np.arange(LENGTH) < rng.integers(4, LENGTH + 1, size=(count, 1))).astype(np.int64)
    places = np.flatnonzero((rng.random(ids.shape) < 0.3) & (mask == 1))
    masked = ids.copy()
    masked.reshape(-1)[places] = 4
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mlm_input_ids": masked,
        "mlm_positions": places,
        "mlm_labels": ids.reshape(-1)[places],
        "sample_ids": [str(row) for row in range(count)],
    }


def part_of(rank: int) -> UnpairedBatch:
    """The batch of one rank."""
    rng = np.random.default_rng(rank)
    size = PAIRS[rank]
    pairs = PretrainBatch(
        images=rng.normal(size=(size, 3, SIZE, SIZE)).astype(np.float32),
        itm_image_index=np.roll(np.arange(size), 1),
        itm_labels=np.zeros(size, np.int64),
        image_group=((np.arange(size) == 0) & (rank == 0)).astype(np.int64),
        **masked_texts(rng, size),
    )
    pairs.itm_image_index[0], pairs.itm_labels[0] = 0, 1
    views = rng.normal(size=(2, IMAGES[rank], 3, SIZE, SIZE)).astype(np.float32)
    names = [str(row) for row in range(IMAGES[rank])]
    return UnpairedBatch(
        pairs=pairs,
        texts=MaskedTextBatch(**masked_texts(rng, TEXTS[rank])),
        images=ViewsBatch(pixels=views[0], pixels_2=views[1], sample_ids=names),
        sample_ids=[],
    )


def join(first: UnpairedBatch, second: UnpairedBatch) -> UnpairedBatch:
    """Both batches as one; positions and image rows of the second move behind those of the first."""
    pairs, texts = second.pairs, second.texts
    pairs = dataclasses.replace(
        pairs,
        itm_image_index=pairs.itm_image_index + PAIRS[0],
        mlm_positions=pairs.mlm_positions + PAIRS[0] * LENGTH,
    )
    texts = dataclasses.replace(texts, mlm_positions=texts.mlm_positions + TEXTS[0] * LENGTH)
    return join_fields(first, dataclasses.replace(second, pairs=pairs, texts=texts))


def batch_of(ranks: Sequence[int]) -> UnpairedBatch:
    """The batch of one rank, or that of both."""
    return part_of(ranks[0]) if len(ranks) == 1 else join(part_of(0), part_of(1))


def main() -> None:
    output, hard = Path(sys.argv[1]), "hard" in sys.argv
    distributed.setup(TrainConfig(device="cpu"))
    paddle.seed(3)
    part = {"hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "num_layers": 2}
    model = create_model(
        "unimo2_tiny",
        text={**part, "vocab_size": VOCABULARY},
        vision={**part, "image_size": SIZE, "patch_size": 16},
        grounding={"dictionary_size": 20, "num_tokens": 4},
        fusion=part,
        objective={"itm_negatives": "hard" if hard else "random"},
    )
    task = PretrainTask(model, PretrainConfig())
    take_step(output, task, batch_of)


if __name__ == "__main__":
    cli.run(main)
