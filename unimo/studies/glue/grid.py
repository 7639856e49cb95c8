"""The grid: every task of GLUE with every rate, batch and seed, from models that the command line names.

The protocol is BridgeTower's, which UNIMO-3 follows in Table 3: ten epochs, evaluated after each, ended when
three in a row were not better on dev. What the grid does not vary is of the model's own recipe.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unimo import cli, registry
from unimo.config import list_recipes
from unimo.data.readers.glue import TITLES, GlueName
from unimo.errors import ConfigError
from unimo.files import write_text
from unimo.inference import loading
from unimo.ranges import Count, Positive, Size
from unimo.settings import load_run_config
from unimo.studies.glue import server
from unimo.studies.glue.choice import Cell, by_model, choose, describe, short, table
from unimo.studies.glue.data import SCENES, SCORES, GlueData
from unimo.studies.glue.pace import with_minutes
from unimo.studies.results import Result, format_csv
from unimo.studies.study import Evaluate, Finetune, Row, Steps, Study

TASK = "text_classification"
BEST = "best.csv"


@dataclass(frozen=True)
class Start:
    """A model that is fine-tuned."""

    label: str
    """Its row in the table."""
    recipe: str
    init: str = ""
    """Model directory; empty for a start from scratch."""


@dataclass(frozen=True)
class GlueStudy(Study):
    """A study whose rows are the cells of a grid."""

    cells: tuple[Cell, ...] = ()
    """Cell of each row."""
    data: GlueData | None = None
    asks_server: bool = False
    """Whether the test files are answered for GLUE's server."""
    with_wnli: bool = False
    """Whether the answers include the most frequent class for WNLI."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the models, the data and the grid."""
        add, rate, size = parser.add_argument, cli.number(Positive), cli.number(Size)
        about = "models or runs to start from, or recipes to start from scratch [%(default)s]"
        add("--model", nargs="+", default=["unimo3_tiny"], metavar="DIR", help=about)
        about = "folder of GLUE's folders, or scenes for built-in sentences [%(default)s]"
        add("--glue", default=SCENES, metavar="DIR", help=about)
        about = f"of {' '.join(SCORES)} [all that are there; WNLI never is one of them]"
        add("--tasks", nargs="+", choices=list(SCORES), default=[], metavar="TASK", help=about)
        add("--rates", nargs="+", type=rate, default=[1e-5, 2e-5], metavar="LR", help="[1e-05 2e-05]")
        add("--batches", nargs="+", type=size, default=[16, 32], metavar="N", help="[16 32]")
        about = "most epochs of a training, each evaluated on dev [%(default)s]"
        add("--epochs", type=size, default=10, metavar="N", help=about)
        about = "epochs without a better score that end a training; 0 for none [%(default)s]"
        add("--patience", type=cli.number(Count), default=3, metavar="N", help=about)
        about = "answer the test files by the best model of each task, and zip them for GLUE's server"
        add("--server", action="store_true", help=about)
        about = "with --server: its most frequent class for WNLI, whose file the server wants too"
        add("--wnli-majority", action="store_true", help=about)

    def declare(self, args: argparse.Namespace) -> GlueStudy:
        """Return the study with a row for each cell of the grid.

        Raises:
            UnimoError: there is no such model, recipe or task, or an option does not fit another.
        """
        if args.wnli_majority and not args.server:
            raise ConfigError("--wnli-majority adds to the files of --server; give both")
        if args.server and args.glue == SCENES:
            raise ConfigError("--server answers GLUE's own test files; give their folder by --glue DIR")
        starts = [_start_of(name) for name in dict.fromkeys(args.model)]
        if len({start.label for start in starts}) < len(starts):
            raise ConfigError(f"--model {' '.join(args.model)}: two have one name; rename a folder")
        runs = [load_run_config(start.recipe, TASK, args.overrides) for start in starts]
        data = GlueData(args.glue, runs[0].data)
        scores = data.find(args.tasks)
        sizes = {task: len(data.open(task, "train")) for task in scores}
        chance = {task: data.guess(task) for task in scores}
        trainings = list(_grid(args, starts, scores, sizes))
        declared = replace(
            self,
            cells=tuple(cell for cell, _, _ in trainings),
            rows=tuple(row for _, row, _ in trainings),
            steps=tuple({each.name: each for _, _, each in trainings}.values()),
            tables=(table(scores, sizes, chance),),
            data=data,
            words=tuple(_words(args)),
            about=tuple(_about(args, starts, sizes)),
            length=f"up to {args.epochs} epochs, ended {args.patience} after the best on dev"
            if args.patience
            else f"{args.epochs} epochs",
            ends_early=args.patience > 0,
            asks_server=args.server,
            with_wnli=args.wnli_majority,
            next_command=_next(args),
        )
        return with_minutes(declared, args.output, args.overrides, may_plan=not args.dry_run)

    def sum_up(self, results: Sequence[Result]) -> tuple[Study, Sequence[Result], str]:
        """Return the study and its results by model, with the best cell of each task."""
        chosen = choose(self.cells, results)
        return *by_model(self, chosen), describe(chosen)

    def row_done(self, results: Sequence[Result], output: Path) -> None:
        """Keep of the finished trainings the best model of each task alone: a large one needs gigabytes."""
        best = {(cell.label, cell.task): model for cell, _, model in self.best_runs(results, output)}
        for cell, result in self.finished(results):
            training = output / result_folder(cell, result) / "train"
            for part in ("checkpoints", "model", "best"):
                if part != "best" or training / part != best.get((cell.label, cell.task)):
                    shutil.rmtree(training / part, ignore_errors=True)

    def finished(self, results: Sequence[Result]) -> Iterator[tuple[Cell, Result]]:
        """Yield the results of the grid with their cells."""
        cells = {cell.row: cell for cell in self.cells}
        yield from ((cells[result["row"]], result) for result in results if result["row"] in cells)

    def best_runs(self, results: Sequence[Result], output: Path) -> list[tuple[Cell, Result, Path]]:
        """Return the training with the best score of each model and task, and its model directory, among
        those whose model is there."""
        best: dict[tuple[str, GlueName], tuple[Cell, Result, Path]] = {}
        for cell, result in self.finished(results):
            model = output / result_folder(cell, result) / "train" / "best"
            before = best.get((cell.label, cell.task))
            better = before is None or cell.value(result) > before[0].value(before[1])
            if better and (model / loading.WEIGHTS).is_file():
                best[cell.label, cell.task] = (cell, result, model)
        return list(best.values())

    def finish(self, results: Sequence[Result], output: Path) -> list[str]:
        """Write `best.csv`, the table with every seed, and answer the test files if that was asked for.

        Raises:
            OSError: the table cannot be written.
        """
        write_text(output / BEST, format_csv(self.sum_up(results)[1]))
        lines = [f"the best of each task: {output / BEST}"]
        if not self.asks_server:
            return lines
        models: dict[str, dict[GlueName, Path]] = {}
        for cell, _, model in self.best_runs(results, output):
            models.setdefault(cell.label, {})[cell.task] = model
        for label, found in models.items():
            lines += server.answer(label, found, self.data, output, self.with_wnli)
        return lines


def result_folder(cell: Cell, result: Result) -> str:
    """Return the name of the folder of a finished training."""
    return Row(cell.row, "", ()).folder(result["seed"])


def _start_of(name: str) -> Start:
    if name in {*list_recipes(TASK), *registry.list_models()}:  # of those without a recipe it is said
        return Start(name, name)
    directory = Path(name)
    recipe = loading.read_model_config(directory)["model"]["name"]
    label = directory.parent.name if directory.name in ("model", "best") else directory.name
    return Start(label, recipe, name)


def _grid(
    args: argparse.Namespace,
    starts: Sequence[Start],
    scores: Mapping[GlueName, str],
    sizes: Mapping[GlueName, int],
) -> Iterator[tuple[Cell, Row, Steps]]:
    """Yield every training; small tasks come first, whose results are there first."""
    for start in starts:
        for task in sorted(scores, key=sizes.__getitem__):
            for batch in dict.fromkeys(args.batches):
                most = max(1, round(args.epochs * sizes[task] / batch))
                steps = Steps(f"{start.label}/{task}/{batch}", most, f"{args.epochs} epochs")
                epoch = min(most, max(1, round(sizes[task] / batch)))
                for rate in dict.fromkeys(args.rates):
                    cell = Cell(start.label, task, scores[task], rate, batch)
                    words = (
                        f"task.dataset={task}",
                        f"data.path={args.glue}",
                        f"optim.lr={rate:g}",
                        f"train.batch_size={batch}",
                        f"train.eval_every={epoch}",
                        f"train.save_every={epoch}",
                        "train.keep_checkpoints=1",
                        f"train.select_metric={cell.score}",
                        f"train.patience={args.patience}",
                    )
                    training = Finetune("train", steps.name, TASK, words, init=start.init)
                    judged = Evaluate("dev", of="train", task=TASK, model="best")
                    yield cell, Row(cell.row, start.recipe, (training, judged)), steps


def _about(args: argparse.Namespace, starts: Sequence[Start], sizes: Mapping[GlueName, int]) -> list[str]:
    named = (f"{start.label} ({start.init or 'from scratch'})" for start in starts)
    there = ", ".join(f"{TITLES[task]} {short(size)}" for task, size in sizes.items())
    absent = [TITLES[task] for task in SCORES if task not in sizes]
    rates, batches = (", ".join(f"{each:g}" for each in values) for values in (args.rates, args.batches))
    return [
        f"models: {', '.join(named)}",
        f"tasks of {args.glue}: {there}; left out: {', '.join([*absent, 'WNLI'])}",
        f"grid: rates {rates}; batches {batches}",
    ]


def _next(args: argparse.Namespace) -> str:
    """Return the next command, for `str.format`: the files for the server, or a look at what there is."""
    command = f"cat {shlex.quote(str(args.output / 'table.md'))}"
    if args.server:
        command = f"unzip -l {shlex.quote(str(args.output / 'server'))}/*.zip"
    elif args.glue != SCENES:
        words = [*_words(args), "--output", str(args.output), "--server", *args.overrides]
        command = f"python tools/study.py glue {shlex.join(words)}"
    return command.replace("{", "{{").replace("}", "}}")


def _words(args: argparse.Namespace) -> list[str]:
    """Return the options of a command line that the rows follow from."""
    words = ["--model", *args.model, "--glue", args.glue]
    words += ["--tasks", *args.tasks] if args.tasks else []
    words += ["--rates", *(f"{rate:g}" for rate in args.rates)]
    words += ["--batches", *map(str, args.batches)]
    return [*words, "--epochs", str(args.epochs), "--patience", str(args.patience)]
