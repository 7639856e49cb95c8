"""Run a study: a grid of trainings with several seeds, its tables and a plot."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.errors import CheckpointError
from unimo.files import make_folder, write_text
from unimo.ranges import Seed, Size, at_least
from unimo.studies import report, runner
from unimo.studies.catalogue import STUDIES, find_study
from unimo.studies.results import write_table
from unimo.studies.study import Job, Study

DESCRIPTION = """Run a study: pre-train, fine-tune and evaluate every row with every seed, by public commands.
Finished stages are kept: the same command goes on where it was stopped. OUTPUT gets table.md, table.csv
(every row and seed, written after each; what stands in it is not run again) and table.png."""
EXAMPLE = """python tools/study.py --list
  python tools/study.py unimo2 --help
  python tools/study.py unimo2 --seeds 0 1 2 --jobs 2 --pretrain-steps 1000
  python tools/study.py scenes --rows unimo3_tiny meter_tiny --seeds 0 train.batch_size=32"""


def main() -> None:
    """Say what is going to run, run it, then print the tables, write them and draw them."""
    words = sys.argv[1:]
    if not words or words[0].startswith("-"):
        list_studies(words)
        return
    named = find_study(words[0])
    args = parse(named, words[1:])
    steps = {each.name: getattr(args, f"{each.name}_steps") for each in named.steps}
    study = named.declare(args)
    jobs = runner.make_jobs(study, args.rows, args.seeds, steps, args.overrides)
    results = runner.collect(study, jobs, args.output)
    print(report.describe_plan(study, jobs, results, args.output, args.jobs), flush=True)
    if args.dry_run:
        for job in jobs:
            for command in job.commands(args.output).values():
                print("  python tools/" + shlex.join(command))
        return
    make_folder(args.output, "--output")

    def keep() -> None:
        done = runner.collect(study, jobs, args.output)
        write_table(done, args.output)
        study.row_done(done, args.output)

    runner.run_jobs(jobs, args.output, args.jobs, keep)
    results = runner.collect(study, jobs, args.output)
    print(f"\n{write(study, jobs, results, args)}\n")
    print(f"written: {', '.join(str(args.output / f'table.{end}') for end in ('md', 'csv', 'png'))}")
    print(*study.finish(results, args.output), sep="\n", end="\n" * bool(study.words))
    print(report.next_commands(study, jobs, results, args.output))


def list_studies(words: list[str]) -> None:
    """Print a line for each study: `--list`, or no words at all."""
    parser = cli.arguments(DESCRIPTION, EXAMPLE)
    parser.usage = "study.py NAME [--seeds 0 1 2] [--jobs N] [options] [KEY=VALUE ...] | NAME --help | --list"
    parser.add_argument("--list", action="store_true", help="list the studies, one line each")
    if not parser.parse_args(words).list:
        parser.error(f"the name of a study comes first: {', '.join(STUDIES)}")
    for study in STUDIES.values():
        rows = f"{len(study.rows) and len(study.choose_rows()) or 'many'} rows, {len(study.seeds)} seeds"
        print(f"{study.name:<8}{study.question} {rows}; {study.paper}")


def parse(study: Study, words: list[str]) -> argparse.Namespace:
    """Parse what follows the name of a study."""
    example = f"python tools/study.py {study.name} --jobs 2"
    parser = cli.arguments(f"{study.question}\n{study.paper}.", example)
    parser.prog = f"study.py {study.name}"
    study.add_options(parser)
    names, default = ("; ".join(row.name for row in rows) for rows in (study.rows, study.choose_rows()))
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="ROW", help=f"of {names} [{default or 'all'}]"
    )
    seeds = " ".join(map(str, study.seeds))
    parser.add_argument("--seeds", nargs="+", type=cli.number(Seed), default=[], help=f"[{seeds}]")
    for each in study.steps:
        kind, about = cli.number(at_least(each.least)), f"{each.about} [%(default)s]"
        parser.add_argument(f"--{each.name}-steps", type=kind, default=each.default, metavar="N", help=about)
    about, output = "rows at a time; they share the cores", Path("output/studies") / study.name
    parser.add_argument("--jobs", type=cli.number(Size), default=1, metavar="N", help=about)
    parser.add_argument("--output", type=Path, default=output, metavar="DIR", help="[%(default)s]")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, with all commands")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for every training")
    return parser.parse_intermixed_args(words)


def write(study: Study, jobs: list[Job], results: list[runner.Result], args: argparse.Namespace) -> str:
    """Write table.md, table.csv and table.png; return the tables.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    from unimo.studies.plot import draw

    length = report.format_length(study, jobs)
    shown, found, below = study.sum_up(results)
    text = f"{report.format_report(shown, found, args.overrides)}\n\n{below}".rstrip()
    head = f"# {study.question}\n\n{study.paper}; {length}. {' '.join(args.overrides)}".rstrip()
    try:
        write_text(args.output / "table.md", f"{head}\n\n{text}\n")
        write_table(results, args.output)
        draw(shown, found, length, args.overrides).save(args.output / "table.png")
    except OSError as error:
        raise CheckpointError(f"cannot write to {args.output}: {error.strerror}") from error
    return text


if __name__ == "__main__":
    cli.run(main)
