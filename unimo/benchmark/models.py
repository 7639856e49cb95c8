"""Comparison of whole training steps of our models with each other and with a model of another library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unimo.benchmark import flops, sides
from unimo.benchmark.compare import report, take_turns


def compare_models(
    configs: Sequence[Any], settings: Mapping[str, Any], against: str | None = None, peer_python: str = ""
) -> dict[str, Any]:
    """Measure training steps of our models and of a peer of the sizes of the first one.

    Args:
        configs: configs of models of the UNIMO-3 family.
        settings: `batch` (`batch_size`, `text_len`, `targets` of a sample), `matmul`, `threads`, `steps`,
            `warmup`.
        against: name of a peer.
        peer_python: interpreter that runs it.

    Returns:
        See `compare.report`.
    """
    batch, threads = settings["batch"], settings["threads"]
    request = {key: settings[key] for key in ("batch", "matmul")}
    size = (batch["batch_size"], batch["text_len"])

    def opened() -> Iterator[tuple[sides.Side, flops.Parts]]:
        for config in configs:
            side = sides.own_side({"name": config.name}, request, threads)
            yield side, flops.own_step(config, *size, batch["targets"] * size[0])
        if against:
            side = sides.peer_side(against, peer_python, sides.peer_sizes(configs[0]), request, threads)
            yield side, flops.peer_step(configs[0], *size)

    return report(take_turns(opened(), settings), settings)
