"""Draw what a model has learned: python tools/visualize.py grounded-tokens --model DIR"""

import argparse
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.analysis.figures import FIGURES
from unimo.files import make_folder
from unimo.progress import tracked
from unimo.ranges import Count, Size

DESCRIPTION = """Draw what a model has learned.
attention: Fig. 4 of SemVLP, Fig. 5 of UNIMO-3. A word over the picture, a part of it over the words.
layers: Figs. 1, 4 of UNIMO-3. CKA between layers, distances of attention by head, gates.
grounded-tokens: Fig. 3 of UNIMO-2. Patches and words nearest to the grounded tokens they use most.
word-embeddings: Fig. 4 of UNIMO. The nearest words to --words by cosine, in the plane of a PCA.
retrieval: Figs. 5, 6 of UNIMO. Results for images and texts, those on which two models differ first.
segmentation: pictures beside the classes that are there and those that the model sees."""
EXAMPLE = """python tools/visualize.py attention --model output/unimo3_tiny_vqa --image a.png --text "red ?"
  python tools/visualize.py layers --model output/unimo3_tiny_vqa output/bridgetower_tiny_vqa
  python tools/visualize.py grounded-tokens --model output/unimo2_tiny_pretrain --split val
  python tools/visualize.py word-embeddings --model output/full output/without_texts --words hamburger,foot
  python tools/visualize.py retrieval --model output/full output/without_texts --queries 12
  python tools/visualize.py segmentation --model output/vlmo_tiny_segmentation --split val"""


def main() -> None:
    """Draw the figure that the command line names, and print its path."""
    options = parse()
    if options.out:
        make_folder(options.out, "--out")
    from unimo.inference.loading import find_model

    print(*FIGURES[options.figure](options, [find_model(name) for name in options.model]), sep="\n")


def parse() -> argparse.Namespace:
    """Parse the command line; words without `=` are further models."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    add = parser.add_argument
    add("figure", choices=list(FIGURES), help="figure to draw")
    add("--model", action="append", required=True, help="model directory, run folder or name of a run")
    add("--data", action="append", default=[], metavar="PATH", help="corpora; default: those of the run")
    add("--split", default="val", help="train, val, test or another split of the data")
    add("--out", type=Path, metavar="DIR", help="default: a folder in output/")
    add("--nearest", type=cli.number(Size), default=12, metavar="M", help="patches and words of each [12]")
    add("--tokens", type=cli.number(Size), metavar="N", help="grounded tokens to choose [8]")
    add("--ids", type=numbers, default=[], metavar="3,17", help="grounded tokens by number instead")
    add("--words", default="hamburger,foot", help="centre words [hamburger,foot]")
    add("--pairs", type=cli.number(Size), default=512, metavar="N", help="to compare layers on [512]")
    add(
        "--queries",
        type=cli.number(Size),
        default=12,
        metavar="N",
        help="examples, of retrieval in a direction [12]",
    )
    add("--top", type=cli.number(Size), default=3, metavar="K", help="results of each example [3]")
    add("--image", type=Path, metavar="FILE", help="picture whose attention is drawn")
    add("--text", help="text whose attention is drawn")
    add("--word", metavar="red | 3", help="word over the picture [the strongest ones]")
    add("--patch", type=place, metavar="ROW,COL", help="patch over the words, from 1,1 [the strongest ones]")
    add("--region", type=cli.number(Size), metavar="N", help="region over the words, from 1, instead")
    add("--layer", type=some, default="mean", metavar="N | mean", help="layer of attention, from 1 [mean]")
    add("--head", type=some, default="mean", metavar="N | mean", help="head of attention, from 1 [mean]")
    add("overrides", nargs="*", metavar="DIR | KEY=VALUE", help="more models; train.eval_max_batches=20")
    options = parser.parse_intermixed_args()
    options.model += [word for word in options.overrides if "=" not in word]
    options.overrides = [word for word in options.overrides if "=" in word]
    options.source = f"{', '.join(options.data) or 'the data of its run'}, split {options.split}"
    options.progress = functools.partial(tracked, unit="batches")
    return options


def numbers(text: str) -> list[int]:
    """Parse `3,17` as [3, 17]."""
    return [cli.number(Count)(part) for part in text.split(",")]


def place(text: str) -> tuple[int, ...]:
    """Parse `2,3` as (2, 3)."""
    if text.count(",") != 1:
        raise argparse.ArgumentTypeError(f"expected ROW,COL such as 2,3, found {text!r}")
    return tuple(cli.number(Size)(part) for part in text.split(","))


def some(text: str) -> int | str:
    """Parse the number of a layer or head, or `mean`."""
    return text if text == "mean" else cli.number(Size)(text)


if __name__ == "__main__":
    cli.run(main)
