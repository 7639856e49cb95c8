"""Fine-tune a model on a task."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.config import list_recipes, parse_overrides, read_recipe, read_yaml
from unimo.errors import ConfigError, nearest
from unimo.inference import loading
from unimo.registry import TASKS
from unimo.run_series import load_modes
from unimo.settings import RunConfig, named_section
from unimo.training.listing import list_finetuning

DESCRIPTION = """Fine-tune a model on a task.
Without --model and --init: the latest pre-trained UNIMO-3 in output/ (UNIMO-2 for captions and
classification, UNIMO for text generation), or its tiny size from scratch if there is none. Without
data.path=DIR: the built-in corpus `scenes`."""
EXAMPLE = "python tools/finetune.py --task vqa --init output/unimo3_tiny_pretrain/model data.path=DIR"
FINE_TUNING = [name for name in TASKS if name != "pretrain"]
DEFAULT_MODELS = ("unimo3_tiny", "unimo2_tiny", "unimo_tiny")  # the first that has a recipe for the task
logger = logging.getLogger("unimo.finetune")


def main() -> int:
    """Read the command line, choose where to start, train, print a summary."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    parser.add_argument("--task", required=True, help=", ".join(sorted(FINE_TUNING)))
    parser.add_argument("--model", default="", help="recipe, or a YAML file; default: the model of --init")
    start = "model directory or run folder; `none`: start from scratch"
    parser.add_argument("--init", default="", help=start)
    cli.add_run_arguments(parser, RunConfig)
    cli.add_list(parser, list_finetuning, "tasks and their recipes")
    options = parser.parse_intermixed_args()
    from unimo.training.command import carry_out  # Paddle, not for --help and --list

    return carry_out(*build_runs(options), dry_run=options.dry_run, plan=options.plan)


def build_runs(options: argparse.Namespace) -> list[RunConfig]:
    """Build the config of the run from the recipe, the model to start from and the command line; with
    `task.mode=best` one for each mode.

    Raises:
        ConfigError: unknown task, model or override.
        CheckpointError: `--init` is no model directory.
    """
    task = options.task
    if task not in FINE_TUNING:
        raise ConfigError(f"unknown task {task!r}; {nearest(task, FINE_TUNING)}")
    recipe = read_recipe(options.model, task) if options.model else {}
    model = named_section(recipe.get("model", {})).get("name", "")
    default = next((name for name in DEFAULT_MODELS if name in list_recipes(task)), "")
    init = options.init or latest_pretrained(model, default.removesuffix("tiny"))
    start, saved = {}, {}
    if init and init != "none":
        start = {"init_from": str(loading.find_model(init))}
        saved = loading.without_init(loading.read_model_config(init)["model"])
    elif not init:
        logger.warning("no pre-trained %s in %s/: starting from scratch", model or default, loading.OUTPUT)
    name = model or saved.get("name", default)
    recipe = recipe or read_recipe(name, task)
    section = loading.model_section(name, saved, named_section(recipe.get("model", {})))
    changes = {"task": {"name": task}, "model": section, **start}
    runs = load_modes(recipe, changes, parse_overrides(options.overrides))
    run = runs[0]
    if not options.init and (begun := begun_from(run)) not in ("", run.init_from or "none"):
        logger.info("the run in %s goes on, which began with --init %s", run.output_dir, begun)
        again = {"init": begun, "model": options.model or run.model.name}
        return build_runs(argparse.Namespace(**vars(options) | again))
    return runs


def begun_from(run: RunConfig) -> str:
    """Return what the run in the output folder began with; empty if there is none of this model and task."""
    folder = Path(run.output_dir)
    if not (folder / "checkpoints").is_dir() or not (folder / loading.CONFIG).is_file():
        return ""
    there = read_yaml(folder / loading.CONFIG)
    names = [named_section(there.get(part), part).get("name") for part in ("model", "task")]
    return (there.get("init_from") or "none") if names == [run.model.name, run.task.name] else ""


def latest_pretrained(model: str, prefix: str) -> str:
    """Return the newest pre-trained model in output/ of that name, or, without a name, with that prefix."""
    for directory in loading.list_saved("pretrain"):
        found = loading.read_model_config(directory)["model"]["name"]
        if found == model or (not model and found.startswith(prefix)):
            logger.info("starting from the latest pre-trained model, %s", directory)
            return str(directory)
    return ""


if __name__ == "__main__":
    cli.run(main)
