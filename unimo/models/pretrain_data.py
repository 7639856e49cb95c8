"""The data of pre-training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unimo.data.loading.loader import Collator
from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.processor import Processor
from unimo.data.readers.base import Kind
from unimo.data.readers.open import open_corpus
from unimo.errors import ConfigError
from unimo.models.collate import MaskedTextCollator, PretrainCollator
from unimo.settings import CorpusConfig, RunConfig


def pretraining_data(
    run: RunConfig, processor: Processor, train_collator: Callable[[], Collator] | None = None
) -> TaskData:
    """Open image-text pairs of `data.pairs`, masked and mismatched; in training texts and images alone, too.

    Without pairs, texts are trained on and evaluated. `train_collator` makes the collator of training batches
    where they differ from those of evaluation.

    Raises:
        ConfigError: a curriculum without anything that comes in later, or neither pairs nor texts.
    """
    data, options = run.data, run.task
    kind: Kind = "pairs" if data.pairs else "texts"
    unpaired: dict[Kind, Sequence[CorpusConfig]] = {"texts": data.texts, "images": data.images}
    corpora = data.pairs or unpaired.pop("texts")
    if not corpora:
        raise ConfigError("data.pairs and data.texts are empty; name a corpus, or `scenes`")
    if data.pairs_only_epochs and not is_mixed(run):
        raise ConfigError(
            f"data.pairs_only_epochs={data.pairs_only_epochs:g}, but there are only pairs; "
            "set data.texts or data.images, or data.pairs_only_epochs=0"
        )

    def collator(train: bool) -> Collator:
        if train and train_collator is not None:
            return train_collator()
        return (PretrainCollator if kind == "pairs" else MaskedTextCollator)(processor, train, options)

    opened = corpus_data(run, corpora, kind, processor, collator)
    opened.kind, opened.unpaired = kind, unpaired
    opened.open_unpaired = lambda corpus, kind: open_corpus(corpus, "train", kind, data)
    return opened


def is_mixed(run: RunConfig) -> bool:
    """Return whether training reads anything but pairs."""
    return bool(run.data.texts or run.data.images)
