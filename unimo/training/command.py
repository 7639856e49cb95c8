"""What the tools that train do with a run: show it, plan it, or carry it out."""

from __future__ import annotations

from unimo import cli
from unimo.config import dump
from unimo.settings import RunConfig
from unimo.training.rehearsal import rehearse
from unimo.training.run import plan_only, train
from unimo.training.summary import format_summary


def carry_out(run: RunConfig, *, dry_run: bool, plan: bool) -> int:
    """Print the config of a run and check what it names, or its plan, or train and print the summary.

    Returns:
        The exit code.

    Raises:
        UnimoError: as of `rehearse`, `plan_only` and `train`.
    """
    if dry_run:
        print(dump(run), end="", flush=True)
        rehearse(run)
        return 0
    if plan:
        text = plan_only(run)
        if cli.is_main_rank():
            print(text)
        return 0
    summary = train(run)
    if cli.is_main_rank():
        print(format_summary(summary))
    return cli.code_after(summary["stopped_by"])
