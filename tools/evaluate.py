"""Evaluate a fine-tuned or pre-trained model: one JSON object on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.errors import CheckpointError, ConfigError, nearest
from unimo.files import make_place
from unimo.inference import loading
from unimo.registry import TASKS
from unimo.settings import RunConfig

DESCRIPTION = """Evaluate a model directory on a split.
Prints one JSON object; everything else goes to standard error. The data are those of the run that made
the model, unless data.path=DIR names others. Accuracies and recalls are percentages.
With --zero-shot a pre-trained model is scored on retrieval or image_classification by its matching head."""
EXAMPLE = "python tools/evaluate.py --task vqa --model output/unimo3_tiny_vqa --split val"


def main() -> None:
    """Read the command line, evaluate, print."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    parser.add_argument("--task", default="", help=f"expected task: {', '.join(sorted(TASKS))}")
    parser.add_argument("--model", default="", help="model directory or run; default: newest of --task")
    about = "train, val, test or another that the data have; default: that of validation in training"
    parser.add_argument("--split", default="", help=about)
    parser.add_argument("--zero-shot", action="store_true", help="a pre-trained model on another task")
    parser.add_argument("--labels", default="", metavar="FILE", help="zero-shot: class names, one a line")
    parser.add_argument("--prompt", default="", help='zero-shot: default "a photo of {}"')
    parser.add_argument("--blank-images", action="store_true", help="hide the images: what is left to guess?")
    parser.add_argument("--predictions", default="", metavar="FILE", help="write answers (VQA: server file)")
    cli.add_overrides(parser, RunConfig, "train.eval_batch_size=32")
    options = parser.parse_intermixed_args()
    if options.task and options.task not in TASKS:
        raise ConfigError(f"unknown task {options.task!r}; {nearest(options.task, TASKS)}")
    if (options.labels or options.prompt) and not options.zero_shot:
        raise ConfigError("--labels and --prompt go with --zero-shot; a fine-tuned model knows its classes")
    directory = options.model
    if not directory:
        kind = "pretrain" if options.zero_shot else options.task
        if not (saved := loading.list_saved(kind)):
            wanted = f"{kind} model".lstrip()
            raise CheckpointError(f"no {wanted} in {loading.OUTPUT}/; give one with --model DIR")
        directory = saved[0]

    if options.predictions:
        make_place(options.predictions, "--predictions")
    from unimo.inference.evaluation import describe, evaluate, write_predictions

    common = (directory, options.split, options.task, options.overrides, options.blank_images)
    if options.zero_shot:
        from unimo.inference.zero_shot import evaluate_zero_shot

        result = evaluate_zero_shot(*common, labels=options.labels, prompt=options.prompt)
    else:
        result = evaluate(*common)
    if not cli.is_main_rank():
        return
    if options.predictions:
        write_predictions(options.predictions, result)
    described = describe(directory, result, options.blank_images)
    print(json.dumps(described | ({"zero_shot": True} if options.zero_shot else {})))


if __name__ == "__main__":
    cli.run(main)
