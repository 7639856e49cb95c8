"""The pages about data: the walk-through runs, and the examples of lines and columns can be read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks

from unimo.data.prepare.writer import SCHEMAS
from unimo.data.readers.jsonl import record_fields, split_item

TRAINS = "run_pretrain.sh"
RECORDS = Path("docs/reference/records.md")


def test_walk_through_runs(root, tmp_path):
    (tmp_path / "tools").symlink_to(root / "tools")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    outputs = []
    for block in blocks(root / "docs" / "guides" / "data.md", "bash"):
        if TRAINS in block:
            continue
        done = subprocess.run(
            ["bash", "-ec", block],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    counts = [int(line.split()[1]) for line in outputs[-1].splitlines()]
    assert sum(counts) == 400 and min(counts) >= 1


def test_examples_of_lines(root):
    lines = [json.loads(line) for block in blocks(root / RECORDS, "json") for line in block.splitlines()]
    keys = {"types": "gqa", "question": "vqa", "images": "nlvr2", "label": "entailment", "image": "pairs"}
    kinds = [next(kind for key, kind in keys.items() if key in line) for line in lines]
    assert set(kinds) == set(keys.values())
    fields = [
        record_fields(sample, kind, "README", "id")
        for line, kind in zip(lines, kinds, strict=True)
        for sample in split_item(line, kind, "README")
    ]
    assert [field["answer_scores"] for field in fields if "answer_scores" in field] == [
        {"dog": 1.0},
        {"1": 1.0, "2": 0.3},
        {"no": 1.0, "yes": 0.3},
        {"black": 1.0},
    ]


@pytest.mark.parametrize("schema", SCHEMAS.values())
def test_columns(root, schema):
    assert f"`{', '.join(schema.names)}`" in (root / RECORDS).read_text(encoding="utf8")
