"""Pre-training batches of UNIMO-3: pairs, masked for MLM and matched for ITM (section 3.4)."""

from __future__ import annotations

from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.models.pretrain_data import pretraining_data
from unimo.settings import RunConfig


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Image-text pairs of `data.pairs`."""
    return pretraining_data(run, processor)
