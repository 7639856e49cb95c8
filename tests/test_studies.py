"""`tools/study.py` with trainings of a few steps."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from unimo.studies.catalogue import STUDIES
from unimo.studies.runner import make_jobs

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["data.scenes.val_images=4", "train.batch_size=8", "train.device=cpu"]


def call(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/study.py", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def run(name: str, output: Path, *words: str) -> tuple[str, list[dict[str, str]]]:
    """Run a study with seed 0; return what it prints, and its rows without empty scores."""
    done = call(name, "--seeds", "0", *words, "--output", str(output), *SMALL)
    assert done.returncode == 0, done.stderr[-2000:]
    assert Image.open(output / "table.png").size[0] > 500
    tables = (
        (output / "table.md").read_text(encoding="utf8").partition("\n\n")[2].partition("\n\n")[2].strip()
    )
    assert tables in done.stdout and f"next:\n  python tools/study.py {name} " in done.stdout
    with (output / "table.csv").open(encoding="utf8") as file:
        return done.stdout, [{key: text for key, text in row.items() if text} for row in csv.DictReader(file)]


def test_list_has_a_line_for_each_study() -> None:
    done = call("--list")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and [line.split()[0] for line in lines] == list(STUDIES)
    assert all(study.question in line for study, line in zip(STUDIES.values(), lines, strict=True))


# The rows of the other one follow from its options: tests/unit/studies/test_glue_study.py.
@pytest.mark.parametrize("name", [name for name in STUDIES if name != "glue"])
def test_help_and_dry_run_say_what_would_run(name: str, tmp_path: Path) -> None:
    study = STUDIES[name]
    shown = call(name, "--help").stdout
    assert all(f"--{each.name}-steps" in shown for each in study.steps)
    done = call(name, "--seeds", "5", "--dry-run", "--output", str(tmp_path / "out"), "optim.lr=1e-3")
    assert done.returncode == 0 and not (tmp_path / "out").exists()
    commands = [line for line in done.stdout.splitlines() if line.startswith("  python tools/")]
    assert len(commands) == sum(len(job.stages) for job in make_jobs(study, seeds=[5]))
    assert "time: about" in done.stdout


def test_mistakes_are_named() -> None:
    for words, message in {
        ("unimo4",): "no study 'unimo4'; nearest",
        ("unimo", "--rows", "w/o text"): "has no row 'w/o text'; nearest: w/o texts",
        ("unimo", "--jobs", "0"): "--jobs 0: expected 1 or more",
        ("--jobs", "1"): "unrecognized arguments: --jobs 1",
        (): "the name of a study comes first",
    }.items():
        done = call(*words)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_scenes(tmp_path: Path) -> None:
    steps = ("--pretrain-steps", "2", "--finetune-steps", "2", "--scratch-steps", "3")
    text, rows = run("scenes", tmp_path, "--rows", "meter_tiny", "unimo3_tiny_scratch", *steps)
    assert [row["row"] for row in rows] == ["meter_tiny", "unimo3_tiny_scratch"]
    assert "| meter_tiny | yes |" in text and "| unimo3_tiny | no |" in text
    assert all(0 <= float(row["questions.overall"]) <= 100 for row in rows)


@pytest.mark.slow
def test_unimo2(tmp_path: Path) -> None:
    steps = ("--pretrain-steps", "2", "--caption-steps", "2", "--probe-steps", "2")
    text, rows = run("unimo2", tmp_path, "--rows", "full", "1-to-1 map", *steps)
    assert [row["row"] for row in rows] == ["full", "1-to-1 map"]
    described = {"captions.cider", "shape_zero_shot.accuracy", "shape_probe.accuracy"}
    assert described <= rows[0].keys() and "captions.cider" not in rows[1]
    assert "| 1-to-1 map |" in text and "| one of four shapes, linear probe |" in text


@pytest.mark.slow
def test_unimo(tmp_path: Path) -> None:
    names = ("pretrain", "vqa", "retrieval", "caption", "probe")
    steps = [word for name in names for word in (f"--{name}-steps", "2")]
    chosen = ("w/o pairs & images", "not pre-trained")
    text, rows = run("unimo", tmp_path, "--rows", *chosen, *steps)
    assert [row["row"] for row in rows] == list(chosen)
    scores = {"questions.overall", "questions_blank.overall", "retrieved.ir_r1", "captions.cider"}
    assert scores | {"texts.correlation", "images.accuracy"} <= rows[0].keys()
    assert "zero_shot.rsum" in rows[0] and "zero_shot.rsum" not in rows[1]
    assert "| w/o pairs & images |" in text


@pytest.mark.slow
def test_glue(tmp_path: Path) -> None:
    few = ("--tasks", "rte", "stsb", "--rates", "1e-3", "--batches", "8", "--epochs", "1")
    text, rows = run("glue", tmp_path, *few, "data.scenes.train_images=24")
    assert [row["row"] for row in rows] == ["unimo3_tiny stsb 0.001 x 8", "unimo3_tiny rte 0.001 x 8"]
    assert "| model | STS-B 24 | RTE 24 | average |" in text and "unimo3_tiny: STS-B 0.001 x 8" in text
    assert "time: at most about" in text and (tmp_path / "best.csv").is_file()
