"""Each figure of `tools/visualize.py`: from options of the command line to files and what is said of them.

A figure takes the parsed options and the model directories, and returns lines: what it shows, then its files.
It raises `ConfigError` for options that do not fit it. Paddle is imported by the figure that is drawn.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path

from unimo.errors import ConfigError
from unimo.settings import CorpusConfig


def attention(options: argparse.Namespace, directories: list[Path]) -> list[str]:
    """Draw Fig. 4 of SemVLP and Fig. 5 of UNIMO-3."""
    if len(directories) > 2:
        raise ConfigError(f"{len(directories)} models; expected one, or two to compare")
    if options.image is None or not options.text:
        raise ConfigError('attention is that of a pair; give --image FILE and --text "..."')
    from unimo.analysis import attention as figure
    from unimo.analysis import attention_page, show
    from unimo.inference.evaluation import model_changes, processor_changes, run_of
    from unimo.inference.loading import load

    pair = {"image": options.image, "text": options.text, "layer": options.layer, "head": options.head}
    found = []
    for title, directory in zip(show.titles_of(directories), directories, strict=True):
        run = run_of(directory, options.overrides)
        opened = load(directory, processor=processor_changes(run), **model_changes(run))
        found.append(figure.collect(title, *opened, **pair))
    chosen = figure.select(found, options.word, options.patch, options.region)
    folder = options.out or Path("output") / "attention"
    files = attention_page.write(found, chosen, folder, f"{options.image}; {options.text}")
    return [*(f"{each.model}: {each.chosen}" for each in found), *map(str, files)]


def grounded_tokens(options: argparse.Namespace, directories: list[Path]) -> list[str]:
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
    files = grounded_page.write(atlas, folder, f"{directories[0]}; {options.source}")
    return [grounded_page.headline(atlas), *map(str, files)]


def layers(options: argparse.Namespace, directories: list[Path]) -> list[str]:
    """Draw Figs. 1 and 4 of UNIMO-3, and its gates."""
    from unimo.analysis import layers as figure
    from unimo.analysis import layers_page, show
    from unimo.analysis.grounded_tokens import open_loader
    from unimo.inference.evaluation import model_changes, processor_changes, run_of
    from unimo.inference.loading import load

    found = []
    for title, directory in zip(show.titles_of(directories), directories, strict=True):
        run = run_of(directory, options.overrides)
        model, processor = load(directory, processor=processor_changes(run), **model_changes(run))
        size = min(run.train.eval_batch_size, options.pairs)
        run = dataclasses.replace(run, train=dataclasses.replace(run.train, eval_batch_size=size))
        loader = open_loader(run, processor, options.data, options.split)
        batches = itertools.islice(loader, options.pairs // size)
        found.append(figure.collect(title, model, batches, options.progress))
    folder = options.out or Path("output") / "layers"
    return [*map(layers_page.headline, found), *map(str, layers_page.write(found, folder, options.source))]


def words(options: argparse.Namespace, directories: list[Path]) -> list[str]:
    """Draw Fig. 4 of UNIMO."""
    from unimo.analysis import show, word_embeddings
    from unimo.inference.loading import load

    if options.overrides:
        raise ConfigError(f"{options.overrides[0]}: embeddings are drawn as they are, without settings")
    opened = zip(show.titles_of(directories), map(load, directories), strict=True)
    lexicons = [word_embeddings.open_lexicon(name, *parts) for name, parts in opened]
    rows = [[one.around(word, options.nearest) for one in lexicons] for word in options.words.split(",")]
    files = word_embeddings.write(rows, options.out or Path("output") / "word_embeddings")
    return [*(word_embeddings.headline(panel) for panels in rows for panel in panels), *map(str, files)]


def retrieval(options: argparse.Namespace, directories: list[Path]) -> list[str]:
    """Draw Figs. 5 and 6 of UNIMO."""
    from unimo.analysis import retrieval as figure

    numbers = {"queries": options.queries, "top": options.top, "progress": options.progress}
    corpora = {"paths": options.data, "overrides": options.overrides}
    found = figure.find_examples(directories, options.split, **corpora, **numbers)
    page = figure.write(found, options.out or Path("output") / "retrieval", options.source)
    return [*map(figure.headline, found.models), str(page)]


def segmentation(options: argparse.Namespace, directories: list[Path]) -> list[str]:
    """Draw pictures beside the classes that are there and those that a model sees."""
    if len(directories) > 1:
        raise ConfigError("segmentation is that of one model; give one --model")
    from unimo.analysis import segmentation as figure
    from unimo.analysis import segmentation_page, show
    from unimo.inference.evaluation import run_of

    run = run_of(directories[0], options.overrides)
    if options.data:
        path = [CorpusConfig(each) for each in options.data]
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, path=path))
    title = show.titles_of(directories)[0]
    seen = figure.collect(title, directories[0], run, options.split, options.queries, options.progress)
    folder = options.out or Path("output") / f"{run.model.name}_segmentation_pictures"
    return [seen.headline, *map(str, segmentation_page.write(seen, folder, options.source))]


FIGURES = {
    "attention": attention,
    "layers": layers,
    "grounded-tokens": grounded_tokens,
    "word-embeddings": words,
    "retrieval": retrieval,
    "segmentation": segmentation,
}
