"""A sixth paper, for the test of the door: a bag of words and a bag of patches, added up."""

from __future__ import annotations

from typing import Any

from toy_paper.config import CAPABILITIES, SIZES, Config
from unimo.models.paper import Paper, PretrainConfig


def _network(config: Config) -> Any:
    from toy_paper.model import Bags

    return Bags(config)


def _objective(config: Config, options: PretrainConfig) -> Any:
    from toy_paper.pretrain import BagObjective

    return BagObjective(config)


def _batches(run: Any, processor: Any) -> Any:
    from unimo.models.collate import pretraining_data

    return pretraining_data(run, processor)


PAPER = Paper(
    name="toy",
    sizes=SIZES,
    capabilities=CAPABILITIES,
    network=_network,
    objective=_objective,
    batches=_batches,
)
