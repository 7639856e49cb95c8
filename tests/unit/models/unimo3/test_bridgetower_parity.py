"""A converted port of BridgeTower computes what transformers does, in every layer and every head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from bridgetower_names import hf_bridgetower, released_shapes
from seeded_weights import seeded

from unimo.config import merge_into
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import ConfigError
from unimo.inference.loading import load_task
from unimo.inference.release import convert_release
from unimo.models.unimo3 import PAPER
from unimo.registry import build_model, task_class, task_config
from unimo.weights.files import read_safetensors, write_safetensors
from unimo.weights.layers import load_into

STATES = Path(__file__).resolve().parents[3] / "assets" / "hf_bridgetower_states.safetensors"
GIVEN = {part: {"num_heads": 2} for part in ("text", "fusion")}


@pytest.fixture(scope="module")
def states() -> dict[str, np.ndarray]:
    return read_safetensors(STATES)


def converted(task: str, **given: dict):
    found = PAPER.converters["hf-bridgetower"](hf_bridgetower(), "the file", task, GIVEN | given)
    options = merge_into(task_config(task, found.config.name), found.task, "task")
    made = task_class(task).create(build_model(found.config), options, {})
    load_into(made, found.tensors, "the file")
    made.eval()
    return made


def encoded(model, states: dict[str, np.ndarray]):
    ids, mask, pixels = (
        paddle.to_tensor(states[name]) for name in ("input_ids", "attention_mask", "pixel_values")
    )
    return model.encode_text(ids, mask, layers=True), model.encode_image(pixels, layers=True)


def close(found: paddle.Tensor, expected: np.ndarray, mask: np.ndarray | None = None) -> None:
    difference = np.abs(found.numpy() - expected)
    assert difference.shape == expected.shape
    assert difference[... if mask is None else mask == 1].max() < 1e-4 < np.abs(expected).max() / 1000


def test_states_of_every_layer_and_logits_of_words_and_matching(states: dict[str, np.ndarray]) -> None:
    task, mask = converted("pretrain"), states["attention_mask"]
    assert 0 < mask.sum() < mask.size
    model, fusion = task.model, {}
    for stream in ("text", "image"):
        for number, layer in enumerate(getattr(model.fusion, f"{stream}_layers")):
            key = f"fusion.{stream}.{number}"
            layer.register_forward_post_hook(lambda _, __, out, key=key: fusion.__setitem__(key, out[0]))
    with paddle.no_grad():
        text, image = encoded(model, states)
        fused = model.fuse(text, image)
        words, matching = task.objective.mlm_head(fused.fused_text), task.objective.itm_head(fused.pooled)
    for kind, layers, read in (("text", text.text_layers, mask), ("image", image.image_layers, None)):
        assert len(layers) == 5
        for number, layer in enumerate(layers):
            close(layer, states[f"{kind}.{number}"], read)
    assert len(fusion) == 4
    for key, layer in fusion.items():
        close(layer, states[key], mask if "text" in key else None)
    close(fused.pooled, states["pooled"])
    close(words, states["mlm"], mask)
    close(matching, states["itm"])


def test_logits_of_contrast(states: dict[str, np.ndarray]) -> None:
    task = converted("retrieval")
    with paddle.no_grad():
        text, image = encoded(task.model, states)
        of_texts, of_images = task.text_vectors(text), task.image_vectors(image)
        logits = paddle.matmul(of_texts, of_images, transpose_y=True) / task.sigma()
        matching = task.match_logits(text, image)
    close(of_texts, states["itc.text"])
    close(of_images, states["itc.image"])
    close(logits, states["itc"])
    close(matching, states["itm"])


def test_vectors_of_the_port_are_those_that_hard_negatives_contrast() -> None:
    """Their images are projected: the head for images has the width of fusion."""
    config = converted("retrieval").model.config
    narrow = merge_into(config, {"fusion": {"hidden_size": 32}, "objective": {"itm_negatives": "hard"}}, "")
    made = task_class("pretrain").create(build_model(narrow), task_config("pretrain", narrow.name), {})
    assert made.objective.itc_image_head.dense.weight.shape == [32, 256]
    assert made.model.image_vector(made.model.encode_image(paddle.randn([1, 3, 32, 32]))).shape == [1, 32]


def folder_of_the_port(folder: Path, heads: int = 2) -> Path:
    """A folder as transformers saves it; it has no number of heads of the vision tower, which are 64 wide."""
    sizes = {"hidden_size": 64, "num_attention_heads": heads}
    vision = {"hidden_size": 64, "image_size": 32, "patch_size": 8}
    config = {"model_type": "bridgetower", **sizes, "text_config": sizes, "vision_config": vision}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    words = load_tokenizer("scenes").vocab_size
    shapes = released_shapes("hf-bridgetower", 64, 4, 2, 4, patch=8, words=words)
    write_safetensors(folder / "model.safetensors", seeded(shapes))
    return folder


def test_a_folder_is_converted_with_the_heads_of_its_config(tmp_path: Path) -> None:
    convert_release("hf-bridgetower", folder_of_the_port(tmp_path / "in"), "scenes", tmp_path / "out")
    config = load_task(tmp_path / "out")[0].model.config
    assert [part.num_heads for part in (config.text, config.vision, config.fusion)] == [2, 1, 2]


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_heads"):
        convert_release("hf-bridgetower", folder_of_the_port(tmp_path / "in", 7), "scenes", tmp_path / "out")
    assert not (tmp_path / "out").exists()
