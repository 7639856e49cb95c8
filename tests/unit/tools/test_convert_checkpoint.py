"""tools/convert_checkpoint.py as a command."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from unimo.nn.text_encoder import RobertaTower
from unimo.weights import load_tower, read_safetensors

ROOT = Path(__file__).resolve().parents[3]
ASSETS = ROOT / "tests" / "assets"


def convert(*words):
    command = [sys.executable, "tools/convert_checkpoint.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_writes_a_folder_that_a_tower_reads(tmp_path):
    folder = ASSETS / "hf_roberta_tiny"
    out = tmp_path / "weights" / "text"
    words = (
        "--from",
        "hf-roberta",
        "--input",
        folder / "model.safetensors",
        "--config",
        folder / "config.json",
    )
    done = convert(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "lm_head.bias" in done.stderr  # what was left out is said
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["tower"], config["hidden_size"], config["num_layers"]) == ("roberta", 32, 3)
    tower = RobertaTower(32, 3, 4, 64, vocab_size=120, max_position=26)
    load_tower(tower, out)
    theirs = read_safetensors(folder / "model.safetensors")
    for part, name in enumerate(("query", "key", "value")):
        expected = theirs[f"roberta.encoder.layer.2.attention.self.{name}.weight"].T
        found = tower.layers[2].attention.qkv.weight.numpy()[:, 32 * part : 32 * (part + 1)]
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("source", "weights", "config", "message"),
    [
        ("hf-roberta", "hf_clip_vit_tiny/model.safetensors", "hf_roberta_tiny/config.json", "53 missing"),
        (
            "hf-roberta",
            "hf_roberta_tiny/config.json",
            "hf_roberta_tiny/config.json",
            "truncated or not a safetensors",
        ),
        ("hf-roberta", "none.safetensors", "hf_roberta_tiny/config.json", "cannot read weights"),
        ("hf-roberta", "pytorch_model.bin", "hf_roberta_tiny/config.json", "is a pickle"),
        ("hf-clip-vit", "hf_clip_vit_tiny/model.safetensors", "none.json", "cannot read"),
        ("hf-clip-vit", "hf_clip_vit_tiny/model.safetensors", "make_hf_reference.py", "not valid JSON"),
        (
            "hf-clip-vit",
            "hf_clip_vit_tiny/model.safetensors",
            "hf_roberta_tiny/config.json",
            "lacks image_size",
        ),
    ],
)
def test_mistakes_end_with_code_2_and_write_nothing(tmp_path, source, weights, config, message):
    words = (
        "--from",
        source,
        "--input",
        ASSETS / weights,
        "--config",
        ASSETS / config,
        "--out",
        tmp_path / "out",
    )
    done = convert(*words)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_shows_an_example():
    assert "--from hf-roberta --input roberta-base/model.safetensors" in convert("--help").stdout
