"""Attention and blocks against NumPy."""

from functools import partial

import numpy as np
import paddle
import pytest

from unimo.nn import attention as attention_module
from unimo.nn import block as block_module
from unimo.nn.attention import CrossAttention, SelfAttention, additive_mask, outer_mask
from unimo.nn.block import Block, CrossBlock, Mlp, quick_gelu, run_block, run_blocks, set_recompute


def _linear(x, layer):
    return x @ layer.weight.numpy() + layer.bias.numpy()


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _attend(query, key, value, heads, keep=None):
    """Multi-head attention one pair and one head at a time."""
    width = query.shape[-1] // heads
    out = np.zeros_like(query)
    for row in range(query.shape[0]):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            logits = query[row, :, part] @ key[row, :, part].T / np.sqrt(width)
            if keep is not None:
                logits = np.where(keep[row][None] == 1, logits, -np.inf)
            out[row, :, part] = _softmax(logits) @ value[row, :, part]
    return out


def _norm(x, layer, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * layer.weight.numpy()
        + layer.bias.numpy()
    )


def _random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


MLP = partial(Mlp, 8, 16)
MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])


def test_self_attention_in_numpy():
    layer, x = SelfAttention(8, 2, std=0.5), _random(2, 5, 8)
    out, weights = layer(paddle.to_tensor(x), additive_mask(paddle.to_tensor(MASK)))
    query, key, value = np.split(_linear(x, layer.qkv), 3, axis=-1)
    expected = _linear(_attend(query, key, value, 2, MASK), layer.out)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(weights.sum(-1).numpy(), 1.0, atol=1e-6)


def test_cross_attention_in_numpy():
    layer, x, other = CrossAttention(8, 2, std=0.5), _random(2, 3, 8), _random(2, 5, 8, seed=1)
    out, _ = layer(paddle.to_tensor(x), paddle.to_tensor(other), additive_mask(paddle.to_tensor(MASK)))
    key, value = np.split(_linear(other, layer.kv), 2, axis=-1)
    expected = _linear(_attend(_linear(x, layer.q), key, value, 2, MASK), layer.out)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("queries", [None, 2])
def test_fused_kernel_path_gives_the_same_numbers(monkeypatch, queries):
    """The path for GPUs, run here: Paddle's function has a CPU implementation too."""
    layer, x = SelfAttention(8, 2, std=0.5), paddle.to_tensor(_random(2, 5, 8))
    cross, mask = CrossAttention(8, 2, std=0.5), additive_mask(paddle.to_tensor(MASK))
    plain = [layer(x, mask, queries)[0], cross(x, x, mask)[0]]
    monkeypatch.setattr(attention_module, "use_fused_kernel", lambda: True)
    fused = [layer(x, mask, queries)[0], cross(x, x, mask)[0]]
    for first, second in zip(plain, fused, strict=True):
        np.testing.assert_allclose(first.numpy(), second.numpy(), atol=1e-5)
    assert layer(x, need_weights=True)[1].shape == [2, 2, 5, 5]


def test_fewer_queries_are_the_first_rows():
    layer, x = SelfAttention(8, 2), paddle.to_tensor(_random(2, 5, 8))
    np.testing.assert_allclose(layer(x, None, 2)[0].numpy(), layer(x)[0][:, :2].numpy(), atol=1e-6)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads"):
        SelfAttention(8, 3)


def test_mask_is_none_or_blocks_padding():
    assert additive_mask(None) is None
    mask = additive_mask(paddle.to_tensor([[1, 0]]))
    assert mask.tolist() == [[[[0.0, -10000.0]]]]


def test_outer_mask_blocks_padding_for_tokens_and_everything_for_padding():
    mask = outer_mask(paddle.to_tensor([[1, 1, 0], [1, 0, 0]]))
    blocked = [[[0, 0, 1], [0, 0, 1], [1, 1, 1]], [[0, 1, 1], [1, 1, 1], [1, 1, 1]]]
    np.testing.assert_array_equal(mask.numpy(), -10000.0 * np.array(blocked, np.float32)[:, None])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_only_the_last_block_computes_fewer_rows(depth):
    blocks = [Block(8, 2, MLP, norm_first=True, std=0.3) for _ in range(depth)]
    for block in blocks:
        block.eval()
    x = paddle.to_tensor(_random(2, 5, 8))
    whole, few = (run_blocks(blocks, x, None, num_queries=number)[0] for number in (None, 2))
    assert [state.shape[1] for state in few] == [5] * depth + [2]
    np.testing.assert_allclose(few[-1].numpy(), whole[-1][:, :2].numpy(), atol=1e-5)


def test_quick_gelu():
    x = np.linspace(-4, 4, 9, dtype="float32")
    np.testing.assert_allclose(
        quick_gelu(paddle.to_tensor(x)).numpy(), x / (1 + np.exp(-1.702 * x)), atol=1e-6
    )


def test_pre_norm_block_in_numpy():
    mlp = partial(Mlp, 8, 16, "quick_gelu", 0.3)
    block, x = Block(8, 2, mlp, norm_first=True, std=0.3), _random(2, 5, 8)
    inner = _norm(x, block.attention_norm, 1e-5)
    query, key, value = np.split(_linear(inner, block.attention.qkv), 3, axis=-1)
    states = x + _linear(_attend(query, key, value, 2), block.attention.out)
    hidden = _linear(_norm(states, block.mlp_norm, 1e-5), block.mlp.fc1)
    expected = states + _linear(hidden / (1 + np.exp(-1.702 * hidden)), block.mlp.fc2)
    np.testing.assert_allclose(block(paddle.to_tensor(x))[0].numpy(), expected, atol=2e-5)


def test_cross_block_in_numpy():
    """Self-attention, cross-attention to the other stream's input, feed-forward, each with its norm."""
    from math import erf

    block, x, other = CrossBlock(8, 2, 16, std=0.3), _random(2, 3, 8), _random(2, 5, 8, seed=1)
    block.eval()
    query, key, value = np.split(_linear(x, block.attention.qkv), 3, axis=-1)
    states = _norm(
        x + _linear(_attend(query, key, value, 2), block.attention.out), block.attention_norm, 1e-12
    )
    key, value = np.split(_linear(other, block.cross_attention.kv), 2, axis=-1)
    read = _attend(_linear(states, block.cross_attention.q), key, value, 2, MASK)
    states = _norm(states + _linear(read, block.cross_attention.out), block.cross_norm, 1e-12)
    hidden = _linear(states, block.mlp.fc1)
    hidden = hidden * 0.5 * (1 + np.vectorize(erf)(hidden / np.sqrt(2)))
    expected = _norm(states + _linear(hidden, block.mlp.fc2), block.mlp_norm, 1e-12)
    mask = additive_mask(paddle.to_tensor(MASK))
    out = block(paddle.to_tensor(x), paddle.to_tensor(other), None, mask)[0]
    np.testing.assert_allclose(out.numpy(), expected, atol=2e-5)


class _Experts(paddle.nn.Layer):
    """One feed-forward part for the first two rows, another one for the others."""

    def __init__(self):
        super().__init__()
        self.first, self.others = MLP(), MLP()

    def forward(self, states):
        return paddle.concat([self.first(states[:, :2]), self.others(states[:, 2:])], axis=1)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_takes_any_feed_forward_part(norm_first):
    """Experts for kinds of rows: each kind has the numbers of a block in which its expert is the only one."""
    paddle.seed(0)
    block, x = Block(8, 2, _Experts, norm_first=norm_first, std=0.3), paddle.to_tensor(_random(2, 5, 8))
    mixed, experts = block(x)[0].numpy(), block.mlp
    for expert, rows in ((experts.first, slice(0, 2)), (experts.others, slice(2, 5))):
        block.mlp = expert
        np.testing.assert_allclose(mixed[:, rows], block(x)[0][:, rows].numpy(), atol=1e-6)
    assert np.abs(block(x)[0][:, :2].numpy() - mixed[:, :2]).max() > 1e-4


def test_dropout_only_in_training():
    block, x = Block(8, 2, MLP, norm_first=False, dropout=0.5), paddle.to_tensor(_random(1, 4, 8))
    block.eval()
    assert bool((block(x)[0] == block(x)[0]).all())
    block.train()
    assert not bool((block(x)[0] == block(x)[0]).all())


def test_recompute_switch_reaches_every_block():
    outer = paddle.nn.LayerList([Block(8, 2, MLP, norm_first=True), CrossBlock(8, 2, 16)])
    set_recompute(outer, True)
    assert [block.recompute for block in outer] == [True, True]
    x = paddle.to_tensor(_random(1, 4, 8), stop_gradient=False)
    states, _ = run_block(outer[0], x, None, False)
    states.sum().backward()
    assert x.grad is not None and outer[0].mlp.fc1.weight.grad is not None


@pytest.mark.parametrize("make", [partial(Block, mlp=MLP, norm_first=True), partial(CrossBlock, inner=16)])
def test_recomputed_passes_drop_the_same_units_and_no_others_do(make, monkeypatch):
    masks, plain = [], block_module.dropout

    def remember(x, rate, training):
        dropped = plain(x, rate, training)
        masks.append((dropped == 0).numpy().tobytes())
        return dropped

    for module in (block_module, attention_module):
        monkeypatch.setattr(module, "dropout", remember)
    blocks = paddle.nn.LayerList([make(8, 2, dropout=0.5, attention_dropout=0.5) for _ in range(2)])
    set_recompute(blocks, True)
    x = paddle.to_tensor(_random(4, 6, 8), stop_gradient=False)
    states = x
    for block in blocks:
        states = run_block(block, states, *([x] if isinstance(block, CrossBlock) else []))[0]
    forward = list(masks)
    assert len(set(forward)) == len(forward) == (6 if isinstance(blocks[0], Block) else 10)
    states.square().sum().backward()
    assert len(masks) == 2 * len(forward)
    assert sorted(masks[len(forward) :]) == sorted(forward)


def test_recompute_of_a_block_that_returns_no_weights(monkeypatch):
    """As on a GPU, where the fused kernel has none."""
    monkeypatch.setattr(attention_module, "use_fused_kernel", lambda: True)
    block, gradients = Block(8, 2, MLP, norm_first=True), []
    for on in (False, True):
        set_recompute(block, on)
        x = paddle.to_tensor(_random(1, 4, 8), stop_gradient=False)
        states, weights = run_block(block, x, None, False)
        states.square().sum().backward()
        gradients.append(x.grad.numpy())
        assert weights is None
    np.testing.assert_allclose(*gradients, atol=1e-5)
