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


def batch_from(chosen: Sequence[Sequence[Sequence[int]]], options: PretrainingConfig) -> UnifiedBatch:
    """The batch of some ranks, given by numbers of pairs, texts and images of each; each sample is masked by
    chance of its own, which equal samples share."""
    processor = build_processor(DataConfig(regions="grid:2:2", scenes=SCENES), load_tokenizer("scenes"))
    collator = UnifiedCollator(processor, options, open_augmentations("scenes", "scenes", "scenes", SCENES))
    datasets = [ScenesDataset(kind, "train", SCENES) for kind in ("pairs", "texts", "images")]
    prepared = [
        collator.prepare(dataset[number], np.random.default_rng(number))
        for kinds in chosen
        for dataset, numbers in zip(datasets, kinds, strict=True)
        for number in numbers
    ]
    return collator.collate(prepared, np.random.default_rng(0))


def batch_of(ranks: Sequence[int]) -> UnifiedBatch:
    """The batch of some ranks."""
    return batch_from([[kind[rank] for kind in (PAIRS, TEXTS, IMAGES)] for rank in ranks], OPTIONS)


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
