"""Draw what a model has learned: python tools/visualize.py grounded-tokens --model DIR"""

import argparse
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.errors import ConfigError
from unimo.files import make_folder
from unimo.progress import tracked
from unimo.ranges import Count, Size

DESCRIPTION = """Draw what a model has learned.
grounded-tokens: Fig. 3 of UNIMO-2. Patches and words nearest to the grounded tokens they use most.
word-embeddings: Fig. 4 of UNIMO. The nearest words to --words by cosine, in the plane of a PCA.
retrieval: Figs. 5, 6 of UNIMO. Results for images and texts, those on which two models differ first."""
EXAMPLE = """python tools/visualize.py grounded-tokens --model output/unimo2_tiny_pretrain --split val
  python tools/visualize.py word-embeddings --model output/full output/without_texts --words hamburger,foot
  python tools/visualize.py retrieval --model output/full output/without_texts --queries 12"""


def main() -> None:
    """Draw the figure that the command line names, and print its path."""
    options = parse()
    if options.out:
        make_folder(options.out, "--out")
    from unimo.inference.loading import find_model

    FIGURES[options.figure](options, [find_model(name) for name in options.model])


def grounded_tokens(options: argparse.Namespace, directories: list[Path]) -> None:
    """Draw Fig. 3 of UNIMO-2."""
    if len(directories) > 1:
        raise ConfigError("grounded tokens are those of one model; give one --model")
    if options.ids and options.tokens is not None:
        raise ConfigError("give either --tokens N (the most used) or --ids (chosen ones), not both")
    from unimo.analysis import grounded_page, grounded_tokens
    from unimo.inference.evaluation import run_of
    from unimo.inference.loading import load

    run = run_of(directories[0], options.overrides)
    model, processor = load(directories[0])
    atlas = grounded_tokens.collect(
        model,
        grounded_tokens.open_loader(run, processor, options.data, options.split),
        tokens=8 if options.tokens is None else options.tokens,
        ids=options.ids,
        nearest=options.nearest,
        max_batches=run.train.eval_max_batches,
        progress=options.progress,
    )
    folder = options.out or Path("output") / f"{run.model.name}_grounded_tokens"
    print(grounded_page.headline(atlas))
    print(*grounded_page.write(atlas, folder, f"{directories[0]}; {options.source}"), sep="\n")


def words(options: argparse.Namespace, directories: list[Path]) -> None:
    """Draw Fig. 4 of UNIMO."""
    from unimo.analysis import show, word_embeddings
    from unimo.inference.loading import load

    if options.overrides:
        raise ConfigError(f"{options.overrides[0]}: embeddings are drawn as they are, without settings")
    opened = zip(show.titles_of(directories), map(load, directories), strict=True)
    lexicons = [word_embeddings.open_lexicon(name, *parts) for name, parts in opened]
    rows = [[one.around(word, options.nearest) for one in lexicons] for word in options.words.split(",")]
    print(*(word_embeddings.headline(panel) for panels in rows for panel in panels), sep="\n")
    print(*word_embeddings.write(rows, options.out or Path("output") / "word_embeddings"), sep="\n")


def retrieval(options: argparse.Namespace, directories: list[Path]) -> None:
    """Draw Figs. 5 and 6 of UNIMO."""
    from unimo.analysis import retrieval as figure

    numbers = {"queries": options.queries, "top": options.top, "progress": options.progress}
    corpora = {"paths": options.data, "overrides": options.overrides}
    found = figure.find_examples(directories, options.split, **corpora, **numbers)
    print(*map(figure.headline, found.models), sep="\n")
    print(figure.write(found, options.out or Path("output") / "retrieval", options.source))


FIGURES = {"grounded-tokens": grounded_tokens, "word-embeddings": words, "retrieval": retrieval}


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
    add("--queries", type=cli.number(Size), default=12, metavar="N", help="examples of a direction [12]")
    add("--top", type=cli.number(Size), default=3, metavar="K", help="results of each example [3]")
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


if __name__ == "__main__":
    cli.run(main)
