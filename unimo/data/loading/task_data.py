"""The data of a task: corpora and collators, ready to make loaders from. Tasks open them by kind."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unimo.data.loading.known_words import check_known_words
from unimo.data.loading.loader import Collator, EvalLoader, TrainLoader
from unimo.data.loading.sampler import Curriculum, MixtureSampler
from unimo.data.loading.shared_pictures import warn_of_shared_pictures
from unimo.data.processor import Processor
from unimo.data.readers.base import Dataset, Kind, concat
from unimo.data.readers.open import open_corpus
from unimo.errors import ConfigError, DataError
from unimo.settings import CorpusConfig, RunConfig

logger = logging.getLogger(__name__)


@dataclass
class TaskData:
    """Data of a task. Nothing is opened before a loader asks for it."""

    corpora: Sequence[CorpusConfig]
    """The mixture; evaluation joins them."""
    open_split: Callable[[CorpusConfig, str], Dataset]
    """Opens one split of a corpus."""
    processor: Processor
    collator: Callable[[bool], Collator]
    """For training (True) or evaluation; that of training may open files of its own."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """State of the task besides weights and config; saved in the model directory."""
    share_eval: bool = True
    """Whether evaluation deals its samples out to the ranks; else every rank gets all of them."""
    kind: Kind = "pairs"
    """Kinds that `corpora` are read as, where training mixes them."""
    unpaired: Mapping[Kind, Sequence[CorpusConfig]] = field(default_factory=dict)
    """Corpora of other kinds that training mixes in; evaluation does not read them."""
    open_unpaired: Callable[[CorpusConfig, Kind], Dataset] | None = None
    """Opens the training split of one of them."""

    def train_datasets(self, split: str = "train") -> dict[str, Dataset]:
        """Open what is trained on of each corpus, by name.

        Corpora of other kinds, or of questions, that have the name of one before them get their kind behind
        it.

        Args:
            split: splits of the task's own corpora, joined by `+`.

        Raises:
            ConfigError: two corpora have the same name.
            DataError: a corpus cannot be opened.
        """
        opened: dict[str, Dataset] = {}
        for corpus, kind in self._train_corpora():
            dataset = self.open_unpaired(corpus, kind) if kind else self.open_split(corpus, split)
            name = corpus.name or dataset.name
            if name in opened and (other := kind or ("questions" if corpus.questions else "")):
                name = f"{name}_{other}"
            if name in opened:
                raise ConfigError(f"two corpora are named {name!r}; give one of them another `name`")
            opened[name] = dataset
        return opened

    def _train_corpora(self) -> list[tuple[CorpusConfig, Kind | None]]:
        """The task's own corpora, and those of other kinds with their kind."""
        own: list[tuple[CorpusConfig, Kind | None]] = [(corpus, None) for corpus in self.corpora]
        return own + [(corpus, kind) for kind, corpora in self.unpaired.items() for corpus in corpora]

    def train_loader(self, run: RunConfig, rank: int = 0, world_size: int = 1) -> TrainLoader:
        """Make endless training batches of one rank, `train.rounds(world_size)` for each optimizer step.

        Raises:
            ConfigError: the batch size does not divide, weights are wrong, or no corpus begins a curriculum.
            DataError: a corpus cannot be opened, or its words are unknown to the tokenizer.
        """
        datasets = self.train_datasets(run.data.train_split)
        if rank == 0:
            own = zip(self.corpora, datasets.values(), strict=False)
            warn_of_shared_pictures(own, self.open_split, run.data.train_split)
        corpora = dict(zip(datasets, self._train_corpora(), strict=True))
        check_known_words(self.processor.tokenizer, datasets)
        sizes = {name: len(dataset) for name, dataset in datasets.items()}
        weights = {name: corpus.weight for name, (corpus, _) in corpora.items()}
        curriculum, epochs = None, run.data.pairs_only_epochs
        late = [name for name, (corpus, kind) in corpora.items() if not (kind or corpus.curriculum)]
        waiting = frozenset(late if epochs else ())
        if waiting or any(self.unpaired.values()):
            kinds = {name: kind or self.kind for name, (_, kind) in corpora.items()}
            curriculum = Curriculum(kinds, epochs, waiting)
            if not curriculum.beginning:
                raise ConfigError(
                    f"data.pairs_only_epochs={epochs:g}, and all of data.pairs have curriculum=false; "
                    "leave it out of one, which then begins, or set data.pairs_only_epochs=0"
                )
        sampler = MixtureSampler(sizes, weights, run.train.batch_size, run.seed, rank, world_size, curriculum)
        shares = ", ".join(f"{name} {sizes[name]:,} ({sampler.shares[name]:.1%})" for name in sizes)
        logger.info("training samples: %s", shares)
        if sampler.first_samples:
            step = math.ceil(sampler.first_samples / run.train.batch_size) + 1
            first = ", ".join(curriculum.beginning)
            logger.info("curriculum: only %s for %g epochs, all corpora from step %d", first, epochs, step)
        return TrainLoader(
            datasets,
            sampler,
            self.collator(True),
            num_workers=run.data.num_workers,
            prefetch=run.data.prefetch,
            max_bad_rate=run.data.max_bad_rate,
            seed=run.seed,
            rounds=run.train.rounds(world_size),
        )

    def eval_dataset(self, split: str) -> Dataset:
        """Open a split of all corpora that have it, one after the other.

        Raises:
            ConfigError: two corpora have the same name, so their pictures could not be told apart.
            DataError: no corpus has it.
        """
        opened, failures, names = [], [], []
        for corpus in self.corpora:
            try:
                opened.append(self.open_split(corpus, split))
                names.append((corpus.name or opened[-1].name) + "_questions" * corpus.questions)
            except DataError as error:
                failures.append(error)
        if not opened:
            raise failures[0]
        if again := next((name for name in names if names.count(name) > 1), ""):
            raise ConfigError(f"two corpora are named {again!r}; give one of them another `name`")
        for error in failures:
            logger.warning("left out of evaluation: %s", error)
        return concat(opened, "+".join(part.name for part in opened))

    def eval_loader(
        self, split: str, run: RunConfig, rank: int = 0, world_size: int = 1, batch_size: int | None = None
    ) -> EvalLoader:
        """Make one pass over a split; batches are as large as those of training by default.

        Raises:
            DataError: no corpus has the split.
        """
        if not self.share_eval:
            rank, world_size = 0, 1
        return EvalLoader(
            self.eval_dataset(split),
            self.collator(False),
            batch_size or run.train.batch_size // world_size // run.train.rounds(world_size),
            rank,
            world_size,
            num_workers=run.data.num_workers,
            prefetch=run.data.prefetch,
            max_bad_rate=run.data.max_bad_rate,
            seed=run.seed,
        )


def corpus_data(
    run: RunConfig,
    corpora: Sequence[CorpusConfig],
    kind: Kind,
    processor: Processor,
    collator: Callable[[bool], Collator],
) -> TaskData:
    """Describe samples of one kind, read by `open_corpus`."""
    return TaskData(
        corpora=corpora,
        open_split=lambda corpus, split: open_corpus(corpus, split, kind, run.data),
        processor=processor,
        collator=collator,
    )
