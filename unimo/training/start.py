"""Where a run starts, and whether it is the run whose folder it has: nothing is trained over another run.

A run goes on from the last checkpoint of its output folder if it has the settings of that run. What may
change on the way is in `MAY_CHANGE`; a moved corpus, tokenizer or model is the same while its content is.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from unimo import registry
from unimo.config import read_yaml, to_plain
from unimo.data.tokenizers import tokenizer_beside
from unimo.errors import CheckpointError, shown
from unimo.files import read_json
from unimo.inference import loading
from unimo.settings import RunConfig, named_section
from unimo.training import checkpoint
from unimo.training.next_command import next_command
from unimo.training.state import Run

logger = logging.getLogger(__name__)
SUMMARY = "summary.json"
MAY_CHANGE = frozenset(
    (
        "output_dir",
        "data.max_bad_rate",
        "data.num_workers",
        "data.prefetch",
        "train.device",
        "train.eval_batch_size",
        "train.eval_every",
        "train.keep_checkpoints",
        "train.log_every",
        "train.max_minutes",
        "train.max_steps",
        "train.micro_batch_size",
        "train.on_unsupported_precision",
        "train.patience",
        "train.recompute",
        "train.save_every",
        "train.sharding_stage",
    )
)
"""Settings that may differ when a run goes on: its length, its rhythm, and how it is spread over machines.
With another length the rate follows the new one. Other settings are those of another run."""
_SHOWN = 6
"""Differences that a message names."""


def choose_start(run: RunConfig, output_dir: Path) -> tuple[Path | None, str]:
    """Return the checkpoint to resume from, if any, and the source of the weights for log and summary.

    Raises:
        CheckpointError: the `config.yaml` of the output folder names another model or task, or there is a
            trained model in it without a checkpoint.
    """
    old = read_yaml(output_dir / checkpoint.CONFIG) if (output_dir / checkpoint.CONFIG).is_file() else {}
    for section in ("model", "task"):
        there = named_section(old.get(section), section).get("name")
        wanted = getattr(run, section).name
        if there not in (None, wanted):
            raise CheckpointError(
                f"{output_dir} is the output folder of another run: its {section} is {there!r}, "
                f"this run's is {wanted!r}; {_way_out(output_dir)}"
            )
    last = checkpoint.find_last(output_dir)
    if last is not None:
        return last, f"last checkpoint {last}"
    if old and (output_dir / "model" / loading.WEIGHTS).is_file():
        raise CheckpointError(
            f"{output_dir} holds the model of a run, and no checkpoint to go on from; {_way_out(output_dir)}"
        )
    if run.resume:
        last = checkpoint.resolve(run.resume)
        return last, f"resume={last}"
    if run.init_from:
        return None, f"init_from={run.init_from}"
    return None, "scratch"


def check_settings(run: Run, last: Path, option: str = "output_dir=") -> None:
    """Check that a run has the settings of the one whose checkpoint lies in its output folder.

    Args:
        run: the run, with all that follows from other settings filled in.
        last: the last checkpoint in its folder.
        option: what names the folder on the command line.

    Raises:
        CheckpointError: settings that may not change differ, or it shall end before that checkpoint.
    """
    content = read_json(last / checkpoint.STATE, CheckpointError)
    found = checkpoint.differences(content["config"], run)
    other = [
        f"{each.key} is {_value(each.there)} there, {_value(each.now)} now"
        for each in found
        if not (_may_differ(each) or checkpoint.compared_by_content(each, content["corpora"]))
    ]
    step, output_dir = content["step"], Path(run.output_dir)
    if run.train.max_steps < step:
        other.append(f"{step} steps are done there, train.max_steps is {run.train.max_steps} now")
    if other:
        more = [f"and {len(other) - _SHOWN} more"] * (len(other) > _SHOWN)
        named = "; ".join(other[:_SHOWN] + more)
        raise CheckpointError(f"{output_dir} holds another run: {named}; {_way_out(output_dir, option)}")


def finished(run: RunConfig, last: Path) -> dict[str, Any] | None:
    """Return the summary of a run that is finished, evaluated and saved; None if something is left to do.

    Arguments are those of `check_settings`, which comes before. Files elsewhere than before are left to be
    compared by `checkpoint.restore`.
    """
    output_dir, content = Path(run.output_dir), read_json(last / checkpoint.STATE, CheckpointError)
    step, found = content["step"], checkpoint.differences(content["config"], run)
    if any(checkpoint.compared_by_content(each, content["corpora"]) for each in found):
        return None
    if not (output_dir / SUMMARY).is_file():
        return None
    summary = read_json(output_dir / SUMMARY, CheckpointError)
    ended_early = summary.get("ended_early") and "train.patience" not in [each.key for each in found]
    if step < run.train.max_steps and not ended_early:
        return None
    is_whole = (output_dir / "model" / loading.WEIGHTS).is_file() and summary.get("metrics")
    if not is_whole or (summary["step"], summary["max_steps"]) != (step, run.train.max_steps):
        return None
    again = {"steps_now": 0, "stopped_by": "", "was_finished": True}
    again["next"] = next_command(run, summary["split"], True)
    return summary | again


def log_use_of_scenes(run: RunConfig) -> None:
    """Log that a run reads the built-in corpus, and warn when it is mixed with the user's own data."""
    built_in, has_own_data = sources(run)
    if built_in and not has_own_data:
        logger.info("no data configured: running on the built-in corpus `scenes`")
    elif built_in:
        logger.warning(
            "beside your data this run reads the built-in corpus `scenes`: %s; name your own, "
            "or leave out: %s",
            " ".join(built_in),
            " ".join(f"{name}={'' if 'augment' in name else '[]'}" for name in built_in),
        )
    if tokenizer_of(run) != "scenes":
        return
    if run.data.tokenizer == "auto" and (tower := _text_tower(run)):
        logger.warning(
            "data.tokenizer=auto: there is no tokenizer beside model.text.init=%s, so the words are those of "
            "`scenes`, which the tower never saw; give data.tokenizer=FOLDER or a name such as roberta-base",
            tower,
        )
    elif has_own_data:
        logger.warning("the vocabulary is that of `scenes`, a few words; give data.tokenizer=FOLDER")


def tokenizer_of(run: RunConfig) -> str:
    """Return the tokenizer of a run, as `load_tokenizer` takes it.

    `auto` is that of `init_from`, else that of the weights of the text tower, else `scenes`.

    Raises:
        CheckpointError: `init_from` names no model.
    """
    if run.data.tokenizer != "auto":
        return run.data.tokenizer
    if run.init_from:
        return str(loading.find_model(run.init_from))
    tower = _text_tower(run)
    return (tokenizer_beside(tower) if tower else "") or "scenes"


def sources(run: RunConfig) -> tuple[list[str], bool]:
    """Return the settings that name the built-in corpus, and whether some corpus is another one."""
    corpora = registry.task_class(run.task.name).corpora(run)
    paths = {name: [corpus.path for corpus in listed] for name, listed in corpora.items()}
    built_in = [name for name, found in paths.items() if "scenes" in found]
    augment = to_plain(run.task).get("augment", {})
    built_in += [f"task.augment.{kind}" for kind, source in augment.items() if source == "scenes"]
    return built_in, any(path != "scenes" for found in paths.values() for path in found)


def _text_tower(run: RunConfig) -> str:
    return getattr(getattr(run.model, "text", None), "init", "")


def _may_differ(found: checkpoint.Difference) -> bool:
    """Return whether a run may go on with a difference, whatever files hold."""
    key, there, now = found
    if key in MAY_CHANGE or (key == "resume" and not now):
        return True
    is_place = key in ("data.regions", "init_from", "resume") or key.endswith(".init")
    return is_place and bool(there and now) and _is_moved(Path(str(there)), Path(str(now)))


def _is_moved(there: Path, now: Path) -> bool:
    """Return whether two names stand for one place, or for one that is elsewhere now."""
    return now.exists() and (not there.exists() or there.samefile(now))


def _value(value: Any) -> str:
    """Return a value for a message; of corpora their paths."""
    if isinstance(value, list) and all(isinstance(item, dict) and "path" in item for item in value):
        value = [item["path"] for item in value]
    return shown(value)


def _way_out(output_dir: Path, option: str = "output_dir=") -> str:
    """Return what to do about a folder that is taken."""
    names = (output_dir.with_name(f"{output_dir.name}_{number}") for number in range(2, 10_000))
    free = next((name for name in names if not name.exists()), "ANOTHER")
    return f"choose another folder, {option}{free}, or delete {output_dir}"
