"""The paper's idea: gated links from many tower layers into each fusion layer (Eqs 8 to 11).

`CrossLayerLinks` is one modality; text and image each have their own. Shapes: B batch, K linked
tower layers, S tokens, D fusion width, G gate width (D, or 1 for scalar gates).

The part of a gate that comes from the tower, W T_k + b, does not depend on the fusion state Z. It is
computed once for all linked layers (`gate_logits`) and travels with the encoded image, so that every
pass that reads this image shares it.
"""

from __future__ import annotations

from collections.abc import Mapping

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from unimo.models.unimo3.config import FusionConfig, linked_layers
from unimo.nn.init import constant_attr, linear, normal_attr
from unimo.nn.kernels import LayerNorm


class _GatedSum(PyLayer):
    """sum_k sigmoid(logits_k + z) * states_k, keeping no gate for the backward pass but recomputing it."""

    @staticmethod
    def forward(ctx, states: Tensor, logits: Tensor, query: Tensor) -> Tensor:
        ctx.save_for_backward(states, logits, query)
        return gated_sum(states, logits, query)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, logits, query = ctx.saved_tensor()
        gates = F.sigmoid(logits + query.unsqueeze(1))
        gradient = gradient.unsqueeze(1)
        to_gates = gradient * states
        if gates.shape[-1] == 1:
            to_gates = to_gates.sum(-1, keepdim=True)
        to_logits = to_gates * (gates - gates * gates)
        to_query = to_logits.sum(1)
        return gradient * gates, to_logits.astype(logits.dtype), to_query.astype(query.dtype)


def gated_sum(states: Tensor, logits: Tensor, query: Tensor) -> Tensor:
    """sum_k g_k * T_k with g_k = sigmoid(W T_k + b + Z): the gates of Eqs (8) and (10).

    Args:
        states: T_k, [B, K, S, D].
        logits: W T_k + b, [B, K, S, G].
        query: Z, or u Z for scalar gates, [B, S, G].

    Returns:
        [B, S, D].
    """
    return (F.sigmoid(logits + query.unsqueeze(1)) * states).sum(1)


class Gate(nn.Layer):
    """W T_k + b for a stack of tower layers; `layers` > 1 holds one W and b for each of them."""

    def __init__(self, width: int, out: int, layers: int, config: FusionConfig) -> None:
        super().__init__()
        stack = [layers] if layers > 1 else []
        std, bias = normal_attr(config.init_std), constant_attr(config.gate_bias_init)
        self.weight = self.create_parameter([*stack, width, out], attr=std)
        # A softmax over layers does not see what all layers have in common.
        has_bias = config.gate_dim != "layer_softmax" or layers > 1
        self.bias = self.create_parameter([*stack, out], attr=bias) if has_bias else None

    def forward(self, states: Tensor) -> Tensor:
        """[B, K, S, D] to [B, K, S, G]."""
        if self.weight.ndim == 2:
            return F.linear(states, self.weight, self.bias)
        return paddle.matmul(states, self.weight) + self.bias.unsqueeze(1)


class CrossLayerLinks(nn.Layer):
    """Links of one modality: which tower layers each internal fusion layer reads, and how.

    Attributes:
        table: for each internal layer 1..m the tower layers that it reads.
        used: tower layers that some link reads, as one range.
    """

    def __init__(self, config: FusionConfig, num_tower_layers: int, given_start: int) -> None:
        super().__init__()
        self.config = config
        self.start = config.start(num_tower_layers, given_start)
        self.table = linked_layers(config, num_tower_layers, given_start)
        linked = [layers for layers in self.table if len(layers)]
        self.used = range(min(r.start for r in linked), max(r.stop for r in linked)) if linked else range(0)
        width = config.hidden_size
        self.norms = nn.LayerList(LayerNorm(width, 1e-5) for _ in self.table)
        self.gates = nn.LayerDict(self._make_gates())
        self.query = None
        if config.gate_dim == "scalar" and linked:
            self.query = linear(width, 1, config.init_std, bias=False)
        self.shares = None
        if config.link_reduce == "learned":
            self.shares = nn.ParameterList(
                self.create_parameter([max(len(layers), 1)], attr=constant_attr(1 / max(len(layers), 1)))
                for layers in self.table
                if len(layers)
            )

    def _make_gates(self) -> dict[str, Gate]:
        """Gates by the number of their fusion layer, or one named `shared`."""
        config = self.config
        if config.gate_dim == "none" or not self.used:
            return {}
        out = 1 if config.gate_dim == "scalar" else config.hidden_size
        if config.gate_share in ("modality", "uni_layer"):
            layers = len(self.used) if config.gate_share == "uni_layer" else 1
            return {"shared": Gate(config.hidden_size, out, layers, config)}
        return {
            str(number): Gate(
                config.hidden_size, out, len(layers) if config.gate_share == "pair" else 1, config
            )
            for number, layers in enumerate(self.table, start=1)
            if len(layers)
        }

    def gate_logits(self, states: Tensor) -> dict[str, Tensor]:
        """W T_k + b for all linked layers: the part of every gate that does not need Z.

        Args:
            states: features of the tower layers in `used`, [B, K, S, D].

        Returns:
            `logits.{l}` [B, K_l, S, G] for each internal layer l, or `logits.shared` [B, K, S, G].
        """
        logits = {}
        for name, gate in self.gates.items():
            part = states if name == "shared" else self._linked(states, int(name))
            logits[f"logits.{name}"] = gate(part)
        return logits

    def _linked(self, stack: Tensor, layer: int) -> Tensor:
        """The tower layers that fusion layer `layer` reads, out of those in `used`."""
        layers = self.table[layer - 1]
        if len(layers) == len(self.used):
            return stack
        first = layers.start - self.used.start
        return stack[:, first : first + len(layers)]

    def forward(self, layer: int, fused: Tensor, links: Mapping[str, Tensor]) -> Tensor:
        """Eqs (9) and (11): the input of internal fusion layer `layer`.

        Args:
            layer: l, from 1.
            fused: Z of the previous fusion layer, [B, S, D].
            links: `states` [B, K, S, D] and what `gate_logits` returned.

        Returns:
            Z tilde, [B, S, D].
        """
        norm, count = self.norms[layer - 1], len(self.table[layer - 1])
        if not count:
            return norm(fused)
        states = self._linked(links["states"], layer)
        reduce = self.config.link_reduce
        if reduce == "ln_each":
            each = fused.unsqueeze(1) + self._weights(layer, fused, links, count) * states
            return norm(each).mean(1)
        if self.shares is not None:
            number = layer - 1 if len(self.table[0]) else layer - 2
            states = states * self.shares[number].reshape([1, -1, 1, 1])
        total = self._gated(layer, fused, states, links, count)
        if reduce == "mean":
            return norm(fused + (total if count == 1 else total * (1 / count)))
        return norm((fused * count if reduce == "literal" else fused) + total)

    def _logits(self, layer: int, links: Mapping[str, Tensor]) -> Tensor:
        if "logits.shared" in links:
            return self._linked(links["logits.shared"], layer)
        return links[f"logits.{layer}"]

    def _query(self, fused: Tensor) -> Tensor:
        query = fused.detach() if self.config.gate_detach else fused
        return query if self.query is None else self.query(query)

    def _weights(self, layer: int, fused: Tensor, links: Mapping[str, Tensor], count: int) -> Tensor | float:
        """The gates themselves, [B, K, S, G]."""
        if self.config.gate_dim == "none":
            return 1.0
        logits = self._logits(layer, links)
        if self.config.gate_dim == "layer_softmax":
            return F.softmax(logits, axis=1) * count
        return F.sigmoid(logits + self._query(fused).unsqueeze(1))

    def _gated(
        self, layer: int, fused: Tensor, states: Tensor, links: Mapping[str, Tensor], count: int
    ) -> Tensor:
        """sum_k g_k * T_k, [B, S, D]."""
        if self.config.gate_dim in ("none", "layer_softmax"):
            weighted = states * self._weights(layer, fused, links, count)
            return weighted.squeeze(1) if count == 1 else weighted.sum(1)
        logits, query = self._logits(layer, links), self._query(fused)
        if logits.dtype != query.dtype:
            logits = logits.astype(query.dtype)
        apply = _GatedSum.apply if paddle.is_grad_enabled() else gated_sum
        return apply(states, logits, query)
