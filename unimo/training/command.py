"""Show, plan or carry out a run, or those of all stages or modes, for the tools that train."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unimo import cli
from unimo.config import dump
from unimo.settings import RunConfig
from unimo.training import chain, modes
from unimo.training.optional_start import settle_start
from unimo.training.plan_table import format_plan
from unimo.training.rehearsal import rehearse
from unimo.training.released_start import with_model_directory
from unimo.training.run import plan_only, train
from unimo.training.stages import check_order
from unimo.training.summary import format_summary


def carry_out(run: RunConfig, *later: RunConfig, dry_run: bool, plan: bool) -> int:
    """Print the config of a run and check what it names, or its plan, or train and print the summary.

    Args:
        run, later: the run, or those of all stages, or those of all modes. The first may start from a file of
            released weights, or from optional ones.
        dry_run, plan: only show and check, or only plan.

    Returns:
        The exit code.

    Raises:
        UnimoError: as of `rehearse`, `plan_only` and `train`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(run.output_dir).parent if later else Path(run.output_dir)
        started = settle_start([run, *later], download=not dry_run)
        first = with_model_directory(started, (Path(scratch) if dry_run else place) / "init_from")
        if not later:
            return _carry_out_one(first, dry_run=dry_run, plan=plan)
        same = [replace(each, init_from=first.init_from) for each in later if each.init_from == run.init_from]
        return _carry_out_several([first, *(same or later)], dry_run=dry_run, plan=plan)


def _carry_out_one(run: RunConfig, *, dry_run: bool, plan: bool) -> int:
    if dry_run:
        print(dump(run), end="", flush=True)
        check_order(run)
        rehearse(run)
        return 0
    if plan:
        check_order(run)
        text = plan_only(run)
        if cli.is_main_rank():
            print(text)
        return 0
    return _report(train(run))


def _carry_out_several(runs: Sequence[RunConfig], *, dry_run: bool, plan: bool) -> int:
    kind = chain.kind_of(runs)
    if kind == "stage":
        runs = chain.left_of(runs)
    else:
        modes.check_folder(runs)
    if dry_run:
        for run, ready in zip(runs, chain.without_results(runs), strict=True):
            print(f"--- # {chain.name_of(run)}\n{dump(run)}", end="", flush=True)
            rehearse(ready)
        return 0
    if plan:
        planned = list(chain.plan_runs(runs))
        if cli.is_main_rank():
            tables = [f"{kind} {chain.name_of(run)}\n{format_plan(each)}" for run, each in planned if each]
            print("\n".join([*tables, chain.format_runs(planned)]))
        return 0
    summaries = chain.train_runs(runs)
    if kind == "mode" and len(summaries) == len(runs) and chain.is_done(summaries[-1]):
        return _report(modes.keep_best(runs, summaries))
    return _report(summaries[-1])


def _report(summary: dict[str, Any]) -> int:
    """Print the summary of a run, and return the exit code."""
    if cli.is_main_rank():
        print(format_summary(summary))
    return cli.code_after(summary["stopped_by"])
