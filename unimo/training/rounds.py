"""The rounds of an optimizer step: what each must know of the others, so that together they are one batch.

Contrastive losses span all rounds, see `unimo/models/contrastive.py`. Memory is that of one round, and the
vectors of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import paddle

from unimo.losses.vectors import Vectors
from unimo.models.contrastive import Round, Spanned, one_round
from unimo.nn.kernels import no_gradients_yet
from unimo.tasks.base import Batch, Task, to_tensors
from unimo.training.precision import Precision


def plan(task: Task, batches: Sequence[Batch], seeds: Sequence[int], precision: Precision) -> list[Round]:
    """Return what the rounds of a step must know of each other. Collective.

    Args:
        task: the bare task.
        batches: those of all rounds of this rank, as arrays.
        seeds: one for each round.
        precision: number formats of the forward passes.
    """
    if not task.contrasts:
        return [Round(seed) for seed in seeds]
    vectors = []
    for batch, seed in zip(batches, seeds, strict=True):
        with no_gradients_yet(), precision.autocast(), one_round(task, Round(seed)):
            found = task.vectors(to_tensors(batch))
        vectors.append({name: part.leaves() for name, part in found.items()})
    return [Round(*parts) for parts in zip(seeds, span(task, vectors), strict=True)]


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
