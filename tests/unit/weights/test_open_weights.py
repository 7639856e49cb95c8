"""Weights as users have them: folders, shards and files; their kind is recognised and the result reported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from beit_names import random_beit, to_hugging_face
from bridgetower_names import released_shapes
from safetensors.numpy import save_file
from vlmo_names import released_shapes as vlmo_shapes

from unimo.errors import CheckpointError, ConfigError
from unimo.inference.release import releases
from unimo.nn.config import ClipVisionConfig, TextConfig
from unimo.nn.towers import ClipVisionTower, RobertaTower
from unimo.weights.files import open_tensors, read_safetensors, read_tensors, write_safetensors
from unimo.weights.huggingface import CLIP_VISION, SOURCES, convert_tower
from unimo.weights.layers import load_tower
from unimo.weights.name_map import expand, split
from unimo.weights.recognise import recognise
from unimo.weights.report import grouped

ASSETS = Path(__file__).resolve().parents[2] / "assets"
ROBERTA, CLIP = ASSETS / "hf_roberta_tiny", ASSETS / "hf_clip_vit_tiny"


def shard(source: Path, folder: Path) -> Path:
    """Write the tensors of a folder into two files with an index, as Hugging Face does with large ones."""
    tensors = read_safetensors(source / "model.safetensors")
    folder.mkdir()
    shutil.copy(source / "config.json", folder)
    names, where = list(tensors), {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_folder_of_shards_gives_what_the_whole_file_gives(tmp_path: Path) -> None:
    folder = shard(ROBERTA, tmp_path / "sharded")
    whole = read_tensors(ROBERTA / "model.safetensors")
    for place in (folder, folder / "model.safetensors.index.json"):
        found = read_tensors(place)
        assert found.keys() == whole.keys()
        assert all(np.array_equal(found[name], whole[name]) for name in whole)
    (folder / "vocab.json").write_text("{}")
    done = convert_tower("hf-roberta", folder, None, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer" / "vocab.json").read_text() == "{}"
    assert done.loaded + len(done.left_over) == len(whole)
    convert_tower("hf-roberta", ROBERTA / "model.safetensors", None, tmp_path / "again")
    assert done.text().splitlines()[-1] == f"sha256       {digest(tmp_path / 'again')}  model.safetensors"


def digest(folder: Path) -> str:
    done = subprocess.run(["sha256sum", folder / "model.safetensors"], capture_output=True, text=True)
    return done.stdout.split()[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": "../model.safetensors"}, "which is not beside it"),
        ({"x": "none.safetensors"}, "names the file none.safetensors, which is not beside it"),
        ({"x": "model-00000-of-00002.safetensors"}, "lacks 1 tensors that model.safetensors.index.json says"),
        ({"x": 3}, "expected a weight_map of tensors and files"),
    ],
)
def test_an_index_that_does_not_fit(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = shard(ROBERTA, tmp_path / "sharded")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] |= change
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        open_tensors(folder)


def test_folders_without_weights_or_with_several(tmp_path: Path) -> None:
    shutil.copy(ROBERTA / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="has a config.json and no weights; expected one of model.safe"):
        open_tensors(tmp_path)
    for name in ("a.ckpt", "b.ckpt"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match="several files of weights: a.ckpt, b.ckpt; give one"):
        open_tensors(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(CheckpointError, match="is an archive; unpack it"):
        open_tensors(tmp_path / "a.tar.gz")


def lying(entries: dict[str, tuple[list[int], int, int]], size: int) -> bytes:
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
        for name, (shape, begin, end) in entries.items()
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


@pytest.mark.parametrize(
    "content",
    [
        lying({"a": ([2], 0, 8), "b": ([2], 4, 12)}, 12),
        lying({"a": ([2], 0, 8), "b": ([2], 8, 16)}, 12),
        lying({"a": ([2], 0, 8)}, 64),
        lying({"a": ([3], 0, 8)}, 8),
        lying({"a": ([2], 8, 0)}, 8),
        (1 << 62).to_bytes(8, "little") + b"{}",
        (1 << 27).to_bytes(8, "little") + b"{}",
    ],
    ids=["overlap", "behind the end", "not covered", "shape", "turned", "endless header", "long header"],
)
def test_lying_headers_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="a.safetensors is truncated or not a safetensors file"):
        open_tensors(tmp_path / "a.safetensors")


def to_openai(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a tower of Hugging Face's CLIP under OpenAI's names, with parts of the text tower."""
    names = {
        "vision_model.": "visual.",
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding": "conv1",
        "embeddings.position_embedding.weight": "positional_embedding",
        "pre_layrnorm": "ln_pre",
        "post_layernorm": "ln_post",
        "encoder.layers": "transformer.resblocks",
        "self_attn": "attn",
        "layer_norm": "ln_",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    theirs = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        theirs[name] = tensor
    for name in [name for name in theirs if ".q_proj." in name]:
        parts = [theirs.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        theirs[name.replace("q_proj.", "in_proj_")] = np.concatenate(parts)
    rest = {
        "positional_embedding": np.zeros((7, 4)),
        "visual.proj": np.zeros((2, 2)),
        "logit_scale": np.ones(()),
    }
    return {**theirs, **{name: value.astype(np.float32) for name, value in rest.items()}}


def wide_clip() -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Return a CLIP of two heads that are 64 wide, as all of OpenAI's are, and its config."""
    rng, width, inner = np.random.default_rng(0), 128, 160
    prefix, tensors = "vision_model.", {}
    shapes = {"embeddings.class_embedding": (width,), "embeddings.patch_embedding.weight": (width, 3, 8, 8)}
    shapes |= {"embeddings.position_embedding.weight": (17, width)}
    for norm in (
        "pre_layrnorm",
        "post_layernorm",
        "encoder.layers.0.layer_norm1",
        "encoder.layers.0.layer_norm2",
    ):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for layer, sides in {
        **{f"self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")},
        "mlp.fc1": (inner, width),
        "mlp.fc2": (width, inner),
    }.items():
        shapes |= {f"encoder.layers.0.{layer}.weight": sides, f"encoder.layers.0.{layer}.bias": sides[:1]}
    tensors = {prefix + name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    config = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
    return tensors, {**config, "intermediate_size": inner, "patch_size": 8, "model_type": "clip_vision_model"}


def test_openai_clip_is_hugging_face_clip_under_other_names(tmp_path: Path) -> None:
    tensors, config = wide_clip()
    for name, content in (("hf", tensors), ("openai", to_openai(tensors))):
        (tmp_path / name).mkdir()
        save_file(content, tmp_path / name / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    convert_tower("hf-clip", tmp_path / "hf", None, tmp_path / "a")
    done = convert_tower("openai-clip", tmp_path / "openai", None, tmp_path / "b")
    assert done.left_over == ["logit_scale", "positional_embedding", "visual.proj"]
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert (tmp_path / "a/config.yaml").read_text().replace("hf-clip", "openai-clip") == (
        tmp_path / "b/config.yaml"
    ).read_text()


def test_what_may_be_missing_starts_at_random(tmp_path: Path) -> None:
    weights = read_safetensors(ROBERTA / "model.safetensors")
    lost = [name for name in weights if "encoder.layer.2.output.LayerNorm" in name]
    write_safetensors(tmp_path / "model.safetensors", {n: v for n, v in weights.items() if n not in lost})
    words = ("hf-roberta", tmp_path / "model.safetensors", ROBERTA / "config.json", tmp_path / "out")
    with pytest.raises(CheckpointError, match="2 missing: encoder.layer.2.output.LayerNorm.*--allow-missing"):
        convert_tower(*words, ["pooler.*"])
    assert not (tmp_path / "out").exists()
    done = convert_tower(*words, ["layers.2.mlp_norm.weight", "encoder.layer.2.output.LayerNorm.b*"])
    assert done.initialised == ["layers.2.mlp_norm.weight", "layers.2.mlp_norm.bias"]
    assert "initialised  2: layers.2.mlp_norm.weight, layers.2.mlp_norm.bias" in done.text()
    sizes = {"hidden_size": 32, "num_layers": 3, "num_heads": 4, "intermediate_size": 64}
    tower = RobertaTower(TextConfig(**sizes, vocab_size=120, max_position=26))
    load_tower(tower, tmp_path / "out")
    assert tower.layers[2].mlp_norm.weight.numpy().tolist() == [1] * 32


@pytest.mark.parametrize(
    ("source", "folder", "change", "message"),
    [
        ("hf-roberta", ROBERTA, {"num_attention_heads": 7}, "num_attention_heads = 7 at hidden_size = 32"),
        ("hf-roberta", ROBERTA, {"num_attention_heads": "x"}, "num_attention_heads"),
        ("hf-roberta", ROBERTA, {"num_attention_heads": True}, "num_attention_heads"),
        ("hf-clip", CLIP, {"image_size": 64}, r"position_embedding should be \[65, .*\], is \[17, "),
        ("hf-vit", ASSETS / "hf_vit_tiny", {"image_size": 384}, "position_embedding should be"),
    ],
)
def test_configs_of_other_weights_are_refused(tmp_path: Path, source, folder, change, message) -> None:
    config = json.loads((folder / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(folder / "model.safetensors", tmp_path)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        convert_tower(source, tmp_path, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def marks() -> dict[str, tuple[str, ...]]:
    return {name: paper.marks.get(name, ()) for name, paper in releases().items()}


@pytest.mark.parametrize(
    ("kind", "tensors", "model_type"),
    [
        ("hf-roberta", lambda: read_safetensors(ROBERTA / "model.safetensors"), None),
        ("hf-bert", lambda: read_safetensors(ASSETS / "hf_bert_tiny" / "model.safetensors"), "bert"),
        ("hf-clip", lambda: read_safetensors(CLIP / "model.safetensors"), None),
        ("hf-vit", lambda: read_safetensors(ASSETS / "hf_vit_tiny" / "model.safetensors"), None),
        ("openai-clip", lambda: to_openai(wide_clip()[0]), None),
        ("unilm-beit", random_beit, None),
        ("hf-beit", lambda: to_hugging_face(random_beit()), "beit"),
        ("meter", lambda: released_shapes("meter"), None),
        ("bridgetower", lambda: released_shapes("bridgetower"), None),
        ("hf-bridgetower", lambda: released_shapes("hf-bridgetower"), "bridgetower"),
        ("vlmo", lambda: vlmo_shapes(768, 12, 12, 10, relative=True), None),
    ],
)
def test_the_kind_is_recognised(tmp_path: Path, kind: str, tensors, model_type: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    config = tmp_path / "config.json" if model_type else None
    assert recognise(tensors(), marks(), config, "there") == kind


def test_every_kind_is_recognised_but_those_of_the_same_names() -> None:
    silent = {
        name for name, own in {**marks(), **{n: s.marks for n, s in SOURCES.items()}}.items() if not own
    }
    assert silent == {"structbert", "hf-vit-vlmo"}


def test_what_cannot_be_recognised_asks_for_the_kind() -> None:
    bare = {name: 0 for name in SOURCES["hf-bert"].marks}
    with pytest.raises(ConfigError, match="may be hf-bert or hf-roberta.*say which with --from"):
        recognise(bare, marks(), None, "there")
    with pytest.raises(ConfigError, match=r"none of the known kinds of weights \(tensors a, \.\.\.\)"):
        recognise({"a": 0}, marks(), None, "there")


def test_names_that_differ_in_a_number_are_one() -> None:
    names = [f"a.{i}.b.0.c" for i in range(3)] + ["x", "y.4.z", "a.b.1", "a.b.3"]
    assert grouped(names) == ["a.{0-2}.b.0.c", "x", "y.4.z", "a.b.{1,3}"]


def big_clip(folder: Path) -> None:
    """Write a random CLIP-ViT-B/16, 343 MB, in the layout of Hugging Face."""
    sizes = {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "intermediate_size": 3072}
    tower = ClipVisionTower(ClipVisionConfig(**sizes, image_size=224, patch_size=16))
    ours = {name: value.numpy() for name, value in tower.state_dict().items()}
    theirs: dict[str, np.ndarray] = {}
    for entry in expand(CLIP_VISION.rows, 12, CLIP_VISION.spelling):
        theirs |= {CLIP_VISION.prefix + n: value for n, value in split(entry, ours[entry.ours]).items()}
    config = {key: sizes.get(name, 0) for name, key in CLIP_VISION.sizes.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, "image_size": 224, "patch_size": 16}))
    write_safetensors(folder / "model.safetensors", theirs)


@pytest.mark.slow
def test_memory_and_time_of_a_real_size(tmp_path: Path, root: Path) -> None:
    """At most 1.2 times the file, and 30 s of processor time; streaming needs a tenth of either."""
    big_clip(tmp_path / "hf")
    words = ["convert_checkpoint", "--input", str(tmp_path / "hf"), "--out", str(tmp_path / "out")]
    run = f"import runpy, sys; sys.argv = {words}\ntry:\n runpy.run_path('tools/convert_checkpoint.py', "
    run += "run_name='__main__')\nexcept SystemExit:\n pass"
    measure = "import resource as r; u = r.getrusage(0); print(u.ru_maxrss, u.ru_utime + u.ru_stime)"
    figures = []
    for code in ("import unimo.inference.release", run):
        command = [sys.executable, "-c", f"{code}\n{measure}"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        figures.append([float(number) for number in done.stdout.splitlines()[-1].split()])
    (base, _), (peak, seconds) = figures
    size = (tmp_path / "hf" / "model.safetensors").stat().st_size
    assert size > 340e6
    assert (peak - base) * 1024 < 1.2 * size
    assert seconds < 30
