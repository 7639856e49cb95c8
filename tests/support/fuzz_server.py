"""Reads mutated files in children of a process that has imported everything once; the server of test_fuzz.py.

    python fuzz_server.py FOLDER     then lines `KIND COUNT SEED` on standard input, one line of JSON for each

Each child notes the file in hand before it reads it, so that a signal or a hang has a name.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_bytes import choose
from fuzz_cases import KINDS, Case

from unimo.digests import DIGESTS
from unimo.errors import LONGEST_MESSAGE, UnimoError

WORKERS = 2
MEMORY = 3 << 30
"""Address space that a child may add to that of the process."""
SECONDS = 20.0
"""For one file; the machine may be busy with other things."""


def sources(kind: str, folder: Path) -> list[Path]:
    """The folders of the sound files of a kind; reading them must find nothing broken."""
    found = []
    for case in KINDS[kind]:
        found.append(folder / "sound" / f"{kind}-{case.name}")
        found[-1].mkdir(parents=True)
        case.make(found[-1])
        trial = shutil.copytree(found[-1], folder / "trial")
        broken = case.read(trial)
        assert broken == 0, f"{kind} {case.name}: {broken} records of the sound files are broken"
        shutil.rmtree(trial)
    return found


def mutated(case: Case, folder: Path, rng: np.random.Generator) -> str:
    """Change one file of the folder and say how."""
    files = sorted(path for path in folder.rglob(case.files) if path.is_file())
    path = choose(rng, files)
    mutation = choose(rng, case.knowing if case.knowing and rng.random() < 0.5 else case.plain)
    path.write_bytes(mutation(path.read_bytes(), rng))
    if rng.random() < 0.9:  # as version 0.1 wrote them; with digests the change itself would be noticed
        (folder / DIGESTS).unlink(missing_ok=True)
    return f"{case.name}, {path.name}, {mutation.__name__}"


def read_one(kind: str, number: int, seed: int, sound: list[Path], work: Path) -> dict[str, Any]:
    """Make the file of a number and read it."""
    which = number % len(sound)
    case, rng = KINDS[kind][which], np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(sound[which], work)
    what = mutated(case, work, rng)
    (work.parent / "in_hand").write_text(f"{number} {what}")
    outcome: dict[str, Any] = {"number": number, "what": what, "broken": 0, "error": "", "fault": ""}
    begin = time.monotonic()
    try:
        outcome["broken"] = case.read(work)
    except UnimoError as error:
        outcome["error"] = message = str(error)
        if len(message) > LONGEST_MESSAGE:
            outcome |= {"error": message[:200], "fault": f"a message of {len(message):,} characters"}
    except BaseException:
        outcome["fault"] = traceback.format_exc()[-3000:]
    outcome["seconds"] = round(time.monotonic() - begin, 2)
    return outcome


@dataclass
class Worker:
    """A child and the numbers that it still has to read."""

    numbers: list[int]
    folder: Path
    pid: int = 0
    started: float = 0.0
    at: str = ""

    @property
    def report(self) -> Path:
        return self.folder / "report.jsonl"

    def start(self, kind: str, seed: int, sound: list[Path]) -> None:
        """Fork a child that reads the numbers and ends."""
        self.folder.mkdir(exist_ok=True)
        self.report.touch()
        self.started, self.at = time.monotonic(), ""
        self.pid = os.fork()
        if self.pid:
            return
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            sys.addaudithook(_abort_on_pickle)
            with open(self.report, "a") as report, open(self.folder / "log", "w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                for number in self.numbers:
                    outcome = read_one(kind, number, seed, sound, self.folder / "work")
                    report.write(json.dumps(outcome) + "\n")
                    report.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def watch(self) -> bool:
        """Return whether the child has ended, or was stopped because it hangs; note the file it was at."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        in_hand = self.folder / "in_hand"
        at = in_hand.read_text() if in_hand.exists() else ""
        if at != self.at:
            self.at, self.started = at, time.monotonic()
        late = not pid and time.monotonic() - self.started > SECONDS
        if late:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if not (pid or late):
            return False
        done = {json.loads(line)["number"] for line in self.report.read_text().splitlines()}
        self.numbers = [number for number in self.numbers if number not in done]
        if self.numbers:
            cause = (
                "it hangs" if late else f"wait status {status}: {(self.folder / 'log').read_text()[-1500:]}"
            )
            died = {
                "number": self.numbers[0],
                "what": "",
                "broken": 0,
                "error": "",
                "fault": cause,
                "seconds": 0,
            }
            with open(self.report, "a") as report:
                report.write(json.dumps(died | {"broken": 0, "error": "", "seconds": SECONDS}) + "\n")
            del self.numbers[0]
        return True


def _abort_on_pickle(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("pickle.find_class", "os.system", "os.exec", "subprocess.Popen"):
        print(event, arguments, file=sys.stderr, flush=True)
        os.abort()


def fuzz(kind: str, count: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Read the mutated files 0 to `count` - 1 of a kind."""
    begin = time.monotonic()
    folder = folder / kind
    folder.mkdir(parents=True)
    pid = os.fork()
    if not pid:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                paths = sources(kind, folder)
                (folder / "sound.json").write_text(json.dumps(list(map(str, paths))))
                code = 0
            except BaseException:
                traceback.print_exc()
        os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"{kind}: the sound files cannot be made or read")
    sound = list(map(Path, json.loads((folder / "sound.json").read_text())))
    workers = [Worker(list(range(i, count, WORKERS)), folder / str(i)) for i in range(WORKERS)]
    running = list(workers)
    for worker in running:
        worker.start(kind, seed, sound)
    while running:
        time.sleep(0.02)
        for worker in [worker for worker in running if worker.watch()]:
            if worker.numbers:
                worker.start(kind, seed, sound)
            else:
                running.remove(worker)
    outcomes = [json.loads(line) for worker in workers for line in worker.report.read_text().splitlines()]
    shutil.rmtree(folder)
    print(f"{kind}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return sorted(outcomes, key=lambda outcome: outcome["number"])


if __name__ == "__main__":
    for request in sys.stdin:
        asked, number_of_files, first = request.split()
        print(json.dumps(fuzz(asked, int(number_of_files), int(first), Path(sys.argv[1]))), flush=True)
