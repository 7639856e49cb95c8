"""Weights of BEiT and ViT as the vision stage of VLMo: the namings, numbers of a block, what stays random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from beit_names import hf_beit, random_beit, to_hugging_face, unilm_shapes

from unimo import registry
from unimo.errors import CheckpointError, ConfigError
from unimo.inference import loading
from unimo.models.vlmo.convert_images import from_hf, from_unilm, from_vit
from unimo.nn.relative_position import image_index, table_rows
from unimo.settings import load_run_config
from unimo.training import run as training
from unimo.training import stages
from unimo.training.released_start import with_model_directory
from unimo.weights.files import read_safetensors, write_safetensors
from unimo.weights.layers import load_into

TABLE = "model.relative_positions.position_bias"


@pytest.mark.parametrize("shared", [False, True])
def test_both_namings_are_the_same_tensors(shared: bool) -> None:
    tensors = random_beit(shared=shared)
    index = {"blocks.0.attn.relative_position_index": np.zeros((10, 10), np.int64)}
    one = from_unilm(tensors | index)
    bare = {name.removeprefix("beit."): array for name, array in to_hugging_face(tensors).items()}
    for other in (from_hf(to_hugging_face(tensors)), from_hf(bare)):
        assert other.config == one.config and other.absent == one.absent
        assert other.tensors.keys() == one.tensors.keys()
        for name, array in one.tensors.items():
            np.testing.assert_array_equal(array, other.tensors[name], name)
    for i in range(2):
        name = "rel_pos_bias" if shared else f"blocks.{i}.attn"
        table = tensors[f"{name}.relative_position_bias_table"]
        np.testing.assert_array_equal(one.tensors[TABLE][:28, 2 * i : 2 * i + 2], table)
    assert not one.tensors[TABLE][28:].any() and len(one.tensors[TABLE]) == table_rows(3)
    assert ("model.norm.weight" in one.tensors) is shared is ("model.norm" not in one.absent)


@pytest.mark.parametrize(
    ("name", "sizes", "released", "is_hf"),
    [
        ("vlmo_base", (768, 12, 12), 85_760_448, False),
        ("vlmo_large", (1024, 24, 16), 303_403_520, False),
        ("vlmo_base", (768, 12, 12), 85_760_448, True),
    ],
)
def test_every_name_and_shape_is_one_of_ours(name: str, sizes: tuple, released: int, is_hf: bool) -> None:
    tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in unilm_shapes(*sizes).items()}
    found = from_hf(to_hugging_face(tensors)) if is_hf else from_unilm(tensors)
    assert found.config.name == name and found.config.vision.image_size == 224
    size = registry.model_config(name).transformer
    assert found.config.transformer == loading.merge_into(size, {"pair_layers": 0}, "transformer")
    of_texts = 394 * sizes[1] * sizes[2]
    assert sum(array.size for array in found.tensors.values()) == released + of_texts
    ours = shapes_of(found.config)
    for key, array in found.tensors.items():
        assert list(array.shape) == ours[key], key
    missing = [key for key in ours if key not in found.tensors]
    assert all(key.startswith(found.absent) for key in missing)
    assert not any(key.startswith(found.absent) for key in found.tensors)


def shapes_of(config: object) -> dict[str, list[int]]:
    with paddle.LazyGuard():
        model = registry.build_model(config)
    return {f"model.{name}": parameter.shape for name, parameter in model.named_parameters()}


def test_a_block_on_an_image_alone_is_that_of_beit() -> None:
    """Attention with relative positions, feed-forward network and layer scales, read from the file itself."""
    tensors = random_beit()
    found = from_unilm(tensors)
    model = registry.build_model(found.config)
    own = {name.removeprefix("model."): array for name, array in found.tensors.items()}
    load_into(model, own, "beit", [name.removeprefix("model.") for name in found.absent])
    model.eval()
    states = paddle.randn([2, 10, 16])
    bias = model.relative_positions(0, True)[0]
    ours, _ = model.blocks[0](states, bias, {"image": 10})
    block = {name.removeprefix("blocks.0."): array for name, array in tensors.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return normal * block[f"{name}.weight"] + block[f"{name}.bias"]

    x = states.numpy()
    biases = np.concatenate([block["attn.q_bias"], np.zeros(16), block["attn.v_bias"]])
    joined = norm(x, "norm1") @ block["attn.qkv.weight"].T + biases
    query, key, value = joined.reshape(2, 10, 3, 2, 8).transpose(2, 0, 3, 1, 4)
    table = block["attn.relative_position_bias_table"][image_index(3)].transpose(2, 0, 1)
    logits = query @ key.swapaxes(-1, -2) * 8**-0.5 + table
    chance = np.exp(logits - logits.max(-1, keepdims=True))
    chance /= chance.sum(-1, keepdims=True)
    mixed = (chance @ value).transpose(0, 2, 1, 3).reshape(2, 10, 16)
    x = x + block["gamma_1"] * (mixed @ block["attn.proj.weight"].T + block["attn.proj.bias"])
    inner = norm(x, "norm2") @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"]
    inner = paddle.nn.functional.gelu(paddle.to_tensor(inner)).numpy()
    x = x + block["gamma_2"] * (inner @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"])
    np.testing.assert_allclose(ours.numpy(), x, atol=2e-5)


@pytest.mark.parametrize("kind", ["each", "shared"])
def test_states_of_every_layer_are_those_of_transformers(kind: str) -> None:
    """Their epsilon is 1e-12, that of VLMo 1e-6; without the type of images, which BEiT lacks."""
    reference = read_safetensors(Path(__file__).resolve().parents[3] / "assets/hf_beit_states.safetensors")
    found = from_hf(hf_beit(shared=kind == "shared"))
    model = registry.build_model(found.config)
    own = {name.removeprefix("model."): array for name, array in found.tensors.items()}
    load_into(model, own, "beit", [name.removeprefix("model.") for name in found.absent])
    model.eval()
    model.type_embedding.weight.set_value(paddle.zeros([2, 32]))
    with paddle.no_grad():
        sequence = model.join(None, model.encode_image(paddle.to_tensor(reference[f"{kind}.pixels"])))
        states = [model.run(sequence, last=depth)[0] for depth in range(4)]
    for number, state in enumerate(states):
        difference = np.abs(state.numpy() - reference[f"{kind}.hidden.{number}"])
        assert difference.max() < 1e-4, f"layer {number}"
    if kind == "shared":
        assert np.abs(model.norm(states[-1]).numpy() - reference["shared.last"]).max() < 1e-4


@pytest.mark.parametrize("kind", ["unilm-beit", "hf-beit"])
def test_language_stage_starts_from_a_file(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is made a model directory, and taken up at another picture size."""
    tensors = random_beit()
    tensors = to_hugging_face(tensors) if kind == "hf-beit" else tensors
    write_safetensors(tmp_path / "beit.safetensors", tensors)
    sizes = {"hidden_size": 16, "num_heads": 2, "num_layers": 2, "intermediate_size": 64}
    words = [f"model.transformer.{name}={value}" for name, value in sizes.items()]
    words += ["data.scenes.train_images=8", "train.batch_size=4", "optim.warmup=0", "train.max_steps=1"]
    words += [f"init_from={tmp_path}/beit.safetensors", f"output_dir={tmp_path}/out", "task.stage=language"]
    run = with_model_directory(load_run_config("vlmo_tiny", "pretrain", words), tmp_path / "model")
    assert run.init_from == str(tmp_path / "model")
    caplog.clear()
    stages.check_order(run)
    assert not caplog.text
    processor = training.open_processor(run)
    run = training.resolve(run, processor)
    state = training.build(run, processor, with_init=False)
    fresh = loading.start_from(state.task, run.init_from)
    state.loader.close()
    assert {name.split(".")[1] for name in fresh} == {"mlm_head"}
    assert state.task.model.relative_positions.position_bias.shape[0] == table_rows(4)
    given = from_unilm(random_beit()).tensors["model.blocks.1.attention.qkv.weight"]
    np.testing.assert_array_equal(state.task.model.blocks[1].attention.qkv.weight.numpy(), given)
    assert state.task.metadata == {"stages": ["vision", "language"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.attn.q_bias"), "1 missing: blocks.1.attn.q_bias"),
        (lambda t: t.update(pos_embed=np.zeros((1, 10, 16))), "1 unknown: pos_embed"),
        (lambda t: t.update({"blocks.1.gamma_1": np.zeros(3)}), "1 mis-shaped: blocks.1.gamma_1"),
        (lambda t: t.clear(), "not a release of BEiT"),
        (
            lambda t: t.update(
                {f"blocks.{i}.attn.relative_position_bias_table": np.zeros((30, 2)) for i in (0, 1)}
            ),
            "a table of 30 relative positions is of no square image",
        ),
    ],
)
def test_what_is_not_a_whole_beit_is_named(change: object, message: str) -> None:
    tensors = random_beit()
    change(tensors)
    with pytest.raises(CheckpointError) as raised:
        from_unilm(tensors)
    assert message in str(raised.value)


def test_beit_is_for_pretraining() -> None:
    with pytest.raises(ConfigError, match="vision stage of pre-training, not of 'vqa'"):
        from_hf({}, task="vqa")


def as_vit(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turn a BEiT in the names of Hugging Face into a ViT: other positions, biases of keys, no scales."""
    found = {
        name.replace("beit.", "vit."): array
        for name, array in to_hugging_face(tensors).items()
        if "lambda" not in name and "relative" not in name and "pooler" not in name
    }
    width = tensors["cls_token"].shape[-1]
    rng = np.random.default_rng(0)
    found["vit.embeddings.position_embeddings"] = rng.normal(size=(1, 10, width)).astype("float32")
    for name in ("vit.layernorm.weight", "vit.layernorm.bias"):
        found[name] = rng.normal(size=width).astype("float32")
    for i in range(2):
        found[f"vit.encoder.layer.{i}.attention.attention.key.bias"] = np.ones(width, np.float32)
    return found


def test_vit_is_the_vision_stage_with_absolute_positions(tmp_path: Path) -> None:
    tensors = as_vit(random_beit())
    found = from_vit(tensors, given={"transformer": {"num_heads": 2}})
    transformer = found.config.transformer
    assert (transformer.positions, transformer.layer_scale, transformer.num_heads) == ("absolute", None, 2)
    assert found.config.vision.image_size == 48
    np.testing.assert_array_equal(
        found.tensors["model.position_embedding"], tensors["vit.embeddings.position_embeddings"][0]
    )
    beit = from_hf(to_hugging_face(random_beit()))
    for name, array in found.tensors.items():
        if name in beit.tensors:
            np.testing.assert_array_equal(array, beit.tensors[name], name)
    ours = shapes_of(found.config)
    assert all(list(array.shape) == ours[name] for name, array in found.tensors.items())
    missing = [name for name in ours if name not in found.tensors]
    assert all(name.startswith(found.absent) for name in missing) and "model.norm.weight" not in missing
    assert set(beit.tensors) - set(found.tensors) == {
        TABLE,
        *(f"model.blocks.{i}.{part}_scale" for i in range(2) for part in ("attention", "expert")),
    }
    with pytest.raises(CheckpointError, match=r"no ViT|vit-base-patch16-224"):
        from_vit({"x": np.zeros(3, np.float32)})
