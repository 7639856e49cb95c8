"""Pre-training recipes of UNIMO say what Table 6 says, and start on whatever number of ranks."""

from __future__ import annotations

import pytest

from unimo.data.loading.sampler import Curriculum, MixtureSampler
from unimo.settings import load_run_config

# Layers, width, feed-forward width, heads, warm-up steps, batch.
TABLE_6 = {"base": (12, 768, 3072, 12, 24_000, 6 * 1024), "large": (24, 1024, 4096, 16, 30_000, 3 * 1024)}


@pytest.mark.parametrize("size", TABLE_6)
def test_table_6(size: str) -> None:
    run = load_run_config(f"unimo_{size}", "pretrain")
    text, optim, train = run.model.text, run.optim, run.train
    sizes = (text.num_layers, text.hidden_size, text.intermediate_size, text.num_heads)
    assert (*sizes, optim.warmup, train.batch_size) == TABLE_6[size]
    assert (text.dropout, text.attention_dropout) == (0.1, 0.1)
    assert (optim.lr, optim.weight_decay, optim.schedule) == (5e-5, 0.01, "linear")
    assert (optim.eps, optim.betas, optim.clip_grad_norm) == (1e-6, [0.9, 0.999], 1.0)
    assert train.max_steps == 1_000_000


@pytest.mark.parametrize("ranks", [1, 2, 8, 32, 64])
@pytest.mark.parametrize("size", TABLE_6)
def test_every_part_of_a_batch_has_pairs_texts_and_images(size: str, ranks: int) -> None:
    run = load_run_config(f"unimo_{size}", "pretrain")
    (texts,), (images,) = run.data.texts, run.data.images
    sizes = {"pairs": 100_000, "texts": 50_000, "images": 20_000}
    weights = {"pairs": None, "texts": texts.weight, "images": images.weight}
    curriculum = Curriculum({name: name for name in sizes})
    batch, slices = run.train.batch_size, ranks * run.train.rounds(ranks)
    sampler = MixtureSampler(sizes, weights, batch, 0, 0, ranks, curriculum)
    sampler.check_kinds(slices)
    mixed = MixtureSampler(sizes, weights, batch, 0, 0, 1, curriculum).next()
    part = batch // slices
    assert all({key.corpus for key in mixed[i : i + part]} == set(sizes) for i in range(0, batch, part))
    counts = [sum(key.corpus == name for key in mixed) / batch for name in sizes]
    assert counts == pytest.approx([5 / 7, 1 / 7, 1 / 7], abs=2e-3)
