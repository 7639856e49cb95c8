"""Which kind of weights a file holds, by the names of its tensors and by the config beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unimo.errors import ConfigError, shown
from unimo.files import read_json_object
from unimo.weights.huggingface import SOURCES
from unimo.weights.name_map import Tensors
from unimo.weights.zoo import MARKS


def recognise(
    tensors: Tensors, releases: Mapping[str, Sequence[str]], config: Path | None, where: str
) -> str:
    """Return the kind of weights, a key of `releases`, `SOURCES` or `LIBRARIES`.

    The kind with the most marks is taken; where several have as many, `model_type` of the config decides,
    then the prefix of the names.

    Args:
        tensors: tensors by their names.
        releases: release -> its marks, see `Paper.marks`.
        config: their config.json, if there is one.
        where: path of the weights, for messages.

    Raises:
        ConfigError: no kind or several fit, or the config cannot be read.
    """
    marks = {**releases, **{name: source.marks for name, source in SOURCES.items()}, **MARKS}
    fit = {
        name: len(own)
        for name, own in marks.items()
        if own and all(any(f".{there}".endswith(f".{mark}") for there in tensors) for mark in own)
    }
    found = [name for name, count in fit.items() if count == max(fit.values())]
    model_type = read_json_object(config, ConfigError).get("model_type") if config else None
    for fits in (
        lambda name: name in SOURCES and model_type in SOURCES[name].model_types,
        lambda name: name in SOURCES and any(there.startswith(SOURCES[name].prefix) for there in tensors),
    ):
        if len(found) > 1:
            found = list(filter(fits, found)) or found
    if len(found) != 1:
        kinds = f"{' or '.join(found)}" if found else "none of the known kinds of weights"
        said = f", model_type = {shown(model_type)}" if config else ""
        names = ", ".join(list(tensors)[:3])
        raise ConfigError(f"{where} may be {kinds} (tensors {names}, ...{said}); say which with --from")
    return found[0]
