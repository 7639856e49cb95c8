"""Model directories (`unimo.inference.saving`): found by path or name, and opened."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimo import registry
from unimo.config import merge_into, merge_plain, spell_out
from unimo.errors import CheckpointError, shown
from unimo.files import published
from unimo.inference.release import released_model
from unimo.inference.saving import CONFIG, WEIGHTS, read_config
from unimo.weights.cards import near
from unimo.weights.files import read_safetensors
from unimo.weights.named import card_of

if TYPE_CHECKING:
    import numpy as np

    from unimo.data.processor import Processor
    from unimo.models.base import Model
    from unimo.tasks.base import Task

OUTPUT = Path("output")
_SPARE_PARAMETERS = 50_000_000
"""By so many the sizes in a config may exceed its weights before it is refused unbuilt."""
logger = logging.getLogger(__name__)


def load(
    path: str | Path,
    image_size: int | None = None,
    processor: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> tuple[Model, Processor]:
    """Open the model of a model directory, without task heads.

    Args:
        path: model directory, run folder, the name of a model that was pre-trained here, or that of a card of
            released weights (`python tools/weights.py list`), which are then fetched and converted.
        image_size: side of the images in pixels, if not that of training; position embeddings are resized.
        processor: fields of the processor to replace, e.g. `{"max_text_len": 20}`.
        overrides: fields of the model config to replace.

    Raises:
        CheckpointError: there is no such directory, or its tensors do not fit.
    """
    from unimo.weights.layers import load_into

    directory = find_model(path)
    changes = dict(processor or {}) | ({} if image_size is None else {"image_size": image_size})
    model, reader, _, tensors = _open(directory, changes, overrides)
    load_into(model, _model_part(tensors, directory), str(directory / WEIGHTS), model.optional)
    model.eval()
    return model, reader


def load_task(
    path: str | Path, processor: Mapping[str, Any] | None = None, config: Any = None
) -> tuple[Task, Processor]:
    """Open a model directory with its task and heads; arguments and errors as of `load`.

    Args:
        config: task config to use instead of the saved one.
    """
    from unimo.weights.layers import load_into

    directory = find_model(path)
    model, reader, content, tensors = _open(directory, processor or {}, {})
    name, where = content["task"]["name"], f"{directory / CONFIG}: task"
    config = config or merge_into(registry.task_config(name, model.config.name), content["task"], where)
    task = registry.task_class(name).create(model, config, content.get("metadata") or {})
    own = task.state_dict().keys()
    tensors = {key: x for key, x in tensors.items() if key in own or not key.startswith(task.unread_heads)}
    load_into(task, tensors, str(directory / WEIGHTS))
    task.eval()
    return task, reader


def start_from(task: Task, path: str | Path) -> list[str]:
    """Initialise a task from the model in a directory, and from its heads where they have the same meaning.

    Heads are taken from the same task, or from pre-training by `Task.head_aliases`, if their shapes agree.

    Returns:
        Names of the parameters that stay random: new heads, and what an earlier stage does not have.

    Raises:
        CheckpointError: nothing there, or the model does not fit.
    """
    from unimo.weights.layers import is_whole, load_into

    directory = find_model(path)
    tensors = read_safetensors(directory / WEIGHTS)
    part, new = task.fit_start(_model_part(tensors, directory))
    load_into(task.model, part, str(directory / WEIGHTS), (*task.model.optional, *new))
    content = read_config(directory)
    tensors = task.fit_heads(tensors, content.get("metadata") or {})
    same_task = (content.get("task") or {}).get("name") == task.config.name
    heads = {"": ""} if same_task else dict(task.head_aliases)
    fresh = [f"model.{name}" for name in new]
    for name, parameter in task.state_dict().items():
        if name.startswith("model."):
            continue
        sources = (other + name.removeprefix(own) for own, other in heads.items() if name.startswith(own))
        source = next((key for key in sources if key in tensors), "")
        if source and is_whole(tensors[source]) != is_whole(parameter):
            kind = tensors[source].dtype
            raise CheckpointError(f"{directory / WEIGHTS}: {source} holds {kind}, expected {parameter.dtype}")
        if source and tensors[source].shape == tuple(parameter.shape):
            parameter.set_value(tensors[source])
        else:
            fresh.append(name)
    return fresh


def find_model(path: str | Path) -> Path:
    """Find the model directory of a path, of a run's name, or of a card's, in this order.

    Raises:
        CheckpointError: there is none; those in `output/`, and names that are near, are listed.
    """
    folders = (Path(path), Path(path) / "model")
    meant = [*folders, OUTPUT / f"{path}_pretrain" / "model", OUTPUT / path / "model"]
    try:
        places = [published(place) for place in meant]
    except OSError as error:  # such as a name that is too long
        raise CheckpointError(f"no model directory at {shown(str(path))}: {error.strerror}") from error
    for name, place in zip(meant, places, strict=True):
        if (place / CONFIG).is_file() and (place / WEIGHTS).is_file():
            if place != name:
                logger.warning("%s was not replaced completely; opening the one before, %s", name, place)
            return place
    for place in places:
        for there, missing in ((CONFIG, WEIGHTS), (WEIGHTS, CONFIG)):
            if (place / there).is_file():
                raise CheckpointError(f"{place} is not a complete model directory: it has no {missing}")
    if Path(path).is_file():
        raise CheckpointError(
            f"{path} is a file, expected a model directory; to make one of released weights: python "
            f"tools/convert_checkpoint.py --from KIND --input {path} --tokenizer DIR --out DIR"
        )
    if (card := card_of(path)) is not None:
        return released_model(card)
    known = ", ".join(map(str, list_saved())) or "none yet; bash scripts/run_pretrain.sh makes one"
    raise CheckpointError(
        f"no model directory at {path}, and no run of that name; in {OUTPUT}/: {known}; {near(path, 'model')}"
    )


def list_saved(task: str = "") -> list[Path]:
    """List the model directories under `output/`, newest first; with `task` only those of that task."""
    found = [place for run in OUTPUT.glob("*/") if ((place := published(run / "model")) / CONFIG).is_file()]
    if task:
        found = [place for place in found if read_config(place).get("task", {}).get("name") == task]
    return sorted(found, key=lambda place: -(place / CONFIG).stat().st_mtime)


def read_model_config(path: str | Path) -> dict[str, Any]:
    """Read the config of a model directory as plain data: the sections of the run, and `metadata`.

    Raises:
        CheckpointError: there is no such directory, or it names no model.
        ConfigError: its model section cannot be that of a model.
    """
    directory = find_model(path)
    content = read_config(directory)
    _model_config(content, directory)
    return content


def _open(
    directory: Path, changes: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[Model, Processor, dict[str, Any], dict[str, np.ndarray]]:
    from unimo.data.processor import load_processor

    content = read_config(directory)
    processor = load_processor(directory, **changes)
    tensors = read_safetensors(directory / WEIGHTS)
    _model_config(content, directory)
    saved = without_init(content["model"])
    plain = merge_plain(saved, spell_out(type(registry.model_config(saved["name"])), overrides))
    if "image_size" in changes and "image_size" in plain.get("vision", {}):
        plain = merge_plain(plain, {"vision": {"image_size": changes["image_size"]}})
    config = merge_into(registry.model_config(plain["name"]), plain, f"{directory / CONFIG}: model")
    held, wanted = sum(tensor.size for tensor in tensors.values()), registry.rough_size(config)
    if wanted > _SPARE_PARAMETERS + 4 * held:
        raise CheckpointError(
            f"{directory / CONFIG}: the sizes of the model ask for about {wanted:,} parameters, and "
            f"{WEIGHTS} holds {held:,}; copy both from the same model"
        )
    return registry.build_model(config), processor, content, tensors


def without_init(section: Mapping[str, Any]) -> dict[str, Any]:
    """Clear `init` of all towers in a model section, as all weights come from one file."""
    cleared = {
        key: without_init(value) if isinstance(value, Mapping) else value for key, value in section.items()
    }
    return cleared | ({"init": ""} if "init" in cleared else {})


def model_section(name: str, *sections: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the model sections that are of model `name` or name none, later ones over earlier ones.

    The sections are those of saved weights, which have their sizes, and of the recipe of a task.
    """
    schema = type(registry.model_config(name))
    merged: dict[str, Any] = {"name": name}
    for section in sections:
        if section.get("name", name) == name:
            merged = merge_plain(merged, spell_out(schema, section))
    return merged


def _model_part(tensors: Mapping[str, np.ndarray], directory: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the network by the names that they have in it."""
    part = {name.removeprefix("model."): tensors[name] for name in tensors if name.startswith("model.")}
    if not part:
        raise CheckpointError(f"{directory / WEIGHTS} has no tensors named model.*; is it a model directory?")
    return part


def _model_config(content: Mapping[str, Any], directory: Path) -> Any:
    """Return the config of the model in a directory."""
    for section in ("model", "task"):
        if not (content.get(section) or {}).get("name"):
            raise CheckpointError(f"{directory / CONFIG}: section {section!r} with a name is missing")
    default = registry.model_config(content["model"]["name"])
    return merge_into(default, without_init(content["model"]), f"{directory / CONFIG}: model")
