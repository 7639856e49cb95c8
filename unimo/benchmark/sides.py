"""The sides of a comparison: processes that run one training step on request, and are idle otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unimo.errors import ConfigError, UnimoError

PEERS = {"hf-bridgetower": Path(__file__).parent / "peers" / "hf_bridgetower.py"}
_ROOT = Path(__file__).resolve().parents[2]


class Side:
    """A worker process that answers requests with lines of JSON; `name` stands in tables."""

    def __init__(self, name: str, command: list[str], request: Mapping[str, Any], threads: int) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", encoding="utf8")
        self._process = subprocess.Popen(
            [*command, json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(_ROOT)},
        )
        ready = self._read()
        self.parameters: int = ready["parameters"]
        self.library: str = ready["library"]

    def ask(self, word: str) -> dict[str, Any]:
        """Send the request `step`, `matmul` or `memory` and read the answer; the other sides must be idle.

        Raises:
            UnimoError: the process died; the message has the end of its standard error.
        """
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # `_read` reports why it died
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        tail = "".join(self._errors.readlines()[-8:]).strip()
        raise UnimoError(f"the process of {self.name} ended with code {code}; its last words:\n{tail}")

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()


def own_side(model: Mapping[str, Any], request: Mapping[str, Any], threads: int) -> Side:
    """Start our model, `{"name": ..., further config fields}`, in its own process."""
    command = [sys.executable, "-m", "unimo.benchmark.worker"]
    return Side(model["name"], command, {"model": dict(model), **request}, threads)


def peer_side(peer: str, python: str, config: Any, request: Mapping[str, Any], threads: int) -> Side:
    """Start a model of another library in the interpreter `python`.

    Its towers and fusion have the sizes of `config`, a config of the UNIMO-3 family.
    """
    tower = ("hidden_size", "num_layers", "num_heads")
    fields = {
        "text": (*tower, "vocab_size", "intermediate_size", "max_position"),
        "vision": (*tower, "patch_size", "image_size"),
        "fusion": tower,
    }
    sizes = {
        part: {name: getattr(getattr(config, part), name) for name in names} for part, names in fields.items()
    }
    return Side(peer, [python, str(PEERS[peer])], {**sizes, **request, "threads": threads}, threads)


def find_peer_python(given: str | None) -> str:
    """Return the interpreter for a peer: the given one, or this one.

    Raises:
        ConfigError: it lacks torch or transformers, or does not start; the message tells how to make one.
    """
    python = given or sys.executable
    try:
        check = subprocess.run([python, "-c", "import torch, transformers"], capture_output=True, text=True)
        problem = check.stderr.strip().splitlines()[-1:] if check.returncode else []
    except OSError as error:
        problem = [error.strerror or str(error)]
    if problem:
        raise ConfigError(
            f"the peer needs an interpreter with torch and transformers, and {python} is not one "
            f"({problem[0]}). Make one anywhere: python3 -m venv peer && peer/bin/pip install torch "
            f"'transformers<5' --extra-index-url https://download.pytorch.org/whl/cpu; then pass "
            f"--peer-python peer/bin/python"
        )
    return python
