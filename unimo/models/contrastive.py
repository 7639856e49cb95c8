"""Contrastive losses that span all rounds of an optimizer step, with exact gradients.

A step may cut the batch of a rank into rounds, of which only one fits into memory. A contrastive loss needs
the vectors of all of them: they are its negatives. So (Gao et al., 2021, "Scaling deep contrastive learning
batch size under memory limited setup") the vectors of all rounds are computed without gradients; the loss
over all of them, those of the other ranks included, gives its gradient by each vector once; then each round
runs forward again and goes backward from its vectors with these gradients. `unimo/training/rounds.py` does
so for every layer of this kind, whatever its losses.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import paddle
from paddle import Tensor, nn

from unimo.losses.vectors import Vectors

Scalars = dict[str, Tensor]
OTHERS = ""
"""Stands for all losses that are not named."""


@dataclass(frozen=True)
class Spanned:
    """A contrastive loss over a whole step, as one of its rounds learns from it.

    The loop averages over rounds; gradients are scaled so that their average is that of the step.
    """

    value: Tensor
    """The loss, a scalar without gradient."""
    report: Mapping[str, Tensor]
    """Values to report with it, by name."""
    by_vectors: Sequence[Tensor]
    """Gradients by `Vectors.learned` of this round."""
    by_parameters: Sequence[tuple[Tensor, Tensor]]
    """Parameters that the comparison itself uses, such as a temperature, and the gradients by them."""

    def loss(self, vectors: Vectors) -> Tensor:
        """Return the value of the loss, with its gradient by the vectors of this round and by parameters."""
        pairs = [*zip(vectors.learned(), self.by_vectors, strict=True), *self.by_parameters]
        # Linear in what is learned, with the gradients as coefficients; its own value does not matter.
        linear = sum((learned.astype(gradient.dtype) * gradient).sum() for learned, gradient in pairs)
        return self.value + (linear - linear.detach())


@dataclass(frozen=True)
class Round:
    """One of several rounds of a step, and what it has to know of the others."""

    seed: int
    """Seed of this round, step and rank; both forward passes draw the dropout of their vectors by it."""
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """Factors of losses by name, and of `OTHERS`, which make the average over rounds of a mean over some
    values (masked tokens, samples) the mean over those of the step."""
    spanned: Mapping[str, Spanned] = field(default_factory=dict)
    """Contrastive losses of the step by name; none yet in the pass that computes the vectors."""

    def weigh(self, scalars: Mapping[str, Tensor]) -> Scalars:
        """Return losses or accuracies of this round, each with its share in the step.

        `LOSS_accuracy` counts the same as `LOSS`; what spans the step is whole already.
        """
        weighed = {}
        for name, value in scalars.items():
            loss = name.removesuffix("_accuracy")
            share = 1.0 if loss in self.spanned else self.weights.get(loss, self.weights[OTHERS])
            weighed[name] = value * share
        return weighed


class Contrastive(nn.Layer):
    """Base of layers that may have contrastive losses.

    A layer names them (`contrasts`), computes what each compares (`vectors`), and the loss from that
    (`compare`). Its losses take the vectors after a call of `replay`, and the loss from `over_step`.
    """

    contrasts: Collection[str] = ()
    """Names of the contrastive losses."""
    round: Round | None = None
    """The round that a forward pass is; None where it is a whole step, or none at all."""

    def vectors(self, *inputs: Any) -> dict[str, Vectors]:
        """Compute what the contrastive losses of a batch compare, by name, except those of absent parts."""
        return {}

    def compare(self, name: str, vectors: Vectors, *inputs: Any) -> tuple[Tensor, Scalars]:
        """Compute a contrastive loss, a scalar, and its report from the vectors of one batch, or of all
        batches of a step. Collective."""
        raise NotImplementedError

    def replay(self, name: str) -> None:
        """Begin the random numbers for the vectors of a loss: in a step of several rounds both forward passes
        draw the same ones, so that they agree bit for bit."""
        if self.round is not None:
            paddle.seed(zlib.crc32(f"{self.round.seed}/{name}".encode()) & 0x7FFFFFFF)

    def over_step(self, name: str, vectors: Vectors, *inputs: Any) -> tuple[Tensor, Scalars]:
        """Return a loss over the whole step, and its report. Collective.

        Args:
            name: one of `contrasts`.
            vectors: those of this batch.
            inputs: what `compare` takes besides.
        """
        if self.round is None:
            return self.compare(name, vectors, *inputs)
        spanned = self.round.spanned[name]
        return spanned.loss(vectors), dict(spanned.report)


@contextlib.contextmanager
def one_round(layer: nn.Layer, place: Round) -> Iterator[None]:
    """Let a forward pass of `layer` and the layers inside be one round of a step."""
    inside = [part for part in layer.sublayers(include_self=True) if isinstance(part, Contrastive)]
    for part in inside:
        part.round = place
    try:
        yield
    finally:
        for part in inside:
            part.round = None
