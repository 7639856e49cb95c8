"""Whole training steps of models in turn: ours, and one of another library."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from unimo.benchmark import flops, sides
from unimo.benchmark.compare import alternate, report


def compare_models(
    configs: Sequence[Any], settings: Mapping[str, Any], against: str | None = None, peer_python: str = ""
) -> dict[str, Any]:
    """Whole training steps of our models, and of a peer of the first one's sizes; see `compare.report`.

    Args:
        configs: of models of the UNIMO-3 family.
        settings: `batch` (`batch_size`, `text_len`, `targets` a sample), `matmul`, `threads`, `steps`,
            `warmup`.
        against: name of a peer.
        peer_python: interpreter that runs it.
    """
    batch, threads = settings["batch"], settings["threads"]
    request = {key: settings[key] for key in ("batch", "matmul")}
    size = (batch["batch_size"], batch["text_len"])
    with contextlib.ExitStack() as stack:
        pairs = []
        for config in configs:
            side = sides.own_side({"name": config.name}, request, threads)
            stack.callback(side.close)
            pairs.append((side, flops.own_step(config, *size, batch["targets"] * size[0])))
        if against:
            side = sides.peer_side(against, peer_python, sides.peer_sizes(configs[0]), request, threads)
            stack.callback(side.close)
            pairs.append((side, flops.peer_step(configs[0], *size)))
        return report(alternate(pairs, settings["steps"], settings["warmup"]), settings)
