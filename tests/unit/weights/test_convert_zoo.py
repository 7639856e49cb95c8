"""Towers of PaddleNLP and PaddleClas: states of every layer equal theirs, nothing in a file is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest

from unimo import create_model
from unimo.errors import CheckpointError, ConfigError
from unimo.models.vlmo.convert_images import from_paddleclas
from unimo.nn.config import ClipVisionConfig, TextConfig, VitConfig
from unimo.nn.towers import ClipVisionTower, RobertaTower, VitTower
from unimo.registry import build_model
from unimo.weights import zoo
from unimo.weights.files import read_tensors
from unimo.weights.layers import load_into, load_tower, tensors_of
from unimo.weights.name_map import expand

SIZES = {"hidden_size": 128, "num_layers": 2, "num_heads": 2, "intermediate_size": 256}
THEIRS = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(97 + n) for n in range(15))]
IDS = np.array([[2, 7, 9, 11, 6, 3], [2, 8, 3, 1, 1, 1]])
MASK = np.array([[1] * 6, [1] * 3 + [0] * 3])


def randomize(layer: paddle.nn.Layer) -> None:
    """Give every parameter, biases and norms too, numbers by seed."""
    generator = np.random.default_rng(0)
    for name, parameter in layer.named_parameters():
        values = generator.normal(0.0, 0.1, parameter.shape) + ("norm" in name and "weight" in name)
        parameter.set_value(values.astype("float32"))
    layer.eval()


def assert_back(source, tensors, theirs) -> None:
    """Turning the converted tensors back gives theirs, bit by bit."""
    for row in expand(source.rows, 2, source.spelling):
        parts = np.split(tensors[row.ours], len(row.theirs), axis=-1)
        for name, part in zip(row.theirs, parts, strict=True):
            assert np.array_equal(part.reshape(theirs[name].shape), theirs[name]), name


@pytest.mark.parametrize("kind", ["Roberta", "Bert"])
def test_states_of_paddlenlp_with_padding_and_its_tokenizer(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("paddlenlp.transformers")
    is_roberta = kind == "Roberta"
    extra = {"layer_norm_eps": 1e-5, "pad_token_id": 1, "type_vocab_size": 1} if is_roberta else {}
    words = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "type_vocab_size": 2}
    config = getattr(transformers, f"{kind}Config")(**THEIRS, **{**words, **extra})
    model = getattr(transformers, f"{kind}Model")(config)
    randomize(model)
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "theirs")
    done = zoo.convert_zoo("paddlenlp", str(tmp_path / "theirs"), tmp_path / "ours")
    tensors = read_tensors(tmp_path / "ours" / "model.safetensors")
    source = zoo.NLP_ROBERTA if is_roberta else zoo.NLP_BERT
    assert done.what == f"{kind.lower()} tower"
    assert_back(source, tensors, tensors_of(model))
    ids, mask = paddle.to_tensor(IDS), paddle.to_tensor(MASK)
    theirs = model(ids, attention_mask=mask, output_hidden_states=True, return_dict=True).hidden_states
    text = {**SIZES, "vocab_size": len(WORDS), "max_position": 16}
    if is_roberta:
        ours = RobertaTower(TextConfig(**text))
        load_tower(ours, tmp_path / "ours")
        ours.eval()
        states, _ = ours(ids, mask)
    else:
        init = str(tmp_path / "ours")
        ours = create_model("semvlp_tiny", text={**text, "init": init}, cross={"start": 1})
        ours.eval()
        ours.mode = "two"
        states = ours.encode_text(ids, mask, layers=True).text_layers
    assert len(states) == len(theirs) == 3
    for number, (mine, other) in enumerate(zip(states, theirs, strict=True)):
        difference = np.abs(mine.numpy() - other.numpy())[MASK == 1]
        assert difference.max() < 1e-5, f"layer {number}"
    assert (tmp_path / "ours" / "tokenizer" / "vocab.txt").read_text().split() == WORDS


def test_what_no_tower_fits_is_refused_by_name(tmp_path: Path) -> None:
    transformers = pytest.importorskip("paddlenlp.transformers")
    for name, said in (("ernie-2.0-base-en", "ErnieConfig"), ("hfl/rbt3", "layer_norm_eps|pad_token_id")):
        with pytest.raises(ConfigError, match=said):
            zoo.convert_zoo("paddlenlp", name, tmp_path / "ours")
    config = transformers.BertConfig(**THEIRS, type_vocab_size=2, architectures=["BertModel"])
    config.save_pretrained(tmp_path / "theirs")
    with pytest.raises(ConfigError, match=r"no weights of .*model_state.pdparams"):
        zoo.convert_zoo("paddlenlp", str(tmp_path / "theirs"), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def clas(module: str, name: str = "", **options: object) -> paddle.nn.Layer:
    """A small model of PaddleClas's own class."""
    found = pytest.importorskip(f"paddleclas.ppcls.arch.backbone.model_zoo.{module}")
    options |= {"model_name": name} if name else {}
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    model = found.VisionTransformer(**sizes, qkv_bias=True, class_num=3, **options)
    for block in model.blocks if name.startswith("CLIP") else ():
        block.mlp.act = found.QuickGELU()  # as CLIP was trained; they apply GELU
    randomize(model)
    return model


def states_of(model: paddle.nn.Layer, pixels: paddle.Tensor) -> list[np.ndarray]:
    """Collect the input of the first block and the output of each."""
    states: list[np.ndarray] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0].numpy()))
    for block in model.blocks:
        block.register_forward_post_hook(lambda _, __, output: states.append(output.numpy()))
    model(pixels)
    return states


@pytest.mark.parametrize("kind", ["clip_vit", "vit"])
def test_states_of_paddleclas(kind: str, tmp_path: Path) -> None:
    is_clip = kind == "clip_vit"
    model = (
        clas("foundation_vit", "CLIP_vit_base_patch32_224")
        if is_clip
        else clas("vision_transformer", epsilon=1e-12)  # 1e-6 there, see zoo.py
    )
    paddle.save(model.state_dict(), str(tmp_path / "theirs.pdparams"))
    done = zoo.convert_zoo("paddleclas", str(tmp_path / "theirs.pdparams"), tmp_path / "ours")
    assert done.what == f"{kind} tower"
    tensors = read_tensors(tmp_path / "ours" / "model.safetensors")
    assert_back(zoo.CLAS_CLIP if is_clip else zoo.CLAS_VIT, tensors, tensors_of(model))
    sizes = {**SIZES, "patch_size": 8, "image_size": 32}
    ours = ClipVisionTower(ClipVisionConfig(**sizes)) if is_clip else VitTower(VitConfig(**sizes))
    load_tower(ours, tmp_path / "ours")
    ours.eval()
    pixels = paddle.to_tensor(np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype("float32"))
    theirs, (states, _) = states_of(model, pixels), ours(pixels)
    assert len(theirs) == len(states) == 3
    for number, (mine, other) in enumerate(zip(states, theirs, strict=True)):
        assert np.abs(mine.numpy() - other).max() < 2e-5, f"layer {number}"
    last = model.norm(paddle.to_tensor(theirs[-1])).numpy()
    assert np.abs(ours.ln_post(states[-1]).numpy() - last).max() < 1e-4


def test_states_of_beit_of_paddleclas_in_vlmo(tmp_path: Path) -> None:
    model = clas("foundation_vit", "BEiTv2_vit_base_patch16_224", epsilon=1e-6)
    paddle.save(model.state_dict(), str(tmp_path / "theirs.pdparams"))
    converted = from_paddleclas(read_tensors(tmp_path / "theirs.pdparams"))
    ours = build_model(converted.config)
    own = {name.removeprefix("model."): tensor for name, tensor in converted.tensors.items()}
    load_into(ours, own, "BEiT", [name.removeprefix("model.") for name in converted.absent])
    ours.eval()
    pixels = paddle.to_tensor(np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype("float32"))
    theirs = states_of(model, pixels)
    rows = ours.encode_image(pixels).image - ours.type_embedding.weight[1]  # which BEiT does not have
    assert np.abs(rows.numpy() - theirs[0]).max() < 1e-5
    states, biases = paddle.to_tensor(theirs[0]), ours.relative_positions(0, True)
    for number, block in enumerate(ours.blocks):
        states, _ = block(states, biases[number], {"image": 17})
        assert np.abs(states.numpy() - theirs[number + 1]).max() < 1e-4, f"layer {number}"


class Code:
    """Runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_code_in_a_pdparams_is_not_run(tmp_path: Path) -> None:
    file, mark = tmp_path / "theirs.pdparams", tmp_path / "ran"
    file.write_bytes(pickle.dumps({"cls_token": np.zeros(3), "evil": Code(mark)}))
    # Python 3.13 keeps it in pathlib._local.
    with pytest.raises(CheckpointError, match=r"theirs.pdparams was not opened: it asks for pathlib\S*Path"):
        zoo.convert_zoo("paddleclas", str(file), tmp_path / "ours")
    assert not mark.exists() and not (tmp_path / "ours").exists()


def test_other_files_of_paddleclas_are_refused_by_name(tmp_path: Path) -> None:
    arrays = {"patch_embed.proj.weight": np.zeros((128, 3, 8, 8)), "pos_embed": np.zeros((1, 17, 128))}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(arrays))
    with pytest.raises(CheckpointError, match="blocks.0.mlp.fc1.weight missing"):
        zoo.convert_zoo("paddleclas", str(tmp_path / "a.pdparams"), tmp_path / "ours")


@pytest.mark.parametrize("library", ["paddlenlp", "paddleclas"])
def test_without_the_library_the_extra_is_named(library: str, tmp_path: Path, monkeypatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(zoo.importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=rf'{library} is needed.*pip install -e ".\[cpu,zoo\]"'):
        zoo.convert_zoo(library, "roberta-base", tmp_path / "ours")


def test_without_a_network_the_file_and_its_place_are_named(tmp_path: Path, monkeypatch) -> None:
    downloads = pytest.importorskip("paddleclas.ppcls.utils.download")
    resolver = pytest.importorskip("paddlenlp.utils.download")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(downloads, "get_path_from_url", fail)
    monkeypatch.setattr(resolver, "resolve_file_path", fail)
    with pytest.raises(ConfigError, match=r"put https://\S+patch16_224.pdparams into \S+weights"):
        zoo.convert_zoo("paddleclas", "CLIP_vit_base_patch16_224", tmp_path / "ours")
    with pytest.raises(ConfigError, match="nearest: CLIP_vit_base_patch16_224"):
        zoo.convert_zoo("paddleclas", "CLIP_vit_base_patch16", tmp_path / "ours")
    with pytest.raises(ConfigError, match=r"model_state.pdparams .*into \S+/bert-base-uncased"):
        zoo.convert_zoo("paddlenlp", "bert-base-uncased", tmp_path / "ours")
