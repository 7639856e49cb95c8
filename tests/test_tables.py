"""The tools that make tables of trainings, with trainings of a few steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["data.scenes.val_images=4", "train.batch_size=8", "train.device=cpu"]


def run(tool: str, output: Path, *words: str) -> tuple[str, list[dict]]:
    command = [sys.executable, f"tools/{tool}", "--seeds", "0", *words, "--output", str(output), *SMALL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, json.loads((output / "table.json").read_text())


@pytest.mark.slow
def test_scenes_table(tmp_path: Path) -> None:
    steps = ("--pretrain-steps", "2", "--finetune-steps", "2", "--scratch-steps", "3")
    text, rows = run("scenes_table.py", tmp_path, "--models", "meter_tiny", *steps)
    assert [(row["model"], row["pretrained"]) for row in rows] == [
        ("meter_tiny", True),
        ("unimo3_tiny", False),
    ]
    assert "| meter_tiny | yes |" in text and "| unimo3_tiny | no |" in text
    assert all(0 <= row["overall"] <= 100 for row in rows)


@pytest.mark.slow
def test_unimo2_table(tmp_path: Path) -> None:
    steps = ("--pretrain-steps", "2", "--caption-steps", "2", "--probe-steps", "2")
    text, rows = run("unimo2_table.py", tmp_path, "--variants", "full", "1-to-1 map", *steps)
    assert [row["variant"] for row in rows] == ["full", "1-to-1 map"]
    assert {"cider", "shape_zero_shot", "shape_probe"} <= rows[0].keys() and "cider" not in rows[1]
    assert "| 1-to-1 map |" in text and "| shape_probe |" in text


@pytest.mark.slow
def test_unimo_table(tmp_path: Path) -> None:
    names = ("pretrain", "vqa", "retrieval", "caption", "probe")
    steps = [word for name in names for word in (f"--{name}-steps", "2")]
    variants = ("w/o pairs & images", "not pre-trained")
    text, rows = run("unimo_table.py", tmp_path, "--variants", *variants, *steps)
    assert [row["variant"] for row in rows] == list(variants)
    assert {"vqa", "vqa_blank", "ir_r1", "cider", "text", "image"} <= rows[0].keys()
    assert "zero_shot_rsum" in rows[0] and "zero_shot_rsum" not in rows[1]
    assert "| w/o pairs & images |" in text
