"""Batches, decoded by threads ahead of the training thread, in an order that threads do not change.

Broken records are counted, the first of each corpus is logged, and a run fails when there are too many.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from unimo.data.loading.batch import Batch
from unimo.data.loading.fingerprint import fingerprint
from unimo.data.loading.sampler import MixtureSampler, SampleKey, generator
from unimo.data.readers.base import Dataset
from unimo.data.record import ImageSource, Record
from unimo.errors import ConfigError, DataError, RecordError
from unimo.signals import Interrupted

logger = logging.getLogger(__name__)
Job = TypeVar("Job")
Result = TypeVar("Result")
RATE_CHECK_AFTER = 100
"""Records to read before the share of broken ones is judged."""


class Collator(Protocol):
    """Turns records into batches; its methods run in threads and may not keep state.

    A collator that reads further samples of its own choice for a batch also has `fill(keys, prepared,
    datasets, rng)`, which returns them prepared, to be collated after those of the keys. One that reads files
    beside the corpora has `sources()`, see `PairCollator`.
    """

    needs_false_image: bool

    def prepare(self, record: Record, rng: np.random.Generator) -> dict[str, Any]:
        """Decode and tokenize one record; a broken one raises `RecordError`."""

    def collate(self, prepared: Sequence[dict[str, Any]], rng: np.random.Generator) -> Batch:
        """Join what `prepare` returned for the records of a batch."""


class BadRecord(NamedTuple):
    """A record that could not be used."""

    corpus: str
    index: int
    reason: str

    def __str__(self) -> str:
        return f"{self.corpus}[{self.index}]: {self.reason}"


class RecordCounter:
    """Counts read and broken records by corpus, and judges their share.

    Args:
        max_bad_rate: largest share.
        setting: what a person changes to allow more, for the message.
    """

    def __init__(self, max_bad_rate: float, setting: str = "data.max_bad_rate") -> None:
        self.max_bad_rate, self.setting = max_bad_rate, setting
        self.read: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()

    def add(self, keys: Iterable[SampleKey], bad: Iterable[BadRecord]) -> None:
        """Count one batch.

        Raises:
            DataError: too many records were broken, of one corpus or in all.
        """
        self.read.update(key.corpus for key in keys)
        for record in bad:
            self.bad[record.corpus] += 1
            first = self.bad[record.corpus] == 1
            log = logger.warning if first else logger.debug
            log("skipped %s%s", record, " (further ones are only counted)" if first else "")
            self.check(RATE_CHECK_AFTER, str(record))

    def check(self, minimum: int, last: str = "") -> None:
        """Raise DataError, naming the `last` broken one, if more than `max_bad_rate` of at least `minimum`
        records were broken."""
        groups = {name: (self.read[name], self.bad[name]) for name in self.bad}
        groups["all corpora"] = (sum(self.read.values()), sum(self.bad.values()))
        for name, (read, bad) in groups.items():
            if read >= minimum and bad > self.max_bad_rate * read:
                example = f"; the last one: {last}" if last else ""
                raise DataError(
                    f"{bad} of {read} records of {name} were broken, more than {self.setting}="
                    f"{self.max_bad_rate:g} allows{example}"
                )

    def state_dict(self) -> dict[str, dict[str, int]]:
        """Counts so far, `read` and `bad` by corpus."""
        return {"read": dict(self.read), "bad": dict(self.bad)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Set the counts."""
        self.read, self.bad = Counter(state["read"]), Counter(state["bad"])


def ordered_map(
    function: Callable[[Job], Result], jobs: Iterable[Job], num_workers: int, ahead: int
) -> Iterator[Result]:
    """Like `map`, computed by threads up to `ahead` results before they are asked for.

    An exception of `function` comes out where its result would have. Closing the generator drops what
    has not begun and waits for what has, unless a signal is why. With `num_workers` 0 everything happens in
    the caller's thread.
    """
    if num_workers < 1:
        yield from map(function, jobs)
        return
    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="data")
    pending: deque[Future[Result]] = deque()
    waits = True
    try:
        for job in jobs:
            pending.append(executor.submit(function, job))
            if len(pending) > max(ahead, num_workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except Interrupted:
        waits = False
        raise
    finally:
        executor.shutdown(wait=waits, cancel_futures=True)


def read_batch(
    datasets: Mapping[str, Dataset],
    collator: Collator,
    keys: Sequence[SampleKey],
    seed: int,
    *words: int,
) -> tuple[Batch | None, list[BadRecord]]:
    """Read, prepare and collate the samples of one batch; None when every one of them was broken.

    Chance of a sample comes from (seed, corpus, epoch, index), that of the batch from (seed, *words).
    """
    prepared, bad = [], []
    for key in keys:
        dataset = datasets[key.corpus]
        rng = generator(seed, "sample", *key)
        try:
            record = dataset[key.index]
            takes_one = collator.needs_false_image and record.image is not None and record.text is not None
            if takes_one and record.false_image is None:
                record = dataclasses.replace(record, false_image=draw_false_image(record, dataset, rng))
            prepared.append(collator.prepare(record, rng))
        except RecordError as error:
            bad.append(BadRecord(key.corpus, key.index, str(error)))
    if not prepared:
        return None, bad
    rng = generator(seed, "batch", *words)
    if hasattr(collator, "fill"):
        prepared += collator.fill(keys, prepared, datasets, rng)
    return collator.collate(prepared, rng), bad


def draw_false_image(record: Record, dataset: Dataset, rng: np.random.Generator) -> ImageSource:
    """Draw an image of another group from a corpus, uniformly over samples (`task.false_images=dataset`).

    Raises:
        RecordError: none of 20 draws gave one.
    """
    for drawn in rng.integers(len(dataset), size=20).tolist():
        try:
            other = dataset[drawn]
        except RecordError:
            continue
        if other.image_group != record.image_group:
            return other.image
    raise RecordError(f"found no second image in {dataset.name} for a mismatched pair")


class _TrainJob(NamedTuple):
    keys: list[SampleKey]
    step: int
    part: int
    state: dict[str, Any] | None
    """Sampler state after the step, on its last part."""
    first_kind_only: bool
    """Whether the curriculum keeps corpora out of this step that come in later."""


def _train_jobs(sampler: MixtureSampler, rounds: int) -> Iterator[_TrainJob]:
    while True:
        step, alone = sampler.step, sampler.first_kind_only
        keys = sampler.next()
        size = len(keys) // rounds
        for part in range(rounds):
            state = sampler.state_dict() if part == rounds - 1 else None
            yield _TrainJob(keys[part * size : (part + 1) * size], step, part, state, alone)


class TrainLoader:
    """Endless training batches of one rank; see `unimo/data/loading/sampler.py` for their order.

    Args:
        num_workers: threads that decode; batches do not depend on it. 0 decodes in the caller.
        prefetch: batches kept ready, at least those of one step, which are asked for together.
        max_bad_rate: share of broken records, of one corpus or of all, at which the run fails; judged
            from 100 records on.
        rounds: parts into which this rank's share of a step is cut, one batch each.

    Raises:
        ConfigError: the batch does not divide by ranks times parts.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        sampler: MixtureSampler,
        collator: Collator,
        num_workers: int = 2,
        prefetch: int = 4,
        max_bad_rate: float = 0.01,
        seed: int = 0,
        rounds: int = 1,
    ) -> None:
        self.datasets, self.sampler, self.collator = dict(datasets), sampler, collator
        self.num_workers, self.prefetch, self.seed, self.rounds = num_workers, prefetch, seed, rounds
        self.check_rounds(rounds)
        self.counter = RecordCounter(max_bad_rate)
        self._awaits_others = sampler.awaits_others
        self._batches: Iterator[tuple[_TrainJob, Batch | None, list[BadRecord]]] | None = None
        self._consumed = self._state(sampler.state_dict())
        self._fingerprints: dict[str, str] = {}

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            DataError: too many broken records, or a batch in which all were broken.
        """
        if self._batches is None:
            # `read` does not refer to the loader, so that dropping it closes the generator and its threads.
            datasets, collator, seed, rank = self.datasets, self.collator, self.seed, self.sampler.rank

            def read(job: _TrainJob) -> tuple[_TrainJob, Batch | None, list[BadRecord]]:
                return job, *read_batch(datasets, collator, job.keys, seed, job.step, rank, job.part)

            jobs = _train_jobs(self.sampler, self.rounds)
            self._batches = ordered_map(read, jobs, self.num_workers, max(self.prefetch, self.rounds))
        try:
            job, batch, bad = next(self._batches)
            self.counter.add(job.keys, bad)
            self._check_kinds(job.keys, bad)
        except BaseException:
            self.close()
            raise
        if self._awaits_others and not job.first_kind_only:
            self._awaits_others = False
            logger.info("curriculum: step %d is the first with all corpora", job.step + 1)
        if job.state is not None:
            self._consumed = self._state(job.state)
        return batch

    def _check_kinds(self, keys: Sequence[SampleKey], bad: Sequence[BadRecord]) -> None:
        """Ranks compute their losses together, so a batch must keep a sample of each of its kinds.

        Raises:
            DataError: all records of a kind were broken.
        """
        curriculum = self.sampler.curriculum
        kind_of = curriculum.kind_of if curriculum and self.sampler.world_size > 1 else {}
        asked = Counter(kind_of.get(key.corpus, "records") for key in keys)
        lost = Counter(kind_of.get(record.corpus, "records") for record in bad)
        for kind, count in asked.items():
            if lost[kind] == count:
                first = next(one for one in bad if kind_of.get(one.corpus, "records") == kind)
                raise DataError(f"all {count} {kind} of a batch were broken; the first: {first}")

    def _state(self, sampler_state: dict[str, Any]) -> dict[str, Any]:
        return {"sampler": sampler_state, "counters": self.counter.state_dict()}

    def state_dict(self) -> dict[str, Any]:
        """Position after the last optimizer step whose batches were all handed out; plain data."""
        return self._consumed

    def fingerprints(self) -> dict[str, str]:
        """Return fingerprints of the corpora, and of what the collator reads beside them, as first seen."""
        if not self._fingerprints:
            found = {name: fingerprint(dataset) for name, dataset in self.datasets.items()}
            for setting, added in getattr(self.collator, "sources", dict)().items():
                for name, dataset in self.datasets.items():
                    found[f"{setting} for {name}"] = fingerprint(dataset, added)
            self._fingerprints = found
        return self._fingerprints

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last batch that another loader handed out.

        Raises:
            CheckpointError: the state is of other data.
        """
        self.close()
        self.sampler.load_state_dict(state["sampler"])
        self.counter.load_state_dict(state["counters"])
        self._awaits_others = self.sampler.awaits_others
        self._consumed = self._state(self.sampler.state_dict())

    def cut(self, rounds: int) -> None:
        """Go on after the last step whose batches were all handed out, with other parts of a step.

        Raises:
            ConfigError: the share of this rank does not divide by them.
        """
        self.check_rounds(rounds)
        self.close()
        self.rounds = rounds

    def check_rounds(self, rounds: int) -> None:
        """Raise ConfigError unless this rank's share of a step can be cut into so many parts."""
        sampler = self.sampler
        share = sampler.global_batch // sampler.world_size
        if rounds < 1 or share % rounds:
            raise ConfigError(
                f"batch size {sampler.global_batch} does not divide by {sampler.world_size} ranks x "
                f"{rounds} rounds; change train.batch_size or train.micro_batch_size"
            )
        if sampler.world_size > 1:
            sampler.check_kinds(sampler.world_size * rounds)

    def close(self) -> None:
        """Stop the threads; the next batch starts them again where they are."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
            self.sampler.load_state_dict(self._consumed["sampler"])


class EvalLoader:
    """One pass over a data set: this rank's samples (every `world_size`-th), in order.

    Broken records are left out. Arguments as for `TrainLoader`; `batch_size` is this rank's.
    """

    def __init__(
        self,
        dataset: Dataset,
        collator: Collator,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 2,
        prefetch: int = 4,
        max_bad_rate: float = 0.01,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"evaluation batch size {batch_size}: expected at least 1")
        self.dataset, self.collator, self.batch_size = dataset, collator, batch_size
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.num_workers, self.prefetch = num_workers, prefetch
        self.counter = RecordCounter(max_bad_rate)

    def __len__(self) -> int:
        """Batches of a pass (fewer come out when all records of a batch are broken)."""
        return -(-len(range(self.rank, len(self.dataset), self.world_size)) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Start a pass.

        Raises:
            DataError: more than `max_bad_rate` of at least 100 records were broken, or all of any number.
        """
        self.counter = RecordCounter(self.counter.max_bad_rate)
        name, own = self.dataset.name, range(self.rank, len(self.dataset), self.world_size)

        def read(number: int) -> tuple[list[SampleKey], Batch | None, list[BadRecord]]:
            part = own[number * self.batch_size : (number + 1) * self.batch_size]
            keys = [SampleKey(name, index, 0) for index in part]
            return keys, *read_batch({name: self.dataset}, self.collator, keys, self.seed, number, self.rank)

        last = None
        for keys, batch, broken in ordered_map(read, range(len(self)), self.num_workers, self.prefetch):
            self.counter.add(keys, broken)
            last = broken[-1] if broken else last
            if batch is not None:
                yield batch
        read, bad = sum(self.counter.read.values()), sum(self.counter.bad.values())
        self.counter.check(RATE_CHECK_AFTER)
        if bad == read and last is not None and self.world_size == 1:  # another rank may have whole ones
            raise DataError(f"all {read} records of {name} were broken; the last one: {last}")
        if bad:
            logger.warning("%d of %d records of %s were broken and left out", bad, read, name)
