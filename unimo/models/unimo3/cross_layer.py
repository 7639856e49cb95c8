"""The idea of UNIMO-3: each fusion layer reads many layers of both towers, each through a gate.

Section 3.3 of the paper (arXiv 2305.13697), here for text; Eqs (7), (10), (11) say the same of images:

    Z_0         = W^T T_{S-1} + T^type                          Eq. (6)     CrossLayerLinks.read_tower
    g_k         = sigmoid(W^G T_k + b + Z_{l-1})                Eq. (8)     gated_sum
    Z~_{l-1}    = LayerNorm(sum_k (Z_{l-1} + g_k * T_k))        Eq. (9)     CrossLayerLinks.forward

l = 1 .. m counts the linked fusion layers, k (the paper's L_t) the tower layers that layer l reads:
`linked_layers` in config.py lists them, and S, the start layer, is `FusionConfig.start`. Each l has a W^G and
b of its own, shared by all its k. T_k in Eqs (8) and (9) is the projected state W^T T_k + T^type, which has
the width of Z. docs/papers/unimo3.md names the other ways in which the equations can be read.

Two things are computed in another order than they are written, with the same result:

- The sum of Eq. (9) over K tower layers is K Z + sum_k g_k * T_k. LayerNorm does not see a common factor, so
  K is divided out, and the input of the norm stays of one size however many layers are read.
- W^G T_k does not depend on Z. It is computed when a text or image is encoded (`gate_logits`) and travels
  with it, so that all passes that read the same image share this product.

Shapes: B batch, S tokens, D fusion width, K linked tower layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from unimo.models.unimo3.config import FusionConfig, linked_layers
from unimo.nn.init import linear
from unimo.nn.kernels import LayerNorm, add_bias


def gated_sum(query: Tensor, states: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """Compute sum_k g_k * T_k, where g_k = sigmoid(W^G T_k + b + Z) is the gate of Eqs (8) and (10).

    A gate has one value for each token and channel, and looks at the state that it lets through and at the
    fusion state: a fusion layer takes from each tower layer what it lacks, words from low layers and the
    meaning of the whole from high ones (section 1).

    Args:
        query: b + Z [B, S, D], the part of the gates that all tower layers share.
        states: T_k, K tensors [B, S, D].
        logits: W^G T_k, K tensors [B, S, D].

    Returns:
        [B, S, D].
    """
    # One tower layer at a time fits the cache: on a CPU a gated sum over twelve stacked layers of ViT-B takes
    # 4.5 times as long.
    total = F.sigmoid(logits[0] + query) * states[0]
    for state, logit in zip(states[1:], logits[1:], strict=True):
        total = total + F.sigmoid(logit + query) * state
    return total


class CrossLayerLinks(nn.Layer):
    """Links of one modality: what each linked fusion layer reads of the tower, and through which gates.

    Parameters: `gates.{l}.{weight, bias}`, W^G and b of fusion layer l; `norms.{l - 1}`, the LayerNorm of
    Eqs (9) and (11).

    Attributes:
        start: S; the fusion starts from the projected state of tower layer S - 1.
        table: for each linked fusion layer the numbers k of the tower layers that it reads.
        used: the tower layers that at least one fusion layer reads, in order.
    """

    def __init__(self, config: FusionConfig, num_tower_layers: int, given_start: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.start = config.start(num_tower_layers, given_start)
        self.table = linked_layers(config, num_tower_layers, given_start)
        self.used = sorted({k for numbers in self.table for k in numbers})
        self.norms = nn.LayerList(LayerNorm(width, 1e-5) for _ in self.table)
        # Without gates (BridgeTower) links are always open, and a layer that reads nothing needs none.
        self.gates = nn.LayerDict()
        for layer, numbers in enumerate(self.table, start=1):
            if numbers and config.gate_dim == "vector":
                self.gates[str(layer)] = linear(width, width, config.init_std)

    def read_tower(
        self, tower: Sequence[Tensor], transform: nn.Linear, type_row: Tensor, norm: nn.Layer | None = None
    ) -> dict[str, Tensor]:
        """Compute everything of a tower that fusion will read: Eq. (6) or (7), and W^G T_k of all gates.

        Args:
            tower: states of all tower layers, embeddings first, [B, S, tower width] each.
            transform: W^T or W^V, tower width to D.
            type_row: T^type or V^type, [D].
            norm: last norm of the tower, which a pre-norm tower (CLIP) leaves to whoever reads a layer.

        Returns:
            `start`: Z_0 [B, S, D]; `state.{k}`: T_k [B, S, D]; and the result of `gate_logits`.
        """
        bias = transform.bias + type_row

        def project(k: int) -> Tensor:
            state = tower[k] if norm is None else norm(tower[k])
            return add_bias(paddle.matmul(state, transform.weight), bias)

        states = {k: project(k) for k in self.used}
        before = self.start - 1
        start = states[before] if before in states else project(before)
        return {
            "start": start,
            **{f"state.{k}": state for k, state in states.items()},
            **self.gate_logits(states),
        }

    def gate_logits(self, states: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Compute W^G T_k for all links, the part of every gate that does not need Z.

        Args:
            states: T_k [B, S, D] of each tower layer k in `used`.

        Returns:
            `logits.{l}.{k}` [B, S, D] for each fusion layer l with gates and each tower layer k it reads.
        """
        return {
            f"logits.{layer}.{k}": paddle.matmul(states[k], gate.weight)
            for layer, gate in self.gates.items()
            for k in self.table[int(layer) - 1]
        }

    def forward(self, layer: int, fused: Tensor, links: Mapping[str, Tensor]) -> Tensor:
        """Compute Z~, the input of fusion layer `layer`: Eqs (8) and (9), or (10) and (11).

        Args:
            layer: l, from 1.
            fused: Z_{l-1} [B, S, D], output of the fusion layer before, or Z_0.
            links: result of `read_tower`.

        Returns:
            [B, S, D].
        """
        norm, numbers = self.norms[layer - 1], self.table[layer - 1]
        if not numbers:
            return norm(fused)
        states = [links[f"state.{k}"] for k in numbers]
        if str(layer) in self.gates:
            # Under mixed precision Z is float32 where products are not.
            logits = [links[f"logits.{layer}.{k}"].astype(fused.dtype) for k in numbers]
            query = add_bias(fused, self.gates[str(layer)].bias)
            if paddle.is_grad_enabled():
                pairs = zip(states, logits, strict=True)
                total = _GatedSum.apply(query, *(tensor for pair in pairs for tensor in pair))
            else:
                total = gated_sum(query, states, logits)
        else:
            total = states[0] if len(states) == 1 else paddle.add_n(states)
        # LN(K Z + total) = LN(Z + total / K), up to epsilon.
        return norm(fused + (total if len(states) == 1 else total * (1 / len(states))))

    def open_gates(self, layer: int, fused: Tensor, links: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """Compute the gates of a fusion layer, of which `forward` keeps none.

        Args:
            layer, fused, links: as of `forward`.

        Returns:
            Tower layer k -> g_k [B, S, D]; nothing for a layer whose links are always open.
        """
        if str(layer) not in self.gates:
            return {}
        query = add_bias(fused, self.gates[str(layer)].bias)
        logits = {k: links[f"logits.{layer}.{k}"].astype(fused.dtype) for k in self.table[layer - 1]}
        return {k: F.sigmoid(logit + query) for k, logit in logits.items()}


class _GatedSum(PyLayer):
    """`gated_sum` whose backward pass computes the gates again, instead of K tensors [B, S, D] being kept.

    With u the gradient of the sum: T_k gets u * g_k, W^G T_k gets u * T_k * g_k * (1 - g_k), and b + Z gets
    the sum of the latter over k.
    """

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
            to_state = (gradient * gate).astype(state.dtype)
            to_logits = (gradient * state).multiply_(gate).multiply_(1.0 - gate)
            to_query = to_logits.clone() if to_query is None else to_query.add_(to_logits)
            gradients += [to_state, to_logits]
        # Paddle wants None for what needs no gradient, such as the states of frozen towers.
        return tuple(
            g if needed else None for g, needed in zip((to_query, *gradients), ctx.needed, strict=True)
        )
