"""tools/convert_checkpoint.py as a command."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import released_unimo
import yaml
from bridgetower_names import released_shapes
from released_folder import projections, random_release, write_folder
from safetensors.numpy import save_file
from seeded_weights import seeded

import unimo
from unimo.data.tokenizers import load_tokenizer
from unimo.nn.config import TextConfig
from unimo.nn.towers import RobertaTower
from unimo.weights.files import read_safetensors
from unimo.weights.layers import load_tower

ROOT = Path(__file__).resolve().parents[3]
ASSETS = ROOT / "tests" / "assets"


@pytest.fixture
def convert(tool, root, monkeypatch, caplog):
    """Run the tool in this process, in the folder of the checkout; its log counts as standard error."""
    monkeypatch.chdir(root)
    caplog.set_level("INFO", logger="unimo")

    def run(*words):
        code, out, err = tool("convert_checkpoint", *words)
        return SimpleNamespace(returncode=code, stdout=out, stderr=err + caplog.text)

    return run


def test_writes_a_folder_that_a_tower_reads(convert, tmp_path):
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
    sizes = {"hidden_size": 32, "num_layers": 3, "num_heads": 4, "intermediate_size": 64}
    tower = RobertaTower(TextConfig(**sizes, vocab_size=120, max_position=26))
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
        ("hf-clip", "hf_clip_vit_tiny/model.safetensors", "none.json", "cannot read"),
        ("hf-roberta", "torch_files/legacy.pth", "hf_roberta_tiny/config.json", "weights_only=True"),
        ("hf-roberta", "torch_files/module.pt", "hf_roberta_tiny/config.json", "it asks for __main__.Net"),
        ("hf-clip", "hf_clip_vit_tiny/model.safetensors", "make_hf_reference.py", "not valid JSON"),
        (
            "hf-clip",
            "hf_clip_vit_tiny/model.safetensors",
            "hf_roberta_tiny/config.json",
            "lacks image_size",
        ),
    ],
)
def test_mistakes_end_with_code_2_and_write_nothing(convert, tmp_path, source, weights, config, message):
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


def test_a_released_model_becomes_a_model_directory(convert, tmp_path):
    theirs = random_release(load_tokenizer("scenes").vocab_size)
    folder, out = write_folder(tmp_path / "UNIMO-2", theirs), tmp_path / "out"
    words = ("--from", "unimo2-release", "--input", folder, "--tokenizer", "scenes", "--out", out)
    done = convert(*words)
    assert done.returncode == 0, done.stderr
    taken = {
        name: value for name, value in theirs.items() if not name.startswith(("cmcl", "grounded.mask_g"))
    }
    count = sum(value.size for value in taken.values()) + theirs["text.word_embedding"].size  # written twice
    assert f"model, {count:,} released parameters in" in done.stdout
    assert "4 files of optimizer" in done.stderr and "left out: cmcl_temperature" in done.stderr
    assert "starting at random: objective.vcl_head.dense.weight" in done.stderr
    model, _ = unimo.load(out)
    assert np.array_equal(model.grounding.dictionary.numpy(), theirs["vq_emb"])


def test_what_tensors_do_not_show_is_read_or_given(convert, tmp_path):
    """Heads from the config of the release, K and options from the command line, which wins."""
    theirs = random_release(load_tokenizer("scenes").vocab_size) | projections()
    folder, out = write_folder(tmp_path / "UNIMO-2", theirs), tmp_path / "out"
    config = tmp_path / "grounded.json"
    config.write_text('{"num_attention_heads": 4}')
    words = ("--from", "unimo2-release", "--input", folder, "--tokenizer", "scenes", "--config", config)
    given = ("model.grounding.num_tokens=30", "model.grounding.project=true", "model.vision.num_heads=8")
    done = convert(*words, "--out", out, *given)
    assert done.returncode == 0, done.stderr
    assert "grounding_patch_projection" not in done.stderr
    model, _ = unimo.load(out)
    parts = (model.config.text, model.config.vision, model.config.fusion)
    assert [part.num_heads for part in parts] == [4, 8, 4]
    assert model.config.grounding.num_tokens == 30
    for ours, name in ((model.text_projection, "token"), (model.image_projection, "patch")):
        expected = theirs[f"grounded.grounding_{name}_projection.w_0"]
        assert np.array_equal(ours.weight.numpy(), expected)
    config.write_text('{"heads": 4}')
    done = convert(*words, "--out", out)
    assert done.returncode == 2
    assert "expected a number num_attention_heads, found None" in done.stderr


def test_a_released_unimo_becomes_the_model_directory_of_its_task(convert, tmp_path):
    theirs = released_unimo.random_release(load_tokenizer("scenes").vocab_size)
    folder, out = write_folder(tmp_path / "unimo_base_en", theirs), tmp_path / "out"
    words = ("--from", "unimo-release", "--input", folder, "--tokenizer", "scenes", "--task", "entailment")
    done = convert(*words, "--out", out, "data.regions=grid:2:2", "data.max_text_len=32")
    assert done.returncode == 0, done.stderr
    left = ("mask_lm", "cls_out_2")
    count = sum(value.size for name, value in theirs.items() if not name.startswith(left))
    assert f"model, {count:,} released parameters in" in done.stdout
    content = yaml.safe_load((out / "config.yaml").read_text())
    assert (content["task"]["name"], content["data"]["regions"]) == ("entailment", "grid:2:2")
    stored = read_safetensors(out / "model.safetensors")
    assert np.array_equal(stored["classifier.out.weight"], theirs["cls_out_w_1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--from", "unimo2-release", "--input", "none", "--tokenizer", "scenes"),
            "weights none: No such file",
        ),
        (
            ("--from", "unimo2-release", "--input", "none", "--tokenizer", "no_words"),
            "no tokenizer in no_words",
        ),
        (("--from", "unimo2-release", "--input", "tools", "--tokenizer", "scenes"), "has format version"),
        (("--from", "unimo2-release", "--input", "none"), "unimo2-release needs --tokenizer; see --help"),
        (("--from", "hf-vit", "--input", "none", "--tokenizer", "scenes"), "hf-vit makes a tower"),
        (
            ("--from", "hf-vit", "--input", "none", "--config", "none", "--task", "vqa"),
            "hf-vit makes a tower",
        ),
        (
            ("--from", "unimo-release", "--input", "none", "--tokenizer", "scenes"),
            "weights none: No such file",
        ),
    ],
)
def test_mistakes_about_releases_end_with_code_2_and_write_nothing(convert, tmp_path, words, message):
    done = convert(*words, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_shows_an_example(convert):
    assert "convert_checkpoint.py --input roberta-base --out" in convert("--help").stdout


def test_a_folder_is_recognised_and_the_report_says_what_came_of_it(convert, tmp_path):
    done = convert("--input", ASSETS / "hf_clip_vit_tiny", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out'}: clip_vit tower, ") and lines[0].endswith("from hf-clip")
    assert [line.split()[0] for line in lines[1:]] == ["loaded", "initialised", "left", "resized", "sha256"]


def test_a_release_resizes_and_starts_at_random_what_it_is_told_to(convert, tmp_path):
    """A head without its bias, and images larger than those of the release."""
    shapes = {"width": 64, "depth": 2, "fusion": 2, "grid": 2, "patch": 8, "words": len_of("scenes")}
    theirs = seeded(released_shapes("meter", **shapes))
    theirs.pop("mlm_score.bias")
    save_file(theirs, tmp_path / "meter.safetensors")
    words = ("--input", tmp_path / "meter.safetensors", "--tokenizer", "scenes", "--out", tmp_path / "out")
    done = convert(*words)
    assert done.returncode == 2 and "1 missing: mlm_score.bias" in done.stderr
    assert not (tmp_path / "out").exists()
    done = convert(*words, "--allow-missing", "mlm_score.b*", "model.vision.image_size=32")
    assert done.returncode == 0, done.stderr
    assert "from meter" in done.stdout and "objective.mlm_head.decoder.bias" in done.stdout
    assert "resized      1: model.vision.position_embedding [5, 64] -> [17, 64]" in done.stdout


def len_of(tokenizer):
    return load_tokenizer(tokenizer).vocab_size
