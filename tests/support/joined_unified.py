"""Losses and gradients of a small UNIMO on one batch of pairs, texts and images, by one rank or by two.

    python tests/support/joined_unified.py OUTPUT

The ranks hold different numbers of everything. Captions of one picture, related pictures and related texts
are spread over both, so what is negative or positive for a pair, and what counts once, is decided between
ranks. Rank 0 writes `loss.json`; each rank writes the averaged gradients to `gradients-RANK.safetensors`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from rank_step import take_step

from unimo import cli, distributed
from unimo.data.processor import build_processor
from unimo.data.record import Record
from unimo.data.scenes.dataset import ScenesDataset
from unimo.data.tokenizers import load_tokenizer
from unimo.models.unimo.augmented import open_augmentations
from unimo.models.unimo.batches import UnifiedBatch
from unimo.models.unimo.collate import UnifiedCollator
from unimo.models.unimo.config import AugmentConfig, PretrainingConfig
from unimo.registry import create_model
from unimo.settings import DataConfig, ScenesConfig, TrainConfig
from unimo.tasks.pretrain import PretrainTask

SCENES = ScenesConfig(train_images=12, val_images=3)
# Captions of other images are drawn from a rank's own batch, so they would differ.
OPTIONS = PretrainingConfig(
    masking="span", mlm_probability=0.3, seq2seq_probability=0.5, augment=AugmentConfig(mismatched=0)
)
# Captions 0 to 3 are of one picture.
PAIRS, TEXTS, IMAGES = ((0, 1, 5, 9), (2, 13, 5)), ((0,), (7, 9, 3)), ((1, 2), (3, 4, 5))


def records_of(rank: int) -> list[tuple[int, Record]]:
    """Samples of a rank, with numbers that are equal for equal samples."""
    found = []
    for kind, chosen in (("pairs", PAIRS), ("texts", TEXTS), ("images", IMAGES)):
        dataset = ScenesDataset(kind, "train", SCENES)
        found += [(index, dataset[index]) for index in chosen[rank]]
    return found


def batch_of(ranks: Sequence[int]) -> UnifiedBatch:
    """The batch of some ranks; each sample is masked by chance of its own."""
    processor = build_processor(DataConfig(regions="grid:2:2", scenes=SCENES), load_tokenizer("scenes"))
    extras = open_augmentations("scenes", "scenes", "scenes", SCENES)
    collator = UnifiedCollator(processor, OPTIONS, extras)
    prepared = [
        collator.prepare(record, np.random.default_rng(number))
        for rank in ranks
        for number, record in records_of(rank)
    ]
    return collator.collate(prepared, np.random.default_rng(0))


def main() -> None:
    output = Path(sys.argv[1])
    distributed.setup(TrainConfig(device="cpu"))
    paddle.seed(3)
    # Large weights, so that scores differ: near 0 the loss tells how many candidates there are, not which.
    layer_sizes = {
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 32,
        "num_layers": 2,
        "init_std": 0.3,
    }
    model = create_model(
        "unimo_tiny", text={**layer_sizes, "vocab_size": 300}, regions={"feature_size": 12, "num_classes": 0}
    )
    task = PretrainTask(model, OPTIONS)
    take_step(output, task, batch_of)


if __name__ == "__main__":
    cli.run(main)
