"""Counted FLOPs against numbers computed by hand."""

from dataclasses import replace

from unimo.benchmark import flops
from unimo.registry import model_config


def test_block_of_a_base_tower():
    # 50 tokens, width 768, inner 3072: 12 W^2 weights, 2 FLOPs each, and 4 * 50 * 50 * 768 of attention.
    assert flops.block(50, 768, 3072) == 2 * 50 * 12 * 768**2 + 4 * 50 * 50 * 768 == 715_468_800


def test_cross_block_of_one_stream():
    # 10 tokens with 20 others, width 8, inner 16. Self: qkv 2*10*8*24, attention 4*10*10*8, out 2*10*8*8.
    own = 3840 + 3200 + 1280
    # Cross: query 1280, kv 2*20*8*16, attention 4*10*20*8, out 1280; feed-forward 2 * 2*10*8*16.
    assert flops.cross_block(10, 20, 8, 16) == own + 1280 + 5120 + 6400 + 1280 + 5120
    # One query: qkv and kv whole, the rest a tenth.
    assert (
        flops.cross_block(10, 20, 8, 16, 1) == 3840 + 5120 + (3200 + 1280 + 1280 + 6400 + 1280 + 5120) // 10
    )


def test_causal_gates_of_the_base_model():
    parts = flops.own_step(model_config("unimo3_base"), batch_size=2, text_len=50, targets=14)
    # 7 + 8 + ... + 12 = 57 products; 2 images of 197 tokens once, 4 texts of 50 tokens.
    assert parts["gates"] == 3 * 57 * 2 * 768**2 * (2 * 197 + 4 * 50)
    # 12 linked layers of each tower; layer 7, where the fusion starts, is one of them.
    assert parts["projections"] == 3 * 12 * 2 * 768**2 * (2 * 197 + 4 * 50)
    # Forward of a vision tower: patches and 12 blocks; two images, one pass.
    tower = 2 * 196 * 768 * 768 + 12 * (2 * 197 * 12 * 768**2 + 4 * 197**2 * 768)
    assert parts["image_tower"] == 3 * 2 * tower
    # 14 targets and two pairs.
    head = 2 * 14 * 768 * (768 + 50265) + 2 * (4 * 768**2 + 2 * 1536 * 2)
    assert parts["heads"] == 3 * head


def test_presets_without_gates_and_links():
    bridge = flops.own_step(model_config("bridgetower_base"), 2, 50, 14)
    meter = flops.own_step(model_config("meter_base"), 2, 50, 14)
    token = 3 * 2 * 768**2 * (2 * 197 + 4 * 50)
    assert bridge["gates"] == meter["gates"] == 0
    # Without a link in fusion layer 1, five linked layers and the start layer.
    assert (bridge["projections"], meter["projections"]) == (6 * token, token)
    assert meter["image_tower"] < bridge["image_tower"]


def test_gates_by_hand():
    # Four layers of width 8, two internal layers: they read 1..2... see the count of pairs below.
    tiny = model_config("unimo3_tiny")
    fusion = replace(tiny.fusion, hidden_size=8, num_heads=2, num_layers=2, num_internal=2)
    # S = 3 - 2 + 2 = 3: internal layer 1 reads 1..2, layer 2 reads 1..3; 5 pairs over 3 layers.
    assert flops._links(fusion, 1, 8, 3, 0) == (3 * 2 * 8 * 8, 2 * 8 * 8 * 5)


def test_peer_runs_both_towers_twice_and_reads_every_position():
    config = model_config("unimo3_base")
    ours, peer = flops.own_step(config, 2, 50, 14), flops.bridgetower_step(config, 2, 50)
    assert peer["image_tower"] == 2 * ours["image_tower"]
    assert peer["text_tower"] == ours["text_tower"]
    assert peer["projections"] == 3 * 6 * 2 * 768**2 * 4 * (197 + 50)
    assert peer["heads"] == 3 * (2 * 100 * 768 * (768 + 50265) + 2 * (4 * 768**2 + 2 * 1536 * 2))
    layer = flops.cross_block(50, 197, 768, 3072) + flops.cross_block(197, 50, 768, 3072)
    assert peer["fusion"] == 3 * 4 * 6 * layer - 2 * 2 * flops.cross_block(197, 50, 768, 3072)


def test_vlmo_and_vilt_by_hand():
    config = model_config("vlmo_base")
    ours, peer = flops.vlmo_step(config, 2, 40, 12), flops.vilt_step(config, 2, 40)
    # 237 rows; a full block has 12 W^2 weights, 2 FLOPs each.
    full = 2 * 237 * 12 * 768**2 + 4 * 237 * 237 * 768
    assert peer["blocks"] == 3 * 2 * 2 * 12 * full
    # The last layer projects keys, values and queries of all rows, and computes the rest for 40 rows or one.
    last = [2 * 237 * 3 * 768**2 + rows * (2 * 9 * 768**2 + 4 * 237 * 768) for rows in (40, 1)]
    assert ours["blocks"] == 3 * 2 * (2 * 11 * full + sum(last))
    assert ours["patches"] == peer["patches"] == 3 * 2 * 2 * 2 * 196 * 768 * 768
    pooled = 2 * (2 * 768**2 + 2 * 768 * 2)
    assert ours["heads"] == 3 * (2 * 12 * 768 * (768 + 30522) + pooled)
    assert peer["heads"] == 3 * (2 * 80 * 768 * (768 + 30522) + pooled)
    # Without experts for pairs the rows of texts and images go apart, and all are computed.
    apart = replace(config, transformer=replace(config.transformer, pair_layers=0))
    assert flops.vlmo_step(apart, 2, 40, 12)["blocks"] == peer["blocks"]


def test_semvlp_and_visualbert_by_hand():
    config = model_config("semvlp_base")
    single, two = (flops.semvlp_step(config, mode, 2, 20, 6) for mode in ("single", "two"))
    peer = flops.visualbert_step(config, 2, 20)
    # 20 tokens and 100 objects; our rows have [IMG] too, and a box beside each feature.
    weights, attention = 2 * 12 * 768**2, 4 * 768
    assert single["blocks"] == 3 * 2 * 12 * (121 * weights + attention * 121**2)
    assert peer["blocks"] == 3 * 2 * 12 * (120 * weights + attention * 120**2)
    # Six layers with cross-attention: queries and output of 101 objects, keys and values of 20 tokens.
    cross = 2 * 2 * 768**2 * (101 + 20) + attention * 101 * 20
    apart = 121 * weights + attention * (20**2 + 101**2)
    assert two["blocks"] == 3 * 2 * (12 * apart + 6 * cross)
    assert single["regions"] == two["regions"] == 3 * 2 * 100 * 2 * 2052 * 768
    assert peer["regions"] == 3 * 2 * 100 * 2 * 2048 * 768
    pooled = 2 * (2 * 768**2 + 2 * 768 * 2)
    assert single["heads"] == two["heads"] == 3 * (2 * 6 * 768 * (768 + 30522) + pooled)
    assert peer["heads"] == 3 * (2 * 240 * 768 * (768 + 30522) + pooled)
