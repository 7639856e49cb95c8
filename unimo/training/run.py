"""A run from its config: build everything, choose where to start, train, leave a model directory."""

from __future__ import annotations

import contextlib
import json
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from unimo import distributed, registry
from unimo.config import check_fields, dump, to_plain
from unimo.data.processor import Processor, build_processor
from unimo.data.readers.answer_table import open_answer_table
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import ConfigError
from unimo.files import make_folder, write_text
from unimo.inference import loading, saving
from unimo.inference.evaluation import selection_of
from unimo.nn.block import set_recompute
from unimo.settings import RunConfig
from unimo.training import callbacks, checkpoint, micro_batch, precision, stages, start
from unimo.training.hints import hints_of
from unimo.training.loop import carry_out, only_run_in
from unimo.training.memory import forecast, memory
from unimo.training.next_command import next_command
from unimo.training.optimizer import warmup_steps
from unimo.training.optional_start import settle
from unimo.training.plan import Plan, make_plan
from unimo.training.plan import save as save_plan
from unimo.training.plan_table import format_plan
from unimo.training.state import Callback, TrainState

logger = logging.getLogger(__name__)


def train(run: RunConfig, watchers: Sequence[Callback] = ()) -> dict[str, Any]:
    """Carry out a run and return its summary, which is also written to `OUTPUT/summary.json`.

    It starts from the last checkpoint of its output folder, else from `resume`, else from `init_from`, else
    from scratch; the log says which, and what is planned. A finished run is not repeated: its summary is
    returned again. `watchers` are called after the callbacks that every run has.

    Raises:
        UnimoError: config, data, device or checkpoint cannot be used, or the loss is not finite.
    """
    with open_run(run) as (run, processor, last, source):
        done = distributed.on_first(lambda: start.finished(run, last)) if last is not None else None
        if done is not None:
            logger.info("%s is finished; nothing is trained", run.output_dir)
            return done
        if last is None:
            distributed.on_first(lambda: stages.check_order(run))
        state, plan = assemble(run, processor, last, source)
        logger.info("%s", format_plan(plan))
        state.callbacks += [callbacks.Pacing(plan), *watchers]
        carry_out(state, last, dump(state.run))
        return finish(state, plan.start)


def plan_only(run: RunConfig) -> str:
    """Return what a run would do and cost, as text; also write `OUTPUT/plan.json`. Errors as of `train`."""
    with open_run(run) as opened:
        return format_plan(assemble(*opened)[1])


@contextlib.contextmanager
def open_run(run: RunConfig) -> Iterator[tuple[RunConfig, Processor, Path | None, str]]:
    """Open a run, alone in its output folder.

    Yields:
        The run with all that follows from other settings, its processor, the checkpoint to go on from, and
        the source of the weights.

    Raises:
        UnimoError: the settings cannot be, or the folder is that of another run.
    """
    check_fields(run)
    output_dir = make_folder(run.output_dir, "output_dir")
    distributed.setup(run.train)
    with only_run_in(output_dir):
        run = settle(run)
        last, source = distributed.on_first(lambda: start.choose_start(run, output_dir))
        processor = open_processor(run)
        run = resolve(run, processor)
        if last is not None and last.parent == checkpoint.folder_of(output_dir):
            distributed.on_first(lambda: start.check_settings(run, last))
        yield run, processor, last, source


def assemble(run: RunConfig, processor: Processor, last: Path | None, source: str) -> tuple[TrainState, Plan]:
    """Build everything of an opened run: the state before the first step, and the plan."""
    state = build(run, processor, with_init=source == "scratch")
    logger.info("starting from %s", source)
    fresh: list[str] = []
    if last is None and run.init_from:
        fresh = loading.start_from(state.task, run.init_from)
        layers = sorted({name.rpartition(".")[0] or name for name in fresh})
        if layers:
            logger.info("new, randomly initialised: %s", ", ".join(layers))
    if last is None and distributed.rank() == 0:
        start.log_use_of_scenes(run)
    done = checkpoint.read_step(last) if last is not None else 0
    validation = next(each for each in state.callbacks if isinstance(each, callbacks.Evaluate))
    held_out = {validation.split: validation.open(state)}
    logger.info("trying a few samples, for the plan")
    with micro_batch.lack_ends_run(state, 2):
        found = forecast(state)
    choice = micro_batch.settle(state, found, last)
    with micro_batch.lack_ends_run(state):
        plan = make_plan(state, source, fresh, done, held_out, found)
    plan = replace(plan, hints=(*hints_of(plan), *choice.hints))
    save_plan(plan, state)
    return state, plan


def resolve(run: RunConfig, processor: Processor) -> RunConfig:
    """Fill in what follows from other settings: image size, vocabulary, sizes of regions.

    A text tower that starts at random has the vocabulary of the tokenizer, unless `vocab_size` was set. A
    model of regions has the sizes of `data.regions`, and one that learns answers as many as `task.answers`.

    Raises:
        ConfigError: the tokenizer has more tokens than the model, texts may be longer than its positions, or
            it cannot read the images.
    """
    model = to_plain(run.model)
    saved = loading.read_model_config(run.init_from) if run.init_from else {}
    changes = _answers_of(run)
    if "image_size" in model.get("vision", {}):
        changes["vision"] = {"image_size": run.data.image_size}
    if "vocab_size" in model.get("text", {}):
        size, tokens = model["text"]["vocab_size"], processor.tokenizer.vocab_size
        if saved:
            size = saved["model"].get("text", {}).get("vocab_size", size)
        elif not model["text"].get("init") and size == registry.model_config(run.model.name).text.vocab_size:
            size = tokens
        if tokens > size:
            raise ConfigError(
                f"the tokenizer {run.data.tokenizer!r} has {tokens} tokens, but model.text.vocab_size is "
                f"{size}; set it to at least the former, or data.tokenizer= to the one the weights were made "
                "with"
            )
        changes["text"] = {"vocab_size": size}
    text = getattr(run.model, "text", None)
    if text is not None and run.data.max_text_len > text.longest:
        raise ConfigError(
            f"data.max_text_len {run.data.max_text_len}: {run.model.name} has text positions for "
            f"{text.longest} tokens; set it to at most {text.longest}, or model.text.max_position to more"
        )
    reads_regions, pictures = "regions" in model, registry.task_class(run.task.name).pictures
    if reads_regions != bool(run.data.regions) and (pictures or run.data.regions):
        advice = "regions; set data.regions=grid, or" if reads_regions else "pixels; leave out data.regions,"
        raise ConfigError(
            f"{run.model.name} reads {advice} see docs/guides/regions.md (data.regions is "
            f"{run.data.regions!r})"
        )
    if reads_regions and run.data.regions:
        visual = processor.visual
        wanted = saved.get("model", {}).get("regions", {}).get("feature_size", visual.feature_size)
        if wanted != visual.feature_size:
            raise ConfigError(
                f"{run.init_from} reads regions of {wanted} numbers (it was trained with data.regions="
                f"{(saved.get('data') or {}).get('regions', '')}), those of data.regions={run.data.regions} "
                f"have {visual.feature_size}; give data.regions= of the same detector"
            )
        names = ("feature_size", "num_classes", "num_attributes")
        changes["regions"] = {name: getattr(visual, name) for name in names if name in model["regions"]}
    return replace(run, model=registry.with_sections(run.model, changes))


def _answers_of(run: RunConfig) -> dict[str, Any]:
    """Return the model section that says how many answers pre-training knows; none where it learns none."""
    answers = getattr(run.task, "answers", "")
    return {"objective": {"answers": len(open_answer_table(answers, run.data))}} if answers else {}


def build(run: RunConfig, processor: Processor, with_init: bool = True) -> TrainState:
    """Build data, model, task, optimizer and callbacks of a run.

    Args:
        with_init: load the towers for which `model` names files (`init`); without, all weights are random.
    """
    # Both raise before anything slow happens.
    warmup_steps(run.optim.warmup, run.train.max_steps)
    selection = selection_of(run)
    random.seed(run.seed)
    np.random.seed(run.seed)
    paddle.seed(run.seed)
    chosen = precision.choose(run.train)
    task_class = registry.task_class(run.task.name)
    data = task_class.open_data(run, processor)
    model = run.model
    if not with_init:
        model = registry.with_sections(model, loading.without_init(to_plain(model)))
    task = task_class.create(registry.build_model(model), run.task, data.metadata | stages.record(run))
    set_recompute(task, run.train.recompute)
    loader = data.train_loader(run, distributed.rank(), distributed.world_size())
    return TrainState(
        run=run,
        task=task,
        precision=precision.Precision(chosen),
        loader=loader,
        processor=processor,
        data=data,
        callbacks=[
            callbacks.NonFiniteGuard(),
            callbacks.Throughput(),
            callbacks.Checkpoint(),
            callbacks.Evaluate(selection["split"], selection),
            callbacks.Progress(),
            callbacks.JsonLines(),
            callbacks.VisualDL(),
        ],
    )


def open_processor(run: RunConfig) -> Processor:
    """Build the processor of the data section, with the tokenizer that `start.tokenizer_of` names."""
    return build_processor(run.data, load_tokenizer(start.tokenizer_of(run)))


def finish(state: TrainState, source: str) -> dict[str, Any]:
    """Save the model directory and the summary, and return the summary."""
    run, output_dir = state.run, state.output_dir
    found = {type(callback): callback for callback in state.callbacks}
    validation, speed = found[callbacks.Evaluate], found[callbacks.Throughput]
    # A signal during the final evaluation leaves the scores of an earlier model.
    metrics = validation.last if validation.last_step == state.step or not state.is_finished else {}
    seconds = speed.total_seconds
    rate = run.train.batch_size * speed.total_steps / seconds if seconds else 0.0
    summary = {
        "model": run.model.name,
        "task": run.task.name,
        "started_from": source,
        "step": state.step,
        "max_steps": run.train.max_steps,
        "stopped_by": state.stop_reason,
        "ended_early": state.ended_early,
        "ranks": distributed.world_size(),
        "parameters": sum(int(np.prod(p.shape)) for p in state.task.parameters()),
        "steps_now": speed.total_steps,
        "train_seconds_now": round(seconds, 3),
        "samples_per_second": round(rate, 3),
        "peak_memory_mb": round(max(distributed.gather(memory()[1])), 1),
        "records": distributed.gather(state.loader.counter.state_dict()),
        "metrics": metrics,
        **validation.about,
        "best": state.best,
        "next": next_command(run, validation.split, bool(metrics)),
        "output_dir": str(output_dir),
        "model_dir": "" if not state.is_finished and not metrics else str(output_dir / "model"),
    }
    if distributed.rank() == 0:
        if summary["model_dir"]:
            scores = {**metrics, **validation.about} if metrics else {}
            saving.save_model(state.task, state.processor, output_dir / "model", scores, run)
        write_text(output_dir / start.SUMMARY, json.dumps(summary, indent=1))
    distributed.barrier()
    return summary
