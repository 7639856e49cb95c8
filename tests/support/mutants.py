"""Change the code one small slip at a time, and see whether the tests of its room notice.

    pip install -e ".[mutants]"
    python tests/support/mutants.py OUTPUT.jsonl [--sample 200] [--seed 0] [--room NAME] [--again OLD.jsonl]

Cosmic Ray makes the slips; rooms and their tests stand in `pyproject.toml` under `tool.mutants`. The checkout
is copied to a temporary folder, in which a slip is written to its file. Paddle is imported once, and a child
forked for each slip. It runs the tests, first those whose text names the file, until one fails. A slip is
also noticed when that takes three times as long as the tests of the room without a slip, and ten seconds
more. Each outcome is a line of OUTPUT; a run that was broken off goes on.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import parso
import toml
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """One slip."""

    room: str
    file: str
    operator: str
    """Name of Cosmic Ray's operator."""
    occurrence: int
    """Number of the place in the file where the operator can act."""

    def source(self, text: str) -> str:
        """Return the text of the file with the slip."""
        return mutate_code(text, get_operator(self.operator)(), self.occurrence) or text


class _WithoutAnnotations(ast.NodeTransformer):
    """Removes what is never computed: docstrings, and annotations of arguments, results and fields."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:  # noqa: N802 - name of ast
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:  # noqa: N802 - name of ast
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def meaning(text: str) -> str:
    """Return what a module does, as text that is equal for modules that differ in annotations alone."""
    return ast.dump(_WithoutAnnotations().visit(ast.parse(text)))


def mutants_of(room: str, file: Path) -> Iterator[Mutant]:
    """Yield all slips that Cosmic Ray can make in a file."""
    nodes = list(ast_nodes(parso.parse(file.read_text())))
    for name in operator_names():
        operator = get_operator(name)
        if not operator.arguments():
            places = sum(len(list(operator().mutation_positions(node))) for node in nodes)
            yield from (Mutant(room, str(file.relative_to(ROOT)), name, number) for number in range(places))


def changes_anything(mutant: Mutant) -> bool:
    """Return whether a slip gives a module that can be read, and that does something else."""
    text = (ROOT / mutant.file).read_text()
    with contextlib.suppress(SyntaxError):
        return meaning(mutant.source(text)) != meaning(text)
    return False


def draw(rooms: dict[str, dict[str, list[str]]], size: int, seed: int) -> list[Mutant]:
    """Draw slips from all files, each with the same chance."""
    everything = [
        mutant
        for room, parts in rooms.items()
        for pattern in parts["code"]
        for file in sorted(ROOT.glob(pattern))
        for mutant in mutants_of(room, file)
    ]
    random.Random(seed).shuffle(everything)
    print(f"{len(everything)} slips: {dict(Counter(mutant.room for mutant in everything))}", flush=True)
    return list(islice(filter(changes_anything, everything), size))


def tests_of(mutant: Mutant, folder: Path, patterns: list[str]) -> list[str]:
    """Return the test files of a room: those that name the module first, those of two ranks last."""
    module = mutant.file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    parent, _, name = module.rpartition(".")
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]

    def place(file: Path) -> tuple[bool, bool]:
        text = file.read_text()
        return "run_ranks" in text, module not in text and f"from {parent} import {name}" not in text

    return [str(file) for file in sorted(files, key=place)]


def run_tests(folder: Path, tests: list[str], seconds: float) -> tuple[str, str]:
    """Run tests in a forked child: outcome, and the last lines of its output."""
    import pytest

    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.chdir(folder)
            options = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider"]
            os._exit(int(pytest.main([*options, f"--rootdir={folder}", *tests])))
        end = time.monotonic() + seconds
        done, status = os.waitpid(child, os.WNOHANG)
        while not done and time.monotonic() < end:
            time.sleep(0.05)
            done, status = os.waitpid(child, os.WNOHANG)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if not done:
            os.waitpid(child, 0)
            return "out of time", ""
        output.seek(0)
        last = "\n".join(output.read().splitlines()[-4:])
        code = os.waitstatus_to_exitcode(status)
        return {0: "survived", 1: "noticed"}.get(code, f"noticed, exit code {code}"), last


def changed_lines(before: str, after: str) -> str:
    """Return the lines of a slip as a difference without context."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++")))


def read(file: Path) -> list[dict[str, Any]]:
    """Return the outcomes in a file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", help="only slips of this room, all of them up to --sample")
    parser.add_argument(
        "--again", type=Path, help="outcomes of which the slips that survived are tried again"
    )
    parser.add_argument(
        "--known", nargs="*", default=[], help="ROOM=SECONDS that its tests are known to take"
    )
    args = parser.parse_args()
    table = toml.load(ROOT / "pyproject.toml")["tool"]["mutants"]
    rooms = {name: room for name, room in table.items() if args.room in (None, name)}
    keys = tuple(Mutant.__dataclass_fields__)
    limits = {room: float(seconds) for room, seconds in (word.split("=") for word in args.known)}
    if args.again:
        rows = [row for row in read(args.again) if row["outcome"] == "survived"]
        mutants = [Mutant(*(row[key] for key in keys)) for row in rows]
    else:
        mutants = draw(rooms, args.sample, args.seed)
    done = {tuple(row[key] for key in keys) for row in read(args.output)}
    with tempfile.TemporaryDirectory() as temporary, args.output.open("a") as output:
        folder = Path(temporary) / "checkout"
        ignored = shutil.ignore_patterns(".git", "__pycache__", "output", "*.egg-info")
        shutil.copytree(ROOT, folder, ignore=ignored)
        (Path(temporary) / "shared").symlink_to(ROOT.parent / "shared")  # data that some tests read
        sys.dont_write_bytecode = True
        # Only the copy is to be imported, by the children and by the processes that they start.
        os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        sys.path[:] = [str(folder), *(part for part in sys.path if part and Path(part) != ROOT)]
        with contextlib.redirect_stderr(io.StringIO()):
            import paddle  # noqa: F401 - for all children
        for mutant in mutants:
            if tuple(asdict(mutant).values()) in done:
                continue
            file, started = folder / mutant.file, time.monotonic()
            tests = tests_of(mutant, folder, rooms[mutant.room]["tests"])
            if mutant.room not in limits:
                outcome, last = run_tests(folder, tests, 600)
                if outcome != "survived":
                    sys.exit(f"{mutant.room}: without any slip its tests end with: {outcome}\n{last}")
                limits[mutant.room] = time.monotonic() - started
                print(f"{mutant.room}: {limits[mutant.room]:.0f} s without a slip", flush=True)
            started = time.monotonic()
            text = file.read_text()
            changed = mutant.source(text)
            file.write_text(changed)
            outcome, last = run_tests(folder, tests, 10 + 3 * limits[mutant.room])
            file.write_text(text)
            row = {
                **asdict(mutant),
                "outcome": outcome,
                "seconds": round(time.monotonic() - started, 1),
                "lines": changed_lines(text, changed),
                "last": last,
            }
            output.write(json.dumps(row) + "\n")
            output.flush()
    outcomes = [row["outcome"] for row in read(args.output)]
    survived = outcomes.count("survived")
    print(f"{len(outcomes)} ran, {len(outcomes) - survived} noticed ({Counter(outcomes)})")


if __name__ == "__main__":
    main()
