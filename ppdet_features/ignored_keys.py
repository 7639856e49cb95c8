"""Keys of PaddleDetection's YAML files for its own programs: accepted, logged once, without effect here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import yaml

from unimo.plain_yaml import Loader

logger = logging.getLogger(__name__)
# Schedule, data sets and environment of PaddleDetection's own programs.
_AT_THE_TOP = frozenset(
    "pretrain_weights weights worker_num TrainReader EvalReader TrainDataset EvalDataset TestDataset metric "
    "map_type epoch LearningRate OptimizerBuilder use_ema ema_decay find_unused_parameters use_gpu use_xpu "
    "use_mlu use_npu use_gcu log_iter save_dir snapshot_epoch print_flops print_params export".split()
)
# Batches have one input size here, so nothing is padded.
_OF_READER = frozenset({"batch_transforms", "inputs_def", "collate_batch", "drop_empty"})


def drop_ignored(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the content of the YAML file `name` without the keys that have no effect; log those found."""
    kept = {key: value for key, value in values.items() if key not in _AT_THE_TOP}
    ignored, reader = [key for key in values if key not in kept], kept.get("TestReader")
    if isinstance(reader, Mapping):
        kept["TestReader"] = {key: value for key, value in reader.items() if key not in _OF_READER}
        ignored += [f"TestReader.{key}" for key in reader if key in _OF_READER]
    if ignored:
        logger.warning("%s: read and without effect: %s", name, ", ".join(ignored))
    return kept


class TagLoader(Loader):
    """Ignores tags such as `!COCODataSet`, which name classes of PaddleDetection."""


def _untagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


TagLoader.add_multi_constructor("!", _untagged)
