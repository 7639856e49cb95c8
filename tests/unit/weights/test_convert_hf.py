"""Hugging Face towers: parity with stored hidden states, and the name maps as inverse pairs."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import paddle
import pytest

from unimo.errors import CheckpointError, ConfigError
from unimo.nn.config import ClipVisionConfig, TextConfig, VitConfig
from unimo.nn.towers import ClipVisionTower, RobertaTower, VitTower
from unimo.weights import huggingface
from unimo.weights.files import read_safetensors
from unimo.weights.huggingface import CLIP_VISION, ROBERTA, VIT, from_hf, read_sizes
from unimo.weights.layers import load_into, tensors_of
from unimo.weights.to_huggingface import PORTS, hf_config, read_tower_sizes, to_hf

ASSETS = Path(__file__).resolve().parents[2] / "assets"
TOLERANCE = 1e-4


def stored(kind: str):
    folder = ASSETS / f"hf_{kind}_tiny"
    config = json.loads((folder / "config.json").read_text())
    weights = read_safetensors(folder / "model.safetensors")
    return config, weights, read_safetensors(folder / "reference.safetensors")


def text_tower(sizes, pooler=False):
    tower = RobertaTower(TextConfig(**sizes), pooler=pooler)
    tower.eval()
    return tower


def vision_tower(sizes, image_size=None, kind=ClipVisionTower):
    config = VitConfig if kind is VitTower else ClipVisionConfig
    tower = kind(config(**{**sizes, "image_size": image_size or sizes["image_size"]}))
    tower.eval()
    return tower


def test_roberta_hidden_states_at_every_layer_with_padding():
    config, weights, reference = stored("roberta")
    sizes = read_sizes(ROBERTA, config)
    tower = text_tower(sizes)
    load_into(tower, from_hf(ROBERTA, weights, sizes), "stored")
    mask = reference["attention_mask"]
    assert 0 < mask.sum() < mask.size
    states, _ = tower(paddle.to_tensor(reference["input_ids"]), paddle.to_tensor(mask))
    assert len(states) == 4
    for number, state in enumerate(states):
        difference = np.abs(state.numpy() - reference[f"hidden.{number}"])[mask == 1]
        assert difference.max() < TOLERANCE, f"layer {number}"


@pytest.mark.parametrize("image_size", [32, 48])
def test_clip_hidden_states_at_every_layer_and_a_second_resolution(image_size):
    config, weights, reference = stored("clip_vit")
    sizes = read_sizes(CLIP_VISION, config)
    tower = vision_tower(sizes, image_size)
    load_into(tower, from_hf(CLIP_VISION, weights, sizes), "stored")
    states, _ = tower(paddle.to_tensor(reference[f"{image_size}.pixels"]))
    assert len(states) == 4
    for number, state in enumerate(states):
        difference = np.abs(state.numpy() - reference[f"{image_size}.hidden.{number}"])
        assert difference.max() < TOLERANCE, f"layer {number}"
    last = tower.ln_post(states[-1]).numpy()
    assert np.abs(last - reference[f"{image_size}.post_layernorm"]).max() < TOLERANCE


def test_vit_hidden_states_at_every_layer():
    config, weights, reference = stored("vit")
    sizes = read_sizes(VIT, config)
    tower = vision_tower(sizes, kind=VitTower)
    load_into(tower, from_hf(VIT, weights, sizes), "stored")
    states, _ = tower(paddle.to_tensor(reference["pixels"]))
    assert len(states) == 3
    for number, state in enumerate(states[:-1]):
        assert np.abs(state.numpy() - reference[f"hidden.{number}"]).max() < TOLERANCE, f"layer {number}"
    last = tower.ln_post(states[-1]).numpy()
    assert np.abs(last - reference["post_layernorm"]).max() < TOLERANCE


@pytest.mark.parametrize("size", [(40, 40), (24, 48), (40, 16)], ids=lambda size: "{}x{}".format(*size))
@pytest.mark.parametrize("kind", ["clip_vit", "vit"])
def test_states_on_images_of_another_size_or_no_square(kind, size):
    """Height before width; positions are resized in the pass."""
    config, weights, _ = stored(kind)
    reference = read_safetensors(ASSETS / f"hf_{kind}_tiny/other_images.safetensors")
    source, make = {"clip_vit": (CLIP_VISION, ClipVisionTower), "vit": (VIT, VitTower)}[kind]
    sizes, key = read_sizes(source, config), "{}x{}".format(*size)
    tower = vision_tower(sizes, kind=make)
    load_into(tower, from_hf(source, weights, sizes), "stored")
    states, _ = tower(paddle.to_tensor(reference[f"{key}.pixels"]))
    layers = [name for name in reference if name.startswith(f"{key}.hidden")]
    assert len(layers) == len(states) - (kind == "vit")
    for number in range(len(layers)):
        difference = np.abs(states[number].numpy() - reference[f"{key}.hidden.{number}"])
        assert difference.max() < TOLERANCE, f"layer {number}"
    last = tower.ln_post(states[-1]).numpy()
    assert np.abs(last - reference[f"{key}.post_layernorm"]).max() < TOLERANCE


@pytest.mark.parametrize("kind", ["roberta", "clip_vit", "vit"])
def test_there_and_back_is_the_identity(kind):
    source = {"roberta": ROBERTA, "clip_vit": CLIP_VISION, "vit": VIT}[kind]
    sizes = read_sizes(source, stored(kind)[0])
    paddle.seed(0)
    vision = VitTower if kind == "vit" else ClipVisionTower
    tower = text_tower(sizes, pooler=True) if kind == "roberta" else vision_tower(sizes, kind=vision)
    ours = {
        name: np.random.default_rng(0).random(a.shape, np.float32) for name, a in tensors_of(tower).items()
    }
    port = next(port for port in PORTS.values() if port.source is source)
    assert read_tower_sizes(port, ours, sizes["num_heads"]) == sizes
    theirs = to_hf(port, ours, sizes)
    assert all(name.startswith(port.prefix) for name in theirs)
    assert read_sizes(source, hf_config(port, sizes)) == sizes
    back = from_hf(source, theirs, sizes)
    assert back.keys() == ours.keys()
    assert all(np.array_equal(back[name], ours[name]) for name in ours)


@pytest.mark.parametrize(("kind", "source"), [("clip_vit", CLIP_VISION), ("vit", VIT)])
def test_to_hf_gives_back_the_stored_file(kind, source):
    config, weights, _ = stored(kind)
    sizes = read_sizes(source, config)
    port = next(port for port in PORTS.values() if port.source is source)
    again = to_hf(port, from_hf(source, weights, sizes), sizes)
    bare = {port.prefix + name.removeprefix(source.prefix): value for name, value in weights.items()}
    weights = {name: value for name, value in bare.items() if "classifier." not in name}
    assert again.keys() == weights.keys()
    assert all(np.array_equal(again[name], weights[name]) for name in weights)


def test_prefix_is_optional_and_what_lies_around_is_left_out(caplog):
    config, weights, _ = stored("roberta")
    sizes = read_sizes(ROBERTA, config)
    bare = {name.removeprefix("roberta."): tensor for name, tensor in weights.items()}
    with caplog.at_level("INFO", logger="unimo"):
        ours = from_hf(ROBERTA, bare, sizes)
    assert ours.keys() == from_hf(ROBERTA, weights, sizes).keys()
    assert "lm_head.bias" in caplog.text and "embeddings.position_ids" in caplog.text
    assert not any(name.startswith(("pooler", "lm_head")) for name in ours)


def test_clip_file_with_both_towers():
    config, weights, _ = stored("clip_vit")
    both = {**weights, "text_model.final_layer_norm.bias": np.zeros(4), "logit_scale": np.zeros(())}
    sizes = read_sizes(CLIP_VISION, {"model_type": "clip", "vision_config": config})
    assert from_hf(CLIP_VISION, both, sizes).keys() == from_hf(CLIP_VISION, weights, sizes).keys()


def test_missing_and_unknown_tensors_are_all_named():
    config, weights, _ = stored("clip_vit")
    sizes = read_sizes(CLIP_VISION, config)
    weights["vision_model.adapter.weight"] = weights.pop("vision_model.pre_layrnorm.bias")
    with pytest.raises(CheckpointError, match=r"pre_layrnorm.bias.*vision_model.adapter.weight"):
        from_hf(CLIP_VISION, weights, sizes)


def test_more_layers_in_the_file_than_the_config_says():
    config, weights, _ = stored("roberta")
    sizes = read_sizes(ROBERTA, {**config, "num_hidden_layers": 2})
    with pytest.raises(CheckpointError, match=r"16 unknown: roberta.encoder.layer.2.attention"):
        from_hf(ROBERTA, weights, sizes)


def test_config_of_another_file():
    config, weights, _ = stored("roberta")
    with pytest.raises(
        CheckpointError, match=r"embeddings.word.weight should be \[50265, 32\], is \[120, 32\]"
    ):
        from_hf(ROBERTA, weights, read_sizes(ROBERTA, {**config, "vocab_size": 50265}))


def test_config_that_the_tower_cannot_reproduce():
    config = stored("clip_vit")[0]
    with pytest.raises(ConfigError, match="hidden_act = 'gelu'.*only 'quick_gelu'"):
        read_sizes(CLIP_VISION, {**config, "hidden_act": "gelu"})
    for source, epsilon in ((ROBERTA, 1e-12), (CLIP_VISION, 1e-6), (VIT, 1e-6)):
        kind = source.tower
        with pytest.raises(ConfigError, match=f"layer_norm_eps = {epsilon}; the {kind} tower knows only"):
            read_sizes(source, {**stored(kind)[0], "layer_norm_eps": epsilon})
    with pytest.raises(ConfigError, match="lacks image_size, patch_size"):
        read_sizes(CLIP_VISION, {"hidden_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1})


@pytest.mark.parametrize("file", ["config.yaml", "model.safetensors"])
@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_no_half_tower(tmp_path, monkeypatch, file, before):
    folder, assets = tmp_path / "out" / "tower", ASSETS / "hf_vit_tiny"
    words = ("hf-vit", assets / "model.safetensors", assets / "config.json", folder)
    if before:
        huggingface.convert_tower(*words)
    there = {path: path.read_bytes() for path in folder.rglob("*")} if before else {}
    original = os.fsync

    def fsync(descriptor):
        if f".{file}." in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CheckpointError, match="No space left"):
        huggingface.convert_tower(*words)
    assert {path: path.read_bytes() for path in folder.rglob("*")} == there
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tower"] * before
