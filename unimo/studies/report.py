"""Report of a study: its plan, tables, every row and seed, the claims of the paper."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path

from unimo._runtime import available_cores
from unimo.studies.results import Result
from unimo.studies.runner import estimate_minutes, waiting_stages
from unimo.studies.study import Claim, Column, Evaluate, Job, Row, Study, Table

CHANCE_KEYS = ("data.path=", "data.scenes.val_images=")
"""Overrides that change the number of candidates or classes: the declared chance levels no longer hold."""


def describe_plan(
    study: Study, jobs: Sequence[Job], results: Sequence[Result], output: Path, workers: int
) -> str:
    """Return what is going to run, `workers` jobs at a time: rows, seeds, steps, and about how long it takes.

    `results` are the finished jobs, from which times of other seeds follow.
    """
    waiting = [stages for job in jobs if (stages := waiting_stages(job, output))]
    evaluations = sum(isinstance(stage, Evaluate) for stages in waiting for stage in stages)
    trainings = sum(map(len, waiting)) - evaluations
    minutes, cores = estimate_minutes(study, jobs, results, output), available_cores()
    lines = [
        f"{study.name}: {study.question} ({study.paper})",
        *(study.about or (f"rows: {'; '.join(dict.fromkeys(job.row.name for job in jobs))}",)),
        f"seeds: {' '.join(dict.fromkeys(str(job.seed) for job in jobs))}",
        format_length(study, jobs),
        f"finished: {len(jobs) - len(waiting)} of {len(jobs)} rows and seeds",
        f"to do: {trainings} trainings and {evaluations} evaluations, {workers} at a time "
        f"on {max(1, cores // workers)} of {cores} cores each",
    ]
    if waiting and minutes is None:
        lines.append("time: not known before a row is finished")
    elif waiting:
        most = "at most " if study.ends_early else ""
        lines.append(
            f"time: {most}about {max(1, minutes / min(workers, len(waiting))):.0f} minutes on a quiet machine"
        )
    return "\n".join([*lines, f"output: {output}"])


def format_length(study: Study, jobs: Sequence[Job]) -> str:
    """Return how long the trainings are: the numbers of steps by their names."""
    return study.length or f"steps: {', '.join(f'{name} {count}' for name, count in jobs[0].steps.items())}"


def mean_and_each(results: Sequence[Result], column: Column) -> str:
    """Return a cell such as `**82.1** (80.0, 84.2)`: the mean of a score over seeds, and each one.

    A seed without the score is shown as a dash; the cell is empty when no seed has it.
    """
    values = [result.get(column.key) for result in results]
    known = [float(value) for value in values if value is not None]
    if not known:
        return ""
    mean = f"{statistics.mean(known):.{column.digits}f}"
    if not column.each_seed:
        return mean
    each = ", ".join("-" if value is None else f"{value:.{column.digits}f}" for value in values)
    return f"**{mean}** ({each})"


def group_by_row(study: Study, results: Sequence[Result]) -> dict[Row, list[Result]]:
    """Return the results of each row that has any, in declared order."""
    groups = {row: [each for each in results if each["row"] == row.name] for row in study.rows}
    return {row: found for row, found in groups.items() if found}


def chance_levels(study: Study, results: Sequence[Result], overrides: Sequence[str]) -> dict[str, float]:
    """Return the declared chance level of each column that has scores, by its key.

    There are none if an override changed what is guessed.
    """
    if any(word.startswith(CHANCE_KEYS) for word in overrides):
        return {}
    scored = {key for result in results for key in result}
    return {
        key: column.chance
        for key, column in study.columns.items()
        if column.chance is not None and key in scored
    }


def format_report(study: Study, results: Sequence[Result], overrides: Sequence[str] = ()) -> str:
    """Return the tables, the chance levels and what became of the claims, as Markdown."""
    groups = group_by_row(study, results)
    parts = [text for table in study.tables if (text := _format_table(table, groups))]
    if chance := chance_levels(study, results, overrides):
        named = (f"{study.columns[key].title} {level:g}" for key, level in chance.items())
        parts.append(f"Chance: {'; '.join(named)}.")
    protocols = dict.fromkeys((each["split"], each["selection"]) for each in results if each["split"])
    parts += [f"Scores of the split {split}; selection: {selection}." for split, selection in protocols]
    claims = [f"- {text}" for claim in study.claims if (text := _check_claim(study, claim, results))]
    if claims:
        parts.append("Claims of the paper, and what was found here:\n\n" + "\n".join(claims))
    return "\n\n".join(parts)


def _format_table(table: Table, groups: dict[Row, list[Result]]) -> str:
    if not table.only_row:
        results = [result for found in groups.values() for result in found]
        columns = [column for column in table.columns if any(column.key in result for result in results)]
        return markdown_table(
            [*table.head, *(column.title for column in columns)],
            [
                [*(row.cells or (row.name,)), *(mean_and_each(found, column) for column in columns)]
                for row, found in groups.items()
            ],
        )
    found = next((results for row, results in groups.items() if row.name == table.only_row), [])
    # A caption that names no colour or shape has no score for them.
    lines = [[column.title, cell] for column in table.columns if (cell := mean_and_each(found, column))]
    return markdown_table([*table.head, "mean (each seed)"], lines) if lines else ""


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _check_claim(study: Study, claim: Claim, results: Sequence[Result]) -> str:
    """Return for how many seeds each score has the claimed order, or nothing without both rows."""
    found = []
    for key in claim.columns:
        scores = [
            {result["seed"]: result[key] for result in results if result["row"] == name and key in result}
            for name in (claim.better, claim.worse)
        ]
        seeds = sorted(scores[0].keys() & scores[1].keys())
        if seeds:
            means = [statistics.mean(each[seed] for seed in seeds) for each in scores]
            wins = sum(scores[0][seed] > scores[1][seed] for seed in seeds)
            title = study.columns[key].title
            found.append(f"{title} {means[0]:.1f} to {means[1]:.1f} ({wins} of {len(seeds)} seeds)")
    return f"{claim.text} ({claim.better} over {claim.worse}): {'; '.join(found)}" if found else ""


def next_commands(study: Study, jobs: Sequence[Job], results: Sequence[Result], output: Path) -> str:
    """Return what to type next: the rest of the declared study with the same settings, and a closer look."""
    done = {(result["row"], result["seed"]) for result in results}
    lines = ["next:"]
    if any((row.name, seed) not in done for row in study.choose_rows() for seed in study.seeds):
        words = [study.name, *study.words]
        for each in study.steps:
            if (count := jobs[0].steps[each.name]) != each.default:
                words += [f"--{each.name}-steps", str(count)]
        words += ["--output", str(output), *jobs[0].overrides]
        lines.append(f"python tools/study.py {shlex.join(words)}  # all rows and seeds")
    row = study.choose_rows((results[0]["row"],))[0]
    lines.append(study.next_command.format(row=shlex.quote(str(output / row.folder(results[0]["seed"])))))
    return "\n  ".join(lines)
