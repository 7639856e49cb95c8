"""Models and towers written for transformers: what is read back is what was written, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micro import saved
from micro_unimo import UNIMO
from micro_unimo2 import MODEL as UNIMO2
from safetensors import safe_open
from tokenizers import Tokenizer

from unimo.data.processor import Processor, ProcessorConfig
from unimo.errors import CapabilityError, CheckpointError
from unimo.inference.loading import load
from unimo.inference.to_transformers import _images, targets, write_transformers
from unimo.models.unimo3.convert import HF_BRIDGETOWER, from_release
from unimo.weights.files import read_safetensors
from unimo.weights.huggingface import convert_tower
from unimo.weights.layers import tensors_of
from unimo.weights.to_huggingface import PORTS

WEIGHTS = "model.safetensors"
_TOWER = {"hidden_size": 64, "num_layers": 3, "num_heads": 1, "intermediate_size": 256}
BRIDGETOWER: dict[str, Any] = {
    "name": "bridgetower_tiny",
    "text": {**_TOWER, "vocab_size": 300, "pooler": True},
    "vision": {**_TOWER, "image_size": 32},
    "fusion": {**_TOWER, "num_layers": 2, "epsilon": 1e-5},
}
MODELS: dict[str, dict[str, Any]] = {
    "unimo": UNIMO,
    "unimo2": {"model": UNIMO2},
    "meter": {"model": {"name": "meter_tiny", "text": _TOWER | {"vocab_size": 300}}},
    "bridgetower": {"model": BRIDGETOWER},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: saved("vqa", folder / name, **changes) for name, changes in MODELS.items()}


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("unimo", "hf-roberta", "transformer"),
        ("unimo2", "hf-roberta", "text"),
        ("unimo2", "hf-vit", "vision"),
        ("meter", "hf-roberta", "text"),
        ("meter", "hf-clip", "vision"),
    ],
)
def test_a_tower_of_a_model_goes_there_and_back(
    models: dict[str, Path], name: str, kind: str, part: str, tmp_path: Path
) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    done = write_transformers(kind, models[name], out)
    content = json.loads((out / "config.json").read_text())
    assert [done["class"]] == content["architectures"]
    with safe_open(out / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
    convert_tower(kind, out, None, back)
    tower = read_safetensors(back / WEIGHTS)
    ours = tensors_of(getattr(load(models[name])[0], part))
    assert set(tower) - set(ours) <= {"embeddings.token_type.weight"}
    assert all(np.array_equal(tower[key], ours[key]) for key in ours)
    assert not any(tower[key].any() for key in set(tower) - set(ours))
    files = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    files = files if kind == "hf-roberta" else {"preprocessor_config.json"}
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"} | files
    again = tmp_path / "again"
    write_transformers(kind, back, again)
    theirs = read_safetensors(again / "model.safetensors")
    assert all(np.array_equal(theirs[key], x) for key, x in read_safetensors(out / WEIGHTS).items())
    assert json.loads((again / "config.json").read_text()) == content


@pytest.mark.parametrize("task", ["pretrain", "vqa"])
def test_a_bridgetower_goes_there_and_back(task: str, tmp_path: Path) -> None:
    model = saved(task, tmp_path, model=BRIDGETOWER)
    out = tmp_path / "out"
    done = write_transformers("hf-bridgetower", model, out)
    theirs, ours = read_safetensors(out / WEIGHTS), read_safetensors(model / WEIGHTS)
    found = from_release(HF_BRIDGETOWER, theirs, "out", "pretrain", {})
    kept = {name for name in ours if name.startswith(("model.", "objective.mlm_head", "objective.itm_head"))}
    assert found.tensors.keys() == kept
    assert all(np.array_equal(found.tensors[name], ours[name]) for name in kept)
    content = json.loads((out / "config.json").read_text())
    config = load(model)[0].config
    assert found.config.vision.image_size == content["vision_config"]["image_size"] == 32
    assert (found.config.fusion.epsilon, content["layer_norm_eps"]) == (config.fusion.epsilon, 1e-5)
    assert done["class"].startswith("BridgeTowerForMaskedLM" if task == "pretrain" else "BridgeTowerModel")
    assert all(name.startswith("bridgetower.") or task == "vqa" or "_score." in name for name in theirs)


def test_tokenizer_and_images_are_prepared_as_here(models: dict[str, Path], tmp_path: Path) -> None:
    write_transformers("hf-bridgetower", models["bridgetower"], tmp_path / "out")
    ours = load(models["bridgetower"])[1]
    theirs = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert theirs.encode("a red circle").ids == ours.ids("a red circle")
    pair = theirs.encode("a red circle", "left").tokens
    assert pair == ["<s>", "a", "red", "circle", "</s>", "</s>", "left", "</s>"]
    images = json.loads((tmp_path / "out/preprocessor_config.json").read_text())
    assert images["crop_size"] == {"height": 32, "width": 32} and images["image_mean"][0] == 0.48145466
    assert images["size"] == {"shortest_edge": 32}
    of_beit = Processor(ours.tokenizer, ProcessorConfig(image_size=224, eval_transform="beit"))
    assert _images(of_beit)["size"] == {"shortest_edge": 256}


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("meter", "hf-bridgetower", "meter_tiny is not what transformers.*link_range=bridge.*heads of 64"),
        ("unimo", "hf-bridgetower", "unimo_tiny is no model for hf-bridgetower; those are: unimo3_base"),
        ("unimo", "hf-clip", "no clip_vit tower for hf-clip; towers that it has: roberta"),
        ("unimo", "hf-gpt", "nothing is written as 'hf-gpt'"),
    ],
)
def test_what_is_no_such_model_is_refused(
    models: dict[str, Path], name: str, kind: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CapabilityError, match=message):
        write_transformers(kind, models[name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_patches_that_are_padded_are_refused(tmp_path: Path) -> None:
    model = {**UNIMO2, "vision": UNIMO2["vision"] | {"patch_padding": 7}}
    with pytest.raises(CapabilityError, match="pads its patches"):
        write_transformers("hf-vit", saved("vqa", tmp_path, model=model), tmp_path / "out")


def test_the_tool_replaces_what_it_wrote_and_nothing_else(
    models: dict[str, Path], tool: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("--input", models["meter"], "--out", out)
    assert tool("convert_checkpoint", *words, "--to", "hf-roberta")[0] == 0
    code, text, _ = tool("convert_checkpoint", *words, "--to", "hf-clip")
    assert code == 0 and "CLIPVisionModel" in text
    assert not (out / "tokenizer.json").exists()
    (out / "config.json").unlink()
    code, _, error = tool("convert_checkpoint", *words, "--to", "hf-clip")
    assert code == 2 and "is not a folder of transformers" in error
    code, _, error = tool("convert_checkpoint", *words, "--to", "hf-clip", "--task", "vqa")
    assert code == 2 and "takes --input and --out alone" in error
    with pytest.raises(CheckpointError, match="no model directory"):
        write_transformers("hf-clip", tmp_path / "absent", tmp_path / "other")
    assert set(targets()) == {*PORTS, "hf-bridgetower"}
