"""The rounds of an optimizer step: what each must know of the others, so that together they are one batch.

Losses that are means over varying counts weigh by what a round has of them, and contrastive losses span all
rounds, see `unimo/models/contrastive.py`. Memory is that of one round, and the vectors of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import paddle

from unimo import distributed
from unimo.losses.vectors import Vectors
from unimo.models.contrastive import Round, Spanned, one_round
from unimo.nn.kernels import no_gradients_yet
from unimo.tasks.base import Batch, Task, to_tensors
from unimo.training.precision import Precision


def plan(
    task: Task,
    batches: Sequence[Batch],
    seeds: Sequence[int],
    precision: Precision,
    after_round: Callable[[int], None],
) -> list[Round]:
    """Return what the rounds of a step must know of each other. Collective.

    Args:
        task: the bare task.
        batches: those of all rounds of this rank, as arrays.
        seeds: one for each round.
        precision: number formats of the forward passes.
        after_round: called with the number of rounds whose vectors are there; may raise to end the step.
    """
    weights = share_counts([task.counts(batch) for batch in batches])
    if not task.contrasts:
        return [Round(seed, found) for seed, found in zip(seeds, weights, strict=True)]
    vectors = []
    for batch, seed in zip(batches, seeds, strict=True):
        with no_gradients_yet(), precision.autocast(), one_round(task, Round(seed)):
            found = task.vectors(to_tensors(batch))
        vectors.append({name: part.leaves() for name, part in found.items()})
        after_round(len(vectors))
    spanned = span(task, vectors)
    return [Round(*parts) for parts in zip(seeds, weights, spanned, strict=True)]


def share_counts(counts: Sequence[Mapping[str, int]]) -> list[dict[str, paddle.Tensor]]:
    """Return the weights of the rounds in each loss, whose average over rounds is 1. Collective.

    A loss of a round is a mean over the values of all ranks, and so are the counts here.
    """
    names = sorted({name for found in counts for name in found})
    table = np.array([[found.get(name, 0) for name in names] for found in counts], np.float64)
    shared = distributed.mean_over_ranks(paddle.to_tensor(table))
    # Without any value all losses are 0, and so may be their weights.
    weights = shared * (len(counts) / paddle.clip(shared.sum(axis=0), min=1e-9))
    return [dict(zip(names, row.unbind(0), strict=True)) for row in weights.astype("float32").unbind(0)]


def span(task: Task, rounds: Sequence[Mapping[str, Vectors]]) -> list[dict[str, Spanned]]:
    """Compute the contrastive losses over all rounds, and what each round learns from them. Collective.

    Args:
        task: compares the vectors.
        rounds: the vectors of each round by name of the loss, as `Vectors.leaves` returns them; rounds
            without the part that a loss belongs to lack it.
    """
    learning = [parameter for parameter in task.parameters() if not parameter.stop_gradient]
    spanned: list[dict[str, Spanned]] = [{} for _ in rounds]
    for name in sorted({name for found in rounds for name in found}):
        present = [number for number, found in enumerate(rounds) if name in found]
        parts = [rounds[number][name] for number in present]
        loss, report = task.compare(name, type(parts[0]).join(parts))
        leaves = [leaf for part in parts for leaf in part.learned()]
        gradients = iter(paddle.grad(loss, [*leaves, *learning], allow_unused=True))
        # The loop averages over all rounds. Each has gradients by vectors of its own; value and gradients by
        # parameters are the same in all that have this loss.
        share = len(rounds) / len(present)
        by_vectors = [[next(gradients) * len(rounds) for _ in part.learned()] for part in parts]
        by_parameters = [
            (parameter, gradient * share)
            for parameter, gradient in zip(learning, gradients, strict=True)
            if gradient is not None
        ]
        for number, own in zip(present, by_vectors, strict=True):
            values = {key: value * share for key, value in report.items()}
            spanned[number][name] = Spanned(loss.detach() * share, values, own, by_parameters)
    return spanned
