"""Embeddings and towers: patches in order, padding, freezing."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from unimo.nn.config import ClipVisionConfig, TextConfig, VitConfig
from unimo.nn.embeddings import PatchEmbedding
from unimo.nn.heads import ClassifierHead, Pooler, ProjectionHead, clip_temperature, contrastive_heads
from unimo.nn.init import linear
from unimo.nn.towers import ClipVisionTower, RobertaTower, VitTower

SIZES = {"hidden_size": 8, "num_heads": 2, "intermediate_size": 16}
PATCHES = {"patch_size": 4, "image_size": 12}


def test_patches_equal_a_convolution():
    layer = PatchEmbedding(4, 6, 0.5)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    pixels = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype("float32"))
    expected = F.conv2d(pixels, layer.weight, stride=4).flatten(2).transpose([0, 2, 1])
    np.testing.assert_allclose(layer(pixels).numpy(), expected.numpy(), atol=1e-5)


@paddle.no_grad()
def test_padded_patches_equal_a_padded_convolution():
    """UNIMO-2's release: patches start outside the image, whose last rows and columns are not read."""
    layer = PatchEmbedding(4, 6, 0.5, bias=True, padding=1)
    layer.bias.set_value(np.arange(6, dtype="float32"))
    pixels = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype("float32"))
    expected = F.conv2d(pixels, layer.weight, layer.bias, stride=4, padding=1).flatten(2)
    np.testing.assert_allclose(layer(pixels).numpy(), expected.transpose([0, 2, 1]).numpy(), atol=1e-5)
    changed = pixels.clone()
    changed[:, :, 11:], changed[:, :, :, 11:] = 5.0, 5.0
    np.testing.assert_array_equal(layer(changed).numpy(), layer(pixels).numpy())


@paddle.no_grad()
def test_plain_vit_in_short():
    """No norm before the first block, exact GELU, epsilon 1e-12."""
    tower = VitTower(VitConfig(**SIZES, num_layers=1, **PATCHES, init_std=0.3))
    states, attentions = tower(paddle.ones([2, 3, 12, 12]), need_weights=True)
    assert [state.shape for state in states] == [[2, 10, 8]] * 2 and list(attentions) == ["image.1"]
    first = tower.class_embedding + tower.position_embedding[0]
    np.testing.assert_allclose(states[0][1, 0].numpy(), first.numpy(), atol=1e-6)
    block = tower.layers[0]
    inner = states[0] + block.attention(block.attention_norm(states[0]))[0]
    hidden = F.gelu(block.mlp.fc1(block.mlp_norm(inner)), approximate=False)
    np.testing.assert_allclose(states[1].numpy(), (inner + block.mlp.fc2(hidden)).numpy(), atol=1e-5)
    assert block.mlp_norm._epsilon == tower.ln_post._epsilon == 1e-12


def _vision(num_layers=2, **options):
    return ClipVisionTower(ClipVisionConfig(**SIZES, num_layers=num_layers, **PATCHES, **options))


def test_vision_states():
    tower = _vision()
    states, attentions = tower(paddle.ones([2, 3, 12, 12]), need_weights=True)
    assert [state.shape for state in states] == [[2, 10, 8]] * 3
    assert list(attentions) == ["image.1", "image.2"]
    first = tower.ln_pre(tower.class_embedding + tower.position_embedding[0])
    np.testing.assert_allclose(states[0][1, 0].numpy(), first.numpy(), atol=1e-5)
    np.testing.assert_allclose(states[1].numpy(), tower.layers[0](states[0])[0].numpy(), atol=1e-6)


def test_a_layer_without_bias_has_none():
    assert linear(3, 2, bias=False).bias is None
    assert linear(3, 2).bias.tolist() == [0.0, 0.0]


def test_initial_scales():
    """Those of CLIP's code (Radford et al., 2021) for its tower; elsewhere one scale, patches apart."""
    paddle.seed(0)
    width, depth, patch = 128, 3, 8
    sizes = {"hidden_size": width, "num_heads": 2, "intermediate_size": 512, "num_layers": depth}
    pixels = {"patch_size": patch, "image_size": 8 * patch}
    std = width**-0.5
    inner = {"attention.qkv": std, "attention.out": std * (2 * depth) ** -0.5}
    inner |= {"mlp.fc1": (2 * width) ** -0.5, "mlp.fc2": std * (2 * depth) ** -0.5}
    patches = {"patch_embedding": (3 * patch**2) ** -0.5}
    even = dict.fromkeys(("attention.qkv", "attention.out", "mlp.fc1", "mlp.fc2"), 0.03)
    tables = {f"embeddings.{name}": 0.03 for name in ("word", "position", "token_type")}
    tables["pooler"] = 0.03
    towers = [
        (ClipVisionTower(ClipVisionConfig(**sizes, **pixels)), {**inner, **patches}, std),
        (VitTower(VitConfig(**sizes, **pixels, init_std=0.03)), {**even, **patches}, 0.03),
        (
            RobertaTower(TextConfig(**sizes, vocab_size=99, init_std=0.03)),
            {**even, **tables, "pooler": 0.03},
            0,
        ),
    ]
    for tower, scales, rows in towers:
        for name, value in tower.named_parameters():
            layer, _, kind = name.rpartition(".")
            part = layer.split(".", 2)[2] if layer.startswith("layers.") else layer
            if name.endswith(("_embedding", "class_embedding")):
                assert float(value.std()) == pytest.approx(rows, rel=0.2), name
            elif part in scales and kind == "weight":
                assert float(value.std()) == pytest.approx(
                    scales[part], rel=max(0.05, 3 * value.size**-0.5)
                ), name
            else:
                assert bool((value == float(kind == "weight")).all()), name


def test_a_shorter_tower_keeps_the_whole_clip_init():
    paddle.seed(0)
    whole = float(_vision().layers[0].mlp.fc2.weight.std())
    paddle.seed(0)
    longer = float(_vision(num_layers=8, remove_last=6).layers[0].mlp.fc2.weight.std())
    assert abs(whole / longer - 2.0) < 1e-3


def _text(std=0.02, **options):
    config = TextConfig(
        **SIZES,
        num_layers=2,
        vocab_size=20,
        max_position=12,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=std,
    )
    return RobertaTower(config, **options)


def test_text_states_ignore_padding_on_the_right():
    tower = _text(std=0.3)
    ids, mask = paddle.to_tensor([[0, 5, 6, 2]]), paddle.ones([1, 4], dtype="int64")
    longer = paddle.to_tensor([[0, 5, 6, 2, 1, 1]])
    padded = paddle.to_tensor([[1, 1, 1, 1, 0, 0]])
    short, long = tower(ids, mask)[0], tower(longer, padded)[0]
    for first, second in zip(short, long, strict=True):
        np.testing.assert_allclose(first.numpy(), second[:, :4].numpy(), atol=1e-5)


@paddle.no_grad()
@pytest.mark.parametrize(("outer", "causal"), [(False, False), (True, False), (False, True), (True, True)])
def test_padding_reads_padding_under_the_outer_mask_alone(outer, causal):
    tower = _text(std=0.3, outer=outer)
    ids, mask = paddle.to_tensor([[0, 5, 2, 1, 1]]), paddle.to_tensor([[1, 1, 1, 0, 0]])
    weights = tower(ids, mask, need_weights=True, causal=causal)[1]["text.1"][0, 0].numpy()
    assert weights[:3, 3:].max() < 1e-6
    assert (weights[4, 3:].min() > 1e-3) == (outer and not causal)


@paddle.no_grad()
def test_texts_are_read_in_both_directions_unless_told_otherwise():
    tower, mask = _text(std=0.3), paddle.ones([1, 4], dtype="int64")
    first, second = (tower(paddle.to_tensor([[0, 5, 6, last]]), mask)[0][-1].numpy() for last in (2, 8))
    assert not np.allclose(first[:, 0], second[:, 0], atol=1e-3)


@paddle.no_grad()
def test_causal_text_states_depend_on_no_later_token():
    tower = _text(std=0.3)
    first, second = paddle.to_tensor([[0, 5, 6, 7, 2]]), paddle.to_tensor([[0, 5, 6, 9, 8]])
    mask = paddle.ones([1, 5], dtype="int64")
    whole, other = (tower(ids, mask, causal=True)[0][-1].numpy() for ids in (first, second))
    np.testing.assert_allclose(whole[:, :3], other[:, :3], atol=1e-6)
    assert not np.allclose(whole[:, 3:], other[:, 3:], atol=1e-3)
    short = tower(first[:, :3], mask[:, :3], causal=True)[0][-1].numpy()
    np.testing.assert_allclose(whole[:, :3], short, atol=1e-5)


@paddle.no_grad()
def test_without_token_type_its_row_can_stand_in_the_positions():
    paddle.seed(1)
    full, bare = _text(std=0.3), _text(std=0.3, token_type=False)
    state = full.state_dict()
    row = state.pop("embeddings.token_type.weight")
    state["embeddings.position.weight"] = state["embeddings.position.weight"] + row
    bare.set_state_dict(state)
    ids, mask = paddle.to_tensor([[0, 5, 6, 2]]), paddle.ones([1, 4], dtype="int64")
    np.testing.assert_allclose(bare(ids, mask)[0][-1].numpy(), full(ids, mask)[0][-1].numpy(), atol=1e-5)
    assert bare.embeddings.token_type is None


def test_pooler_is_optional_and_frozen():
    assert _text(pooler=False).pooler is None
    tower = _text()
    assert all(parameter.stop_gradient for parameter in tower.pooler.parameters())
    states, _ = tower(paddle.to_tensor([[0, 5, 2]]), paddle.ones([1, 3], dtype="int64"))
    states[-1].square().sum().backward()
    named = dict(tower.named_parameters())
    assert {name for name, p in named.items() if p.grad is None} == {"pooler.weight", "pooler.bias"}


def test_heads():
    states = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 8)).astype("float32"))
    pooler = Pooler(8, 0.5)
    expected = np.tanh(states[:, 0].numpy() @ pooler.dense.weight.numpy())
    np.testing.assert_allclose(pooler(states).numpy(), expected, atol=1e-5)
    unit = ProjectionHead(8, 4)(states[:, 0])
    np.testing.assert_allclose((unit * unit).sum(-1).numpy(), 1.0, atol=1e-5)
    head = ClassifierHead(8, 6, 5, 0.5)
    inner = states[:, 0].numpy() @ head.dense.weight.numpy()
    inner = (inner - inner.mean(-1, keepdims=True)) / np.sqrt(inner.var(-1, keepdims=True) + 1e-5)
    expected = F.gelu(paddle.to_tensor(inner)).numpy() @ head.out.weight.numpy()
    np.testing.assert_allclose(head(states[:, 0]).numpy(), expected, atol=1e-4)


def test_contrastive_heads_share_a_space_and_start_as_two_projections():
    paddle.seed(4)
    text, image = contrastive_heads(8, 6, 5, 0.3)
    paddle.seed(4)
    expected = [ProjectionHead(size, 5, 0.3).dense.weight.numpy() for size in (8, 6)]
    for head, weight in zip((text, image), expected, strict=True):
        np.testing.assert_array_equal(head.dense.weight.numpy(), weight)
    cosines = text(paddle.ones([2, 8])) @ image(paddle.ones([3, 6])).T
    assert cosines.shape == [2, 3] and float(cosines.abs().max()) <= 1 + 1e-6


def test_temperature_is_clipped_where_it_is_read():
    for value, seen, gradient in ((0.2, 0.2, 1.0), (0.7, 0.5, 0.0), (-1.0, 0.001, 0.0)):
        temperature = paddle.to_tensor(value, stop_gradient=False)
        clipped = clip_temperature(temperature)
        clipped.backward()
        assert float(temperature) == np.float32(value) and float(clipped) == np.float32(seen)
        assert float(temperature.grad) == gradient


def test_towers_are_built_from_their_configs():
    clip = _vision(num_layers=3, dropout=0.2, remove_last=1)
    assert len(clip.layers) == 2 and clip.layers[0].dropout == 0.2 and clip.grid == 3
    assert VitConfig(patch_size=4, image_size=12).num_patches == 9
    assert clip.layers[0].mlp.fc1.weight.shape == [8, 16] and clip.layers[0].attention.num_heads == 2
    options = {"patch_padding": 1, "init_std": 0.3, "position_init_std": 0.9}
    paddle.seed(0)
    vit = VitTower(VitConfig(**SIZES, num_layers=3, patch_size=4, image_size=32, **options))
    assert len(vit.layers) == 3 and vit.patch_embedding.padding == 1
    assert abs(float(vit.position_embedding.std()) - 0.9) < 0.1
    assert abs(float(vit.layers[0].mlp.fc1.weight.std()) - 0.3) < 0.05
