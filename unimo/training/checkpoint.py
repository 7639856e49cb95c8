"""Checkpoints to resume from: `OUTPUT/checkpoints/step_00000500/`.

    model.safetensors             weights of the task by structured name
    optimizer.safetensors         `<parameter>/moment1`, ... ; with sharding one file for each rank,
                                  `optimizer-00000-of-00002.safetensors`, together the same tensors
    state.json                    step, data position of every rank, scaler, unlogged metrics, config,
                                  versions, fingerprints of corpora and of what else samples are made of,
                                  and the size of every file
    digests.sha256                SHA-256 of every file; `sha256sum -c digests.sha256` checks them by hand

A folder is written under a temporary name, flushed to the disk and renamed, so a folder of the final name is
complete unless the disk itself lost data. Digests are checked before a run resumes: it goes on from the last
sound checkpoint, and damaged ones after that are set aside as `damaged_step_...`. No generator state is
stored: every step reseeds from (seed, rank, step).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle

from unimo import __version__, distributed
from unimo.config import to_plain
from unimo.data.loading.fingerprint import fingerprint
from unimo.digests import find_damage, seal
from unimo.errors import CheckpointError
from unimo.files import publish_folder, read_json, read_json_object, write_text
from unimo.training.optimizer import load_optimizer_tensors, optimizer_tensors
from unimo.training.state import Run, TrainState
from unimo.weights.files import read_safetensors, write_safetensors
from unimo.weights.layers import load_into, tensors_of

logger = logging.getLogger(__name__)
CONFIG, STATE, WEIGHTS = "config.yaml", "state.json", "model.safetensors"
_FINAL_NAME = re.compile(r"step_\d{8,}")
_STARTS = ("output_dir", "resume", "init_from")
"""Fields that are not compared: they say where a run starts and writes."""


def folder_of(output_dir: Path) -> Path:
    """Return the folder that holds the checkpoints of a run."""
    return output_dir / "checkpoints"


def save(state: TrainState) -> Path:
    """Write a checkpoint of the current step and remove old ones. Collective.

    Raises:
        CheckpointError: the disk is full or not writable, on any rank. Older checkpoints are intact.
    """
    final = folder_of(state.output_dir) / f"step_{state.step:08d}"
    content = state.state_dict() | {"corpora": corpora_of(state)}
    if all(distributed.gather(is_complete(final))):
        return final
    fresh = final.with_name(f".{final.name}.writing")
    on_rank_0, stage = distributed.rank() == 0, state.run.train.sharding_stage
    if stage == 3:
        state.layer.get_all_parameters()  # of which each rank holds slices
    with _together(final):
        if on_rank_0:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
    try:
        with _together(final):
            if on_rank_0:
                write_safetensors(fresh / WEIGHTS, tensors_of(state.task))
            if on_rank_0 or stage:
                write_safetensors(fresh / _optimizer_file(stage), optimizer_tensors(state.adamw, state.task))
        with _together(final):
            if on_rank_0:
                _publish(state, content, fresh, final)
    finally:
        if on_rank_0:
            shutil.rmtree(fresh, ignore_errors=True)
    if on_rank_0:
        for old in list_complete(final.parent)[: -max(1, state.run.train.keep_checkpoints)]:
            shutil.rmtree(old, ignore_errors=True)
    return final


@contextlib.contextmanager
def _together(final: Path) -> Iterator[None]:
    """Run one part of saving on every rank; if it fails on one, raise on all."""
    problem = ""
    try:
        yield
    except CheckpointError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{error.strerror or error} ({error.filename or 'no file name'}). Free some space"
    problems = [text for text in distributed.gather(problem) if text]
    if problems:
        raise CheckpointError(
            f"could not save the checkpoint {final}: {problems[0]}. Older checkpoints are "
            "intact: the same command resumes from the last one"
        )


def _optimizer_file(sharding_stage: int) -> str:
    if not sharding_stage:
        return "optimizer.safetensors"
    return f"optimizer-{distributed.rank():05d}-of-{distributed.world_size():05d}.safetensors"


def _publish(state: TrainState, content: dict[str, Any], fresh: Path, final: Path) -> None:
    content |= {
        **{section: getattr(state.run, section).name for section in state.run.IDENTITY},
        "seed": state.run.seed,
        "config": to_plain(state.run),
        "sharding_stage": state.run.train.sharding_stage,
        "versions": {"unimo": __version__, "paddle": paddle.__version__, "python": platform.python_version()},
        "files": {path.name: path.stat().st_size for path in sorted(fresh.iterdir())},
    }
    write_text(fresh / STATE, json.dumps(content, indent=1))
    seal(fresh)
    shutil.rmtree(final, ignore_errors=True)  # an incomplete one: complete ones are not written again
    publish_folder(fresh, final)


def is_complete(folder: Path) -> bool:
    """Return whether all files that `state.json` lists exist with the size given there."""
    try:
        files = read_json_object(folder / STATE, CheckpointError)["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (CheckpointError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def list_complete(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob("step_*") if _FINAL_NAME.fullmatch(path.name)]
    return sorted((path for path in found if is_complete(path)), key=lambda path: int(path.name[5:]))


def find_last(output_dir: Path) -> Path | None:
    """Return the last sound checkpoint of a run, None if it has none at all; warn of those after it.

    Reads it, and those after it, once: 1 GB takes about a second.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    found = [path for path in folder_of(output_dir).glob("step_*") if _FINAL_NAME.fullmatch(path.name)]
    damage = ""
    for path in sorted(found, key=lambda path: int(path.name[5:]), reverse=True):
        damage = find_damage(path) if is_complete(path) else f"{path} is not complete"
        if not damage:
            return path
        logger.warning("%s is damaged; it is ignored (%s)", path, damage)
    if found:
        raise CheckpointError(
            f"all {len(found)} checkpoints in {folder_of(output_dir)} are damaged ({damage}); bring back a "
            "copy of one, or delete that folder to start anew"
        )
    return None


def remove_unfinished(output_dir: Path) -> None:
    """Delete leftovers of an interrupted save."""
    for path in folder_of(output_dir).glob(".step_*.writing"):
        shutil.rmtree(path, ignore_errors=True)


def set_aside(output_dir: Path, step: int) -> None:
    """Rename the checkpoints after `step`, from which a run goes on: they are damaged.

    They make room for those to come, and do not count among those to keep.
    """
    for path in folder_of(output_dir).glob("step_*"):
        if _FINAL_NAME.fullmatch(path.name) and int(path.name[5:]) > step:
            aside = path.with_name(f"damaged_{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            logger.warning("%s is called %s now; it can be deleted", path, aside.name)


def resolve(path: str) -> Path:
    """Return the checkpoint that `resume=` names: a checkpoint, or the last one of an output folder.

    Raises:
        CheckpointError: there is no complete checkpoint.
    """
    folder = Path(path)
    if is_complete(folder):
        if damage := find_damage(folder):
            raise CheckpointError(
                f"resume={path} is damaged: {damage}; name the checkpoint before it, or the output folder to "
                "take the last sound one"
            )
        return folder
    last = find_last(folder)
    if last is None:
        what = "is not a complete checkpoint" if (folder / STATE).exists() else "holds no complete checkpoint"
        raise CheckpointError(f"resume={path} {what}; expected OUTPUT/checkpoints/step_... or OUTPUT")
    return last


def read_step(folder: Path) -> int:
    """Return the number of steps that a checkpoint has behind it."""
    return int(read_json_object(folder / STATE, CheckpointError)["step"])


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the config of the run that a checkpoint is of, as plain data."""
    return read_json_object(folder / STATE, CheckpointError)["config"]


def restore(state: TrainState, folder: Path) -> None:
    """Load a checkpoint into a run.

    Raises:
        CheckpointError: it belongs to another model, task or data, or does not fit.
    """
    content = read_json(folder / STATE, CheckpointError)
    check_same_run(content, state.run, str(folder))
    load_into(state.task, read_safetensors(folder / WEIGHTS), str(folder / WEIGHTS))
    load_optimizer_tensors(state.adamw, state.task, _read_optimizer(state, folder, content), str(folder))
    state.load_state_dict(content)
    check_same_corpora(content["corpora"], corpora_of(state), str(folder))
    if content["world_size"] != distributed.world_size():
        logger.warning(
            "%s was written by %d ranks and is resumed with %d: data order is kept, but random streams "
            "(masking, dropout) differ from the unbroken run",
            folder,
            content["world_size"],
            distributed.world_size(),
        )


def _read_optimizer(state: TrainState, folder: Path, content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    stages = content["sharding_stage"], state.run.train.sharding_stage
    if 3 in stages:
        if stages != (3, 3) or content["world_size"] != distributed.world_size():
            raise CheckpointError(
                f"{folder}: sharding stage 3 stores slices, which only the same stage and number of ranks "
                f"can read; it has stage {stages[0]} and {content['world_size']} ranks, this run stage "
                f"{stages[1]} and {distributed.world_size()}; use init_from= to start from the weights"
            )
        return read_safetensors(folder / _optimizer_file(3))
    merged: dict[str, np.ndarray] = {}
    for name in content["files"]:
        if name.startswith("optimizer"):
            merged |= read_safetensors(folder / name)
    return merged


class Difference(NamedTuple):
    """A setting that two configs have in common, with different values."""

    key: str
    there: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.there!r}, is {self.now!r}"


def differences(there: Any, now: Any, where: str = "") -> list[Difference]:
    """Return the settings in which a config differs from a stored one.

    Those that only one of them has are left out: versions of the library differ in them. Of sections that
    name different things the names alone are compared.

    Args:
        there: the stored config, or a part of it, as plain data.
        now: the config.
        where: key of the part.
    """
    if dataclasses.is_dataclass(now) and isinstance(there, Mapping):
        shared = [item.name for item in dataclasses.fields(now) if item.name in there]
        parts = {name: (there[name], getattr(now, name)) for name in shared}
        if where and "name" in parts and parts["name"][0] != parts["name"][1]:
            parts = {"name": parts["name"]}
        keys = {name: f"{where}.{name}".lstrip(".") for name in parts}
        return [found for name in parts for found in differences(*parts[name], keys[name])]
    if isinstance(now, (list, tuple)) and isinstance(there, list) and len(now) == len(there):
        pairs = enumerate(zip(there, now, strict=True))
        return [found for place, pair in pairs for found in differences(*pair, f"{where}[{place}]")]
    plain = to_plain(now)
    return [] if there == plain else [Difference(where, there, plain)]


def check_same_run(content: Mapping[str, Any], run: Run, where: str) -> None:
    """Compare the config in the state of a checkpoint, `where`, with that of a run, and log what changed.

    Raises:
        CheckpointError: the sections in `run.IDENTITY` differ; names the fields.
    """
    found = differences(content["config"], run)
    changed = [each for each in found if not each.key.endswith((*_STARTS, ".init"))]
    held = [each for each in changed if not compared_by_content(each, content["corpora"])]
    for section in run.IDENTITY:
        if other := [str(each) for each in held if each.key.partition(".")[0] == section]:
            raise CheckpointError(
                f"{where} belongs to another {section}: {'; '.join(other[:8])}. "
                "Choose another output folder, or start a new run from its weights"
            )
    for each in changed:
        logger.warning("changed since %s was written: %s", where, each)


def compared_by_content(found: Difference, corpora: Mapping[str, str]) -> bool:
    """Return whether a setting names files of which a checkpoint has the fingerprints, `corpora`.

    They may lie elsewhere than before, and `check_same_corpora` decides.
    """
    key, there, now = found
    if key in ("data.tokenizer", "data.root"):
        return key == "data.root" or key in corpora
    if any(not value or str(value).partition(":")[0] in ("scenes", "grid") for value in (there, now)):
        return False
    is_corpus = key.startswith("data.") and key.endswith("].path")
    return is_corpus or any(name.startswith(f"{key} for ") for name in corpora)


def corpora_of(state: TrainState) -> dict[str, str]:
    """Return the fingerprints of all that samples are made of, by name. Collective.

    These are the corpora that are trained on, files that add regions or texts to them, the tokenizer, and the
    answers or classes that labels are numbers of.
    """

    def compute() -> dict[str, str]:
        found = dict(state.loader.fingerprints())
        if state.processor is not None:
            found["data.tokenizer"] = fingerprint([state.processor.tokenizer.backend.to_str()])
        named = getattr(state.task, "metadata", {})
        return found | {f"{name} of the task": fingerprint([value]) for name, value in named.items()}

    return distributed.on_first(compute)


def check_same_corpora(old: Mapping[str, str], new: Mapping[str, str], where: str) -> None:
    """Compare the fingerprints in a checkpoint, `where`, with what they are now.

    Raises:
        CheckpointError: a corpus has other samples than before, or they are made of something else; names it.
    """
    if unknown := [name for name in new if name not in old]:
        raise CheckpointError(
            f"{', '.join(unknown)}: not among what {where} was trained on, which is {', '.join(old)}; a "
            "corpus that was only moved or renamed goes on as {path: PATH, name: OLD_NAME}, others need "
            "another output_dir="
        )
    if changed := [name for name in new if old[name] != new[name]]:
        raise CheckpointError(
            f"{', '.join(changed)}: other samples, or other parts of them, than when {where} was written; "
            "put the old files back to go on, or choose another output_dir= for a new run (with init_from= "
            "from the weights of a finished one)"
        )
