"""Answers to GLUE's test files, and the zip that its server takes."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from unimo.data.readers.glue import TASKS, TITLES, GlueName
from unimo.errors import CheckpointError, DataError
from unimo.files import make_folder, read_json_object, replacing, write_text
from unimo.studies.glue.data import GlueData

Answers = tuple[str, GlueName, str]
"""Name of a file, data set and split."""
FILES: dict[GlueName, tuple[Answers, ...]] = {
    task: ((TITLES[task], task, "test"),) for task in ("cola", "sst2", "mrpc", "stsb", "qqp", "qnli", "rte")
} | {
    "mnli": (
        ("MNLI-m", "mnli", "test_matched"),
        ("MNLI-mm", "mnli", "test_mismatched"),
        ("AX", "ax", "test"),
    )
}
"""Files that the model of each task answers."""
WNLI = "WNLI"
MADE_OF = "made_of.json"
"""File that says which model each answer is of, so that none is computed twice."""


def answer(
    label: str, models: Mapping[GlueName, Path], data: GlueData, output: Path, with_wnli: bool
) -> list[str]:
    """Write `OUTPUT/server/LABEL/*.tsv` and `OUTPUT/server/LABEL.zip`; return what to say of them.

    Args:
        label: name of the model, for the folder.
        models: model directory of each task.
        data: folder of the test files; those that are missing are left out.
        output: folder of the study.
        with_wnli: write the most frequent class of WNLI's training file for all of its test file.

    Raises:
        UnimoError: a file is broken, or cannot be written.
    """
    folder = make_folder(output / "server" / label, "--output")
    there, absent = [], []
    made_of = read_json_object(folder / MADE_OF, CheckpointError) if (folder / MADE_OF).is_file() else {}
    for task, files in FILES.items():
        for name, dataset, split in files:
            path = folder / f"{name}.tsv"
            if task not in models or not _has(data, dataset, split):
                absent.append(path.name)
                continue
            there.append(path)
            if made_of.get(name) != str(models[task]) or not path.is_file():
                _answer_file(models[task], dataset, split, path)
                made_of[name] = str(models[task])
                write_text(folder / MADE_OF, json.dumps(made_of, indent=1))
    if with_wnli:
        there.append(folder / f"{WNLI}.tsv")
        write_text(there[-1], _most_frequent(data))
    else:
        absent.append(f"{WNLI}.tsv (--wnli-majority writes its most frequent class)")
    archive = folder.with_name(f"{label}.zip")
    with replacing(archive) as fresh, zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as file:
        for path in there:
            file.write(path, path.name)
    lines = [f"for GLUE's server: {archive}, {', '.join(path.name for path in there)}"]
    return lines + ([f"it wants these too: {', '.join(absent)}"] if absent else [])


def _has(data: GlueData, dataset: GlueName, split: str) -> bool:
    try:
        data.open(dataset, split)
    except DataError:
        return False
    return True


def _answer_file(model: Path, dataset: GlueName, split: str, path: Path) -> None:
    from unimo.inference.evaluation import evaluate, write_predictions

    write_predictions(path, evaluate(model, split, overrides=[f"task.dataset={dataset}"]))


def _most_frequent(data: GlueData) -> str:
    """Return the file for WNLI, all of one class."""
    from unimo.tasks.classification.text import server_file

    labels = Counter(record.label for record in data.open("wnli", "train"))
    (label, _), *_ = labels.most_common(1)
    test = data.open("wnli", "test")
    return server_file([{"index": r.question_id, "prediction": TASKS["wnli"].classes[label]} for r in test])
