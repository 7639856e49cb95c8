"""Which sample comes next: a weighted mixture of corpora that can stop and go on anywhere.

The order follows from the seed, the step and the epochs alone. Every rank computes the global batch and
takes its own slice, so the order does not depend on the number of ranks either.

Corpora may be of several kinds (pairs, texts, images). Then every slice of a batch holds its share of each
kind, so that all ranks compute the same losses, and corpora may come in after a curriculum's first part.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from unimo.errors import CheckpointError, ConfigError


class SampleKey(NamedTuple):
    """Names one use of one sample."""

    corpus: str
    index: int
    epoch: int


def generator(seed: int, *words: int | str) -> np.random.Generator:
    """Make a random generator that depends on the seed and on every word, and on nothing else."""
    numbers = (zlib.crc32(word.encode()) if isinstance(word, str) else word for word in words)
    return np.random.Generator(np.random.PCG64([seed % 2**63, *numbers]))


def mixture_shares(sizes: Mapping[str, int], weights: Mapping[str, float | None] | None) -> dict[str, float]:
    """Compute the share of each corpus in the mixture; the shares sum to 1.

    Without any weight the shares follow the sizes. Weights for all corpora are scaled to sum to 1. When
    only some have one, those are shares, and the others divide the rest by their sizes.

    Raises:
        ConfigError: no corpus, an empty one, or weights that leave nothing to share out.
    """
    empty = [name for name, size in sizes.items() if size < 1]
    if empty or not sizes:
        raise ConfigError(f"no samples in {', '.join(empty) or 'the mixture'}; check the path and the split")
    fixed = {name: weight for name in sizes if (weight := (weights or {}).get(name)) is not None}
    if any(not math.isfinite(weight) or weight < 0 for weight in fixed.values()):
        raise ConfigError(f"corpus weights {fixed}: expected finite numbers of 0 or more")
    total = sum(fixed.values())
    free = {name: size for name, size in sizes.items() if name not in fixed}
    if not free:
        if total <= 0:
            raise ConfigError(f"corpus weights {fixed}: expected at least one above 0")
        return {name: weight / total for name, weight in fixed.items()}
    if total >= 1 and fixed:
        raise ConfigError(
            f"corpus weights {fixed} leave no share for {', '.join(free)}; "
            "give every corpus a weight, or keep the sum below 1"
        )
    samples = sum(free.values())
    rest = {name: (1 - total) * size / samples for name, size in free.items()}
    return {name: fixed.get(name, rest.get(name, 0.0)) for name in sizes}


@dataclass(frozen=True)
class Curriculum:
    """Corpora of several kinds, and how long those that begin are alone."""

    kind_of: Mapping[str, str]
    """Corpus name -> kind, in the order of the batch; corpora of the first kind begin."""
    first_epochs: float = 0.0
    """Passes over the corpora that begin, all together, before the others come in."""
    waiting: frozenset[str] = frozenset()
    """Names of corpora of the first kind that do not begin, but come in with the other kinds."""

    @property
    def beginning(self) -> list[str]:
        """Names of the corpora that begin, in their order."""
        first = next(iter(self.kind_of.values()))
        return [name for name, kind in self.kind_of.items() if kind == first and name not in self.waiting]


class MixtureSampler:
    """Endless global batches of sample keys, of which this rank gets its slice.

    Each sample's corpus is drawn from the shares with a generator of (seed, step). Inside a corpus every
    sample comes once an epoch, in an order from (seed, corpus, epoch). With corpora of several kinds, the
    number of samples of each kind is its share of the batch, rounded up or down by chance, and they are
    spread evenly over the batch.

    Args:
        sizes: corpus name -> number of samples.
        weights: corpus name -> weight or None, see `mixture_shares`.
        global_batch: samples of one optimizer step over all ranks.
        rank, world_size: which contiguous slice of each global batch is returned.

    Attributes:
        first_samples: samples of the corpora that begin after which the others come in.

    Raises:
        ConfigError: wrong weights, or a global batch that does not divide by `world_size`.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, float | None] | None,
        global_batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        curriculum: Curriculum | None = None,
    ) -> None:
        if global_batch < 1 or global_batch % world_size:
            raise ConfigError(f"batch size {global_batch} does not divide among {world_size} ranks")
        self.sizes = dict(sizes)
        self.shares = mixture_shares(sizes, weights)
        self.global_batch = global_batch
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.step = 0
        self.curriculum = curriculum
        self._names = list(sizes)
        self._first = self._names
        self.first_shares, self.first_samples = self.shares, 0.0
        if curriculum is not None:
            self._first = curriculum.beginning
            first_sizes = {name: sizes[name] for name in self._first}
            self.first_shares = mixture_shares(first_sizes, weights)
            self.first_samples = curriculum.first_epochs * sum(first_sizes.values())
        self._epoch = dict.fromkeys(self._names, 0)
        self._position = dict.fromkeys(self._names, 0)
        self._orders: dict[str, tuple[int, np.ndarray]] = {}

    @property
    def first_kind_only(self) -> bool:
        """Whether the curriculum still keeps the next batch to the corpora that begin."""
        return self.curriculum is not None and self._taken(self._first) < self.first_samples

    @property
    def awaits_others(self) -> bool:
        """Whether there is a curriculum, and no other corpus than those that begin has given a sample yet."""
        others = [name for name in self._names if name not in self._first]
        return self.first_samples > 0 and self._taken(others) == 0

    def _taken(self, names: list[str]) -> int:
        """Count the samples that corpora have given so far."""
        return sum(self._epoch[name] * self.sizes[name] + self._position[name] for name in names)

    def next(self) -> list[SampleKey]:
        """Return the keys of this rank's part of the next global batch."""
        shares = self.first_shares if self.first_kind_only else self.shares
        chance = generator(self.seed, "mixture", self.step).random(self.global_batch)
        if self.curriculum is not None:
            chance = self._by_kind(chance, shares)
        bounds = np.cumsum([shares.get(name, 0.0) for name in self._names])[:-1]
        drawn = np.searchsorted(bounds, chance, side="right")
        indices = np.empty(self.global_batch, np.int64)
        epochs = np.empty(self.global_batch, np.int64)
        for number, name in enumerate(self._names):
            places = np.flatnonzero(drawn == number)
            indices[places], epochs[places] = self._take(name, len(places))
        self.step += 1
        share = self.global_batch // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        columns = (drawn[mine].tolist(), indices[mine].tolist(), epochs[mine].tolist())
        return [SampleKey(self._names[c], index, epoch) for c, index, epoch in zip(*columns, strict=True)]

    def _by_kind(self, chance: np.ndarray, shares: Mapping[str, float]) -> np.ndarray:
        """Return numbers in [0, 1) that `shares` turn into corpora; every slice gets its part of each kind.

        A kind owns the stretch of [0, 1) that its corpora own together.
        """
        share_of: dict[str, float] = {}
        for name in self._names:
            kind = self.curriculum.kind_of[name]
            share_of[kind] = share_of.get(kind, 0.0) + shares.get(name, 0.0)
        ends = np.cumsum(list(share_of.values()))
        ends /= ends[-1]
        # One draw shifts all roundings, so the counts sum to the batch and are right on average.
        shift = generator(self.seed, "kinds", self.step).random()
        counts = np.diff(np.floor(ends * self.global_batch + shift), prepend=np.floor(shift)).astype(int)
        kinds = np.repeat(np.arange(len(counts)), counts)
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
        kinds = kinds[np.argsort(places, kind="stable")]
        starts = np.concatenate([[0.0], ends[:-1]])
        return starts[kinds] + chance * (ends - starts)[kinds]

    def check_kinds(self, slices: int) -> None:
        """Check that each slice of a batch (ranks times rounds) holds every kind.

        Raises:
            ConfigError: some kind is too rare for the batch size.
        """
        kind_of = self.curriculum.kind_of if self.curriculum else {}
        for kind in dict.fromkeys(kind_of.values()):
            share = sum(self.shares[name] for name in self.sizes if kind_of[name] == kind)
            if math.floor(share * self.global_batch) < 2 * slices:
                enough = -(-math.ceil(2 * slices / max(share, 1e-6)) // slices) * slices
                raise ConfigError(
                    f"{kind} are {share:.2%} of the samples: too few for all {slices} parts (ranks x rounds) "
                    f"of a batch of {self.global_batch}; raise the weight of its corpora, or give "
                    f"train.batch_size={enough}"
                )

    def _take(self, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Take the next `count` indices of a corpus; return them and the epoch of each."""
        parts, epochs = [np.empty(0, np.int64)], []
        while count:
            if self._position[name] == self.sizes[name]:
                self._epoch[name] += 1
                self._position[name] = 0
            start = self._position[name]
            part = self.order(name, self._epoch[name])[start : start + count]
            parts.append(part)
            epochs += [self._epoch[name]] * len(part)
            self._position[name] += len(part)
            count -= len(part)
        return np.concatenate(parts), np.array(epochs, np.int64)

    def order(self, name: str, epoch: int) -> np.ndarray:
        """Return the indices of a corpus in the order of an epoch, [size]; a subclass may choose another."""
        cached = self._orders.get(name)
        if cached is None or cached[0] != epoch:
            kind = np.int32 if self.sizes[name] < 2**31 else np.int64
            order = np.arange(self.sizes[name], dtype=kind)
            generator(self.seed, "order", name, epoch).shuffle(order)
            cached = self._orders[name] = (epoch, order)
        return cached[1]

    def state_dict(self) -> dict[str, Any]:
        """Return step, and epoch and position of every corpus; plain data for JSON."""
        corpora = {
            name: {"size": self.sizes[name], "epoch": self._epoch[name], "position": self._position[name]}
            for name in self._names
        }
        return {"seed": self.seed, "step": self.step, "corpora": corpora}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another sampler stood; the number of ranks may differ.

        Raises:
            CheckpointError: the state is of other corpora, sizes or seed.
        """
        sizes = {name: corpus["size"] for name, corpus in state["corpora"].items()}
        if sizes != self.sizes or state["seed"] != self.seed:
            raise CheckpointError(
                f"the data of the checkpoint ({sizes}, seed {state['seed']}) are not those of this run "
                f"({self.sizes}, seed {self.seed}); start a new run from its weights (init_from) instead of "
                "resuming"
            )
        self.step = state["step"]
        self._epoch = {name: corpus["epoch"] for name, corpus in state["corpora"].items()}
        self._position = {name: corpus["position"] for name, corpus in state["corpora"].items()}
