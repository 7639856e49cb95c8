"""Fine-tune a model on a task."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.config import dump, find_config, list_recipes, read_yaml
from unimo.errors import ConfigError, nearest
from unimo.inference import loading
from unimo.registry import TASKS, model_config
from unimo.settings import RunConfig, load_run_config

DESCRIPTION = """Fine-tune a model on a task.
Without --model and --init: the latest pre-trained UNIMO-3 in output/ (UNIMO-2 for captions and
classification, UNIMO for text generation), or its tiny size from scratch if there is none. Without
data.path=DIR: the built-in corpus `scenes`."""
EXAMPLE = "python tools/finetune.py --task vqa --init output/unimo3_tiny_pretrain/model data.path=DIR"
DEFAULT_MODELS = ("unimo3_tiny", "unimo2_tiny", "unimo_tiny")  # the first that has a recipe for the task
logger = logging.getLogger("unimo.finetune")


def main() -> None:
    """Read the command line, settle where to start, train, print a summary."""
    options = parse()
    run = build_run(options)
    if options.dry_run:
        print(dump(run))
        return
    from unimo.training.run import format_summary, train

    summary = train(run)
    if cli.is_main_rank():
        print(format_summary(summary))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    tasks = ", ".join(sorted(fine_tuning_tasks()))
    parser.add_argument("--task", required=True, help=tasks)
    parser.add_argument("--model", default="", help="registered name or recipe; default: that of --init")
    parser.add_argument(
        "--init", default="", help="model directory or run folder; `none`: start from scratch"
    )
    cli.add_run_arguments(parser)
    return parser.parse_intermixed_args()


def fine_tuning_tasks() -> list[str]:
    """All tasks but pre-training."""
    return [name for name in TASKS if name != "pretrain"]


def build_run(options: argparse.Namespace) -> RunConfig:
    """The config of the run.

    Raises:
        ConfigError: unknown task, model or override.
        CheckpointError: `--init` is no model directory.
    """
    if options.task not in fine_tuning_tasks():
        raise ConfigError(f"unknown task {options.task!r}; {nearest(options.task, fine_tuning_tasks())}")
    recipes = list_recipes(options.task)
    model = options.model
    if model in recipes or is_file(model):
        model = read_yaml(find_config(model, options.task)).get("model", {}).get("name", model)
    if model:
        model_config(model)
    under: dict[str, Any] = {"task": {"name": options.task}}
    default = next(name for name in DEFAULT_MODELS if name in recipes)
    init = options.init or latest_pretrained(model, default.split("_")[0])
    section: dict[str, Any] = {}
    if init and init != "none":
        under["init_from"] = str(loading.find_model(init))
        section = loading.without_init(loading.read_model_config(init)["model"])
    elif not init:
        logger.warning("no pre-trained %s in %s/: starting from scratch", model or default, loading.OUTPUT)
    name = model or section.get("name", default)
    recipe = recipe_for(options.model or name, options.task)
    wanted = read_yaml(find_config(recipe, options.task)).get("model", {})
    under["model"] = loading.model_section(name, section, wanted)
    return load_run_config(recipe, options.task, options.overrides, **under)


def latest_pretrained(model: str, family: str) -> str:
    """The newest pre-trained model in output/: of that name, or of the family when no name is given."""
    for directory in loading.list_saved("pretrain"):
        found = loading.read_model_config(directory)["model"]["name"]
        if found == model or (not model and found.startswith(family)):
            logger.info("starting from the latest pre-trained model, %s", directory)
            return str(directory)
    return ""


def recipe_for(name: str, task: str) -> str:
    """The recipe of a model, or that of the UNIMO-3 of the same size (METER and BridgeTower share it)."""
    recipes = list_recipes(task)
    if name in recipes or is_file(name):
        return name
    size = name.split("_")[1]
    same_size = f"unimo3_{size}"
    return same_size if same_size in recipes else name


def is_file(name: str) -> bool:
    """Whether `--model` names a recipe file instead of a registered model."""
    return name.endswith((".yaml", ".yml"))


if __name__ == "__main__":
    cli.run(main)
