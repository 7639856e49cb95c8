"""Finished rows of a study as `table.csv`, from which another machine or a later call goes on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unimo.errors import ConfigError
from unimo.files import write_text
from unimo.studies.study import Job

TABLE = "table.csv"
Result = dict[str, Any]
"""Row, seed, split, selection, commands, minutes, training_minutes and every score as `STAGE.METRIC`."""
_TEXTS = ("row", "split", "selection", "commands")


def digest(job: Job) -> str:
    """Return the first digits of the SHA-256 of a job's commands: equal settings have equal ones."""
    return hashlib.sha256(json.dumps(job.commands()).encode()).hexdigest()[:16]


def format_csv(results: Sequence[Result]) -> str:
    """Return one line for each row and seed, with every score that any evaluation gave."""
    names = dict.fromkeys(name for result in results for name in result)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    return text.getvalue()


def write_table(results: Sequence[Result], output: Path) -> None:
    """Write `table.csv` into the output folder. Rows with other commands that stand there are kept.

    Raises:
        ConfigError: the file that is there is no table of results.
        OSError: it cannot be written.
    """
    new = {each["commands"] for each in results}
    others = [each for each in read_table(output) if each.get("commands", "") not in {"", *new}]
    write_text(output / TABLE, format_csv([*results, *others]))


def read_table(output: Path) -> list[Result]:
    """Return the finished rows of `table.csv` in the output folder; none if there is no such file.

    Raises:
        ConfigError: the file is no table of results.
    """
    path = output / TABLE
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf8", newline="") as file:
            return [_read_row(line) for line in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ConfigError(
            f"{path} is no table of results ({error!r}); remove it, or give another --output"
        ) from error


def _read_row(line: dict[str, str]) -> Result:
    row: Result = {"row": line["row"], "seed": int(line["seed"])}
    return row | {
        name: text if name in _TEXTS else float(text)
        for name, text in line.items()
        if name not in row and (text or name in _TEXTS)
    }


def find_result(job: Job, table: Sequence[Result]) -> Result | None:
    """Return the result of a job with exactly these commands, None if the table has none."""
    wanted = {"row": job.row.name, "seed": job.seed, "commands": digest(job)}
    return next((each for each in table if wanted.items() <= each.items()), None)
