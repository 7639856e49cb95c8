"""The paper's idea: gated links from many tower layers into each fusion layer (Eqs 8 to 11).

`CrossLayerLinks` is one modality; text and image each have their own. Shapes: B batch, S tokens,
D fusion width, G gate width (D, or 1 for scalar gates); K linked tower layers.

The part of a gate that comes from the tower, W T_k, does not depend on the fusion state Z. It is
computed once (`gate_logits`) and travels with the encoded image, so that every pass that reads this
image shares it. Tower layers stay tensors of their own: one at a time fits the cache, and on CPU a
gated sum over twelve stacked layers of ViT-B takes 4.5 times as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer
from paddle.nn.initializer import Constant

from unimo.models.unimo3.config import FusionConfig, linked_layers
from unimo.nn.init import constant_attr, linear
from unimo.nn.kernels import LayerNorm, add_bias


class _GatedSum(PyLayer):
    """`gated_sum` that keeps no gate for the backward pass but computes it again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, *pairs: Tensor) -> Tensor:
        ctx.save_for_backward(query, *pairs)
        ctx.needed = [not tensor.stop_gradient for tensor in (query, *pairs)]
        return gated_sum(query, pairs[::2], pairs[1::2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, *pairs = ctx.saved_tensor()
        to_query, gradients = None, []
        for state, logits in zip(pairs[::2], pairs[1::2], strict=True):
            gate = F.sigmoid(logits + query)
            to_state = gradient * gate
            to_logits = (gradient * state).sum(-1, keepdim=True) if gate.shape[-1] == 1 else gradient * state
            to_logits = to_logits.multiply_(gate).multiply_(1.0 - gate)
            to_query = to_logits.clone() if to_query is None else to_query.add_(to_logits)
            gradients += [to_state if state.dtype == gate.dtype else to_state.astype(state.dtype), to_logits]
        # Paddle wants None for what needs no gradient, such as the states of frozen towers.
        return tuple(
            g if needed else None for g, needed in zip((to_query, *gradients), ctx.needed, strict=True)
        )


def gated_sum(query: Tensor, states: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """sum_k g_k * T_k with g_k = sigmoid(W T_k + b + Z): the gates of Eqs (8) and (10).

    Args:
        query: b + Z, or b + u Z for scalar gates, [B, S, G].
        states: T_k, K tensors [B, S, D].
        logits: W T_k, K tensors [B, S, G].

    Returns:
        [B, S, D].
    """
    total = F.sigmoid(logits[0] + query) * states[0]
    for state, logit in zip(states[1:], logits[1:], strict=True):
        total = total + F.sigmoid(logit + query) * state
    return total


class CrossLayerLinks(nn.Layer):
    """Links of one modality: which tower layers each internal fusion layer reads, and how.

    Attributes:
        table: for each internal layer 1..m the tower layers that it reads.
        used: tower layers that some link reads, in order.
        gates: Linear layers, named by fusion layer `{l}`, by tower layer `tower_{k}`, by pair `{l}_{k}`,
            or `shared`, as `gate_share` says.
    """

    def __init__(self, config: FusionConfig, num_tower_layers: int, given_start: int) -> None:
        super().__init__()
        self.config = config
        self.start = config.start(num_tower_layers, given_start)
        self.table = linked_layers(config, num_tower_layers, given_start)
        self.used = sorted({number for layers in self.table for number in layers})
        width = config.hidden_size
        self.norms = nn.LayerList(LayerNorm(width, 1e-5) for _ in self.table)
        # One gate for many tower layers: its b joins Z once instead of every W T_k.
        self.bias_joins_query = config.gate_share in ("fusion_layer", "modality")
        self.gates = nn.LayerDict(self._make_gates())
        self.query = None
        if config.gate_dim == "scalar" and self.used:
            self.query = linear(width, 1, config.init_std, bias=False)
        self.shares = nn.LayerDict()
        if config.link_reduce == "learned":
            for number, layers in enumerate(self.table, start=1):
                if len(layers):
                    self.shares[str(number)] = _Shares(len(layers))

    def _make_gates(self) -> dict[str, nn.Linear]:
        config, gates = self.config, {}
        if config.gate_dim == "none":
            return gates
        out = 1 if config.gate_dim == "scalar" else config.hidden_size
        # A softmax over layers does not see what all layers have in common.
        bias = config.gate_dim != "layer_softmax"
        for name in dict.fromkeys(self._gate_name(layer, k) for layer, k in self._pairs()):
            gates[name] = linear(config.hidden_size, out, config.init_std, bias)
            if bias:
                Constant(config.gate_bias_init)(gates[name].bias)
        return gates

    def _pairs(self) -> list[tuple[int, int]]:
        """All (fusion layer, tower layer) that are linked."""
        return [(layer, k) for layer, layers in enumerate(self.table, start=1) for k in layers]

    def _gate_name(self, layer: int, k: int) -> str:
        names = {
            "fusion_layer": f"{layer}",
            "modality": "shared",
            "uni_layer": f"tower_{k}",
            "pair": f"{layer}_{k}",
        }
        return names[self.config.gate_share]

    def _logits_name(self, layer: int, k: int) -> str:
        shared = self.config.gate_share in ("modality", "uni_layer")
        return f"logits.{'shared' if shared else layer}.{k}"

    def gate_logits(self, states: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """W T_k for all links: the part of every gate that does not need Z.

        Args:
            states: feature of each tower layer in `used`, [B, S, D].

        Returns:
            `logits.{l}.{k}` [B, S, G] for fusion layer l and tower layer k; `logits.shared.{k}` where all
            fusion layers have the same gate.
        """
        logits: dict[str, Tensor] = {}
        if self.config.gate_dim == "none":
            return logits
        for layer, k in self._pairs():
            name = self._logits_name(layer, k)
            if name not in logits:
                gate = self.gates[self._gate_name(layer, k)]
                logits[name] = (
                    paddle.matmul(states[k], gate.weight) if self.bias_joins_query else gate(states[k])
                )
        return logits

    def forward(self, layer: int, fused: Tensor, links: Mapping[str, Tensor]) -> Tensor:
        """Eqs (9) and (11): the input of internal fusion layer `layer`.

        Args:
            layer: l, from 1.
            fused: Z of the previous fusion layer, [B, S, D].
            links: `state.{k}` [B, S, D] of each linked tower layer, and what `gate_logits` returned.

        Returns:
            Z tilde, [B, S, D].
        """
        norm, count = self.norms[layer - 1], len(self.table[layer - 1])
        if not count:
            return norm(fused)
        states = [links[f"state.{k}"] for k in self.table[layer - 1]]
        if self.config.link_reduce == "learned":
            shares = self.shares[str(layer)].weight
            states = [state * shares[number] for number, state in enumerate(states)]
        if self.config.link_reduce == "ln_each":
            gated = self._gated(layer, fused, states, links)
            return paddle.add_n([norm(fused + part) for part in gated]) * (1 / count)
        total = self._total(layer, fused, states, links)
        if self.config.link_reduce == "mean":
            return norm(fused + (total if count == 1 else total * (1 / count)))
        return norm((fused * count if self.config.link_reduce == "literal" else fused) + total)

    def _logits(self, layer: int, fused: Tensor, links: Mapping[str, Tensor]) -> list[Tensor]:
        """W T_k of the layers that fusion layer `layer` reads, in the precision of Z."""
        logits = [links[self._logits_name(layer, k)] for k in self.table[layer - 1]]
        return [x if x.dtype == fused.dtype else x.astype(fused.dtype) for x in logits]

    def _query(self, layer: int, fused: Tensor) -> Tensor:
        """Z (or u Z) and, where all tower layers share it, b."""
        query = fused.detach() if self.config.gate_detach else fused
        if self.query is not None:
            query = self.query(query)
        if not self.bias_joins_query:
            return query
        return add_bias(query, self.gates[self._gate_name(layer, 0)].bias)

    def _gated(
        self, layer: int, fused: Tensor, states: list[Tensor], links: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """g_k * T_k for each k, [B, S, D]."""
        if self.config.gate_dim == "none":
            return states
        logits = self._logits(layer, fused, links)
        if self.config.gate_dim == "layer_softmax":
            gates = (F.softmax(paddle.stack(logits), axis=0) * len(states)).unbind(0)
        else:
            query = self._query(layer, fused)
            gates = [F.sigmoid(logit + query) for logit in logits]
        return [gate * state for gate, state in zip(gates, states, strict=True)]

    def _total(self, layer: int, fused: Tensor, states: list[Tensor], links: Mapping[str, Tensor]) -> Tensor:
        """sum_k g_k * T_k, [B, S, D]."""
        if self.config.gate_dim in ("none", "layer_softmax"):
            gated = self._gated(layer, fused, states, links)
            return gated[0] if len(gated) == 1 else paddle.add_n(gated)
        logits, query = self._logits(layer, fused, links), self._query(layer, fused)
        if not paddle.is_grad_enabled():
            return gated_sum(query, states, logits)
        pairs = (tensor for pair in zip(states, logits, strict=True) for tensor in pair)
        return _GatedSum.apply(query, *pairs)


class _Shares(nn.Layer):
    """The weights a_k of `link_reduce=learned`, each 1 / K at the start."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = self.create_parameter([count], attr=constant_attr(1 / count))
