"""Draw what a model has learned: python tools/visualize.py grounded-tokens --model DIR"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.errors import ConfigError

DESCRIPTION = """Draw what a model has learned.
grounded-tokens: Fig. 3 of UNIMO-2. Every patch and text token of a corpus is mapped to the grounded token
with the largest similarity; for the grounded tokens that both use most, the nearest patches and text
tokens are drawn, as grounded_tokens.png and grounded_tokens.html."""
EXAMPLE = "python tools/visualize.py grounded-tokens --model output/unimo2_tiny_pretrain --split val"


def main() -> None:
    """Read the command line, collect, draw, say where."""
    options = parse()
    if options.ids and options.tokens is not None:
        raise ConfigError("give either --tokens N (the most used) or --ids (chosen ones), not both")

    from tqdm import tqdm

    from unimo.analysis import grounded_page, grounded_tokens
    from unimo.inference.evaluation import run_of
    from unimo.inference.loading import find_model, load

    directory = find_model(options.model)
    run = run_of(directory, options.overrides)
    model, processor = load(directory)
    loader = grounded_tokens.open_loader(run, processor, options.data, options.split)
    atlas = grounded_tokens.collect(
        model,
        loader,
        tokens=8 if options.tokens is None else options.tokens,
        ids=options.ids,
        nearest=options.nearest,
        context=options.context,
        max_batches=run.train.eval_max_batches,
        progress=functools.partial(tqdm, unit=" batches", mininterval=1.0),
    )
    folder = options.out or Path("output") / f"{run.model.name}_grounded_tokens"
    data = ", ".join(options.data) or "the data of its run"
    written = grounded_page.write(atlas, folder, f"{directory}; {data}, split {options.split}")
    print(grounded_page.headline(atlas))
    print("\n".join(str(path) for path in written))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    parser.add_argument("figure", choices=["grounded-tokens"], help="what is drawn")
    parser.add_argument("--model", required=True, help="model directory, run folder or name of a run")
    parser.add_argument(
        "--data", action="append", default=[], metavar="PATH",
        help="corpus of images with texts, may be repeated; default: the data of the run",
    )  # fmt: skip
    parser.add_argument("--split", default="val", help="train, val, test or another that the data have")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: output/MODEL_grounded_tokens")
    parser.add_argument("--tokens", type=int, metavar="N", help="grounded tokens to choose [8]")
    parser.add_argument(
        "--ids", type=numbers, default=[], metavar="3,17", help="grounded tokens by number instead"
    )
    parser.add_argument("--nearest", type=int, default=12, metavar="M", help="patches and words of each [12]")
    parser.add_argument("--context", type=int, default=1, help="patches to show around each patch [1]")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. train.eval_max_batches=20")
    return parser.parse_intermixed_args()


def numbers(text: str) -> list[int]:
    """`3,17` as [3, 17]."""
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    cli.run(main)
