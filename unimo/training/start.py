"""Where a run starts, and whether it is the run whose folder it has: nothing is trained over another run.

A run goes on from the last checkpoint of its output folder if it has the settings of that run. What may change
on the way is in `MAY_CHANGE`; a moved corpus, tokenizer or model is the same while its content is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unimo.config import read_yaml
from unimo.data.processor import Processor
from unimo.errors import CheckpointError, shown
from unimo.files import read_json
from unimo.inference import loading
from unimo.settings import RunConfig, named_section
from unimo.training import checkpoint
from unimo.training.loop import CONFIG
from unimo.training.state import Run

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
        "train.recompute",
        "train.save_every",
        "train.sharding_stage",
    )
)
"""Settings that may differ when a run goes on: its length, its rhythm, and how it is spread over machines.
With another length the rate follows the new one. Other settings are those of another run."""
_CORPORA = ("data.pairs[", "data.texts[", "data.images[", "data.path[")
_SHOWN = 6
"""Differences that a message names."""


def choose_start(run: RunConfig, output_dir: Path) -> tuple[Path | None, str]:
    """Return the checkpoint to resume from, if any, and the source of the weights for log and summary.

    Raises:
        CheckpointError: the `config.yaml` of the output folder names another model or task, or there is a
            trained model in it without a checkpoint.
    """
    old = read_yaml(output_dir / CONFIG) if (output_dir / CONFIG).is_file() else {}
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


def check_settings(
    run: Run, last: Path, processor: Processor | None = None, option: str = "output_dir="
) -> int:
    """Check that a run has the settings of the one whose checkpoint lies in its output folder.

    Args:
        run: the run, with all that follows from other settings filled in.
        last: the last checkpoint in its folder.
        processor: its processor, if it has one.
        option: what names the folder on the command line.

    Returns:
        Steps done.

    Raises:
        CheckpointError: settings that may not change differ, or it shall end before that checkpoint.
    """
    content = read_json(last / checkpoint.STATE, CheckpointError)
    found = checkpoint.differences(content["config"], run)
    other = [f"{each.key} is {_value(each.there)} there, {_value(each.now)} now" for each in found if
             not _may_differ(each, bool(content.get("tokenizer")))]
    step, output_dir = content["step"], Path(run.output_dir)
    if run.train.max_steps < step:
        other.append(f"{step} steps are done there, train.max_steps is {run.train.max_steps} now")
    if other:
        more = f" and {len(other) - _SHOWN} more" * (len(other) > _SHOWN)
        raise CheckpointError(
            f"{output_dir} holds another run: {'; '.join(other[:_SHOWN])}{more}; {_way_out(output_dir, option)}"
        )
    checkpoint.check_same_tokenizer(content, processor, str(last))
    return step


def finished(run: RunConfig, step: int) -> dict[str, Any] | None:
    """Return the summary of a run that is finished, evaluated and saved; None if something is left to do."""
    output_dir = Path(run.output_dir)
    if step < run.train.max_steps or not (output_dir / SUMMARY).is_file():
        return None
    summary = read_json(output_dir / SUMMARY, CheckpointError)
    is_whole = (output_dir / "model" / loading.WEIGHTS).is_file() and summary.get("metrics")
    if not is_whole or (summary["step"], summary["max_steps"]) != (step, run.train.max_steps):
        return None
    return summary | {"steps_now": 0, "was_finished": True}


def _may_differ(found: checkpoint.Difference, has_vocabulary: bool) -> bool:
    """Return whether a run may go on with a difference.

    Args:
        has_vocabulary: whether the checkpoint knows its vocabulary, which then is what counts.
    """
    key, there, now = found
    if key in MAY_CHANGE or (key == "resume" and not now):
        return True
    if key == "data.root" or (key.startswith(_CORPORA) and key.endswith("].path")):
        return "scenes" not in (there, now)  # `restore` compares their samples
    if key == "data.tokenizer":
        return has_vocabulary
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
