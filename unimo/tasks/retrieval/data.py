"""The data of retrieval."""

from __future__ import annotations

from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.processor import Processor
from unimo.settings import RunConfig
from unimo.tasks.retrieval.batches import RetrievalCollator
from unimo.tasks.retrieval.negatives import NegativesCollator


def open_retrieval(run: RunConfig, processor: Processor, negatives: int = 0) -> TaskData:
    """Image-text pairs of `data.path`; every rank evaluates the whole split, whose pairs it then shares.

    With `negatives` training batches say so many mismatched images, and captions, for each pair.
    """

    def collator(train: bool) -> RetrievalCollator:
        return (
            NegativesCollator(processor, negatives)
            if train and negatives
            else RetrievalCollator(processor, train)
        )

    task_data = corpus_data(run, run.data.path, "pairs", processor, collator)
    task_data.share_eval = False
    return task_data
