"""Mutated files of every kind, read as users read them: our errors and counted records, and nothing else.

A file may be refused with a `UnimoError`, its broken records may raise `RecordError`, which loaders count, or
the change may do no harm. No signal, no hang, no other exception and no message longer than a screen.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FILES, SEED = 600, 0
KINDS = (
    *("tar", "arrow", "store", "index", "tsv", "safetensors", "pickle", "tokenizer", "yaml", "json", "image"),
)
Server = subprocess.Popen[str]


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The process whose children read the files; it has imported Paddle once."""
    command = [sys.executable, root / "tests/support/fuzz_server.py", tmp_path_factory.mktemp("fuzz")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(list(map(str, command)), **pipes) as process:
        yield process
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(server: Server, kind: str) -> None:
    server.stdin.write(f"{kind} {FILES} {SEED}\n")
    server.stdin.flush()
    outcomes: list[dict[str, Any]] = json.loads(server.stdout.readline())
    assert [outcome["number"] for outcome in outcomes] == list(range(FILES))
    faults = [f"{one['number']} ({one['what']}): {one['fault']}" for one in outcomes if one["fault"]]
    assert not faults, f"{len(faults)} of {FILES}\n" + "\n".join(faults)
    counts = Counter(
        "refused" if one["error"] else "counted" if one["broken"] else "read" for one in outcomes
    )
    print(f"{kind}: {dict(counts)}, slowest {max(one['seconds'] for one in outcomes)} s")
    # The mutations must reach the readers, or the test shows nothing.
    assert counts["refused"] + counts["counted"] >= FILES // 10
