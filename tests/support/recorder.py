"""Record what the commands of a checkout compute, and compare two recordings.

    python tests/support/recorder.py record --checkout DIR --out recorded.json [--jobs 2] [--only PATTERN]
    python tests/support/recorder.py compare OLD.json NEW.json [--only PATTERN]

Nothing of the checkout is imported: its own commands run as processes, each case in a fresh temporary folder.
What is kept of a step is named in the table of cases:

    log:FILE    every line, without what depends on the clock or on memory
    model:FILE  one SHA-256 over the tensors sorted by name (name, dtype, shape, bytes), and one without names
    files:PATH  SHA-256 of the file, or of every file below the folder
    json        what the command printed, without times

Folders of this machine are replaced by words before anything is hashed. A step that fails is recorded
with its exit code and the end of its standard error, and the next one runs. The file is written after
each case, and cases that are in it are not run again without `--again`. `compare` looks at what was kept
and at exit codes, not at messages.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import recorded_inputs
from recorded_cases import RENAMED, Case, Step
from recorded_jobs import CASES

SHARED = Path(os.environ.get("UNIMO_SHARED", "/work/shared"))
TIMEOUT = 600
CLOCK = {"time", "seconds", "second", "minutes", "wait", "memory", "mb"}
"""Parts of the names of numbers that no second run repeats."""
TIMED_FILES = ("*.log", "launch_logs/*", "*/launch_logs/*", "vdl/*", "*/vdl/*")
"""Left out of folders: what processes said, with times in it, and curves with the time of each point."""
NOT_COMPARED = {"elapsed", "stderr", "command"}
THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
RANKS_LOCK = threading.Lock()
"""Two launches at a time might choose the same ports."""


def environment(checkout: Path) -> dict[str, str]:
    """The environment of every command: one thread, fixed hashes, the checkout before all else."""
    dropped = ("PADDLE_", "NPROC_", "NNODES", "NODE_", "MASTER_", "FLAGS_", "CUDA_", "UNIMO_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    fixed = {f"{name}_NUM_THREADS": "1" for name in THREADS}
    return {
        **kept,
        **fixed,
        "PYTHONPATH": str(checkout),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "Agg",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
    }


class Recorder:
    """Runs cases on one checkout.

    Args:
        checkout: the code.
        python: interpreter that has what the code needs.
        renamed: beginnings of settings that have other names there.
        keep: leave the folders of the cases.
    """

    def __init__(self, checkout: Path, python: str, renamed: dict[str, str], keep: bool = False) -> None:
        self.checkout, self.python, self.renamed, self.keep = checkout, python, renamed, keep

    def record(self, case: Case) -> dict[str, Any]:
        """Return the results of a case, step by step."""
        started = time.monotonic()
        work = Path(tempfile.mkdtemp(prefix="recorded_")).resolve()
        steps: dict[str, Any] = {}
        try:
            for name in case.inputs:
                getattr(recorded_inputs, name)(work, SHARED)
            for step in case.steps:
                steps[step.name] = self._run(step, work)
        except (OSError, ImportError, AttributeError, ValueError) as error:
            steps["inputs"] = {"exit": -1, "stderr": repr(error)}
        finally:
            if self.keep:
                print(f"{case.name}: {work}", file=sys.stderr)
            else:
                shutil.rmtree(work, ignore_errors=True)
        return {"elapsed": round(time.monotonic() - started, 1), "steps": steps}

    def command(self, step: Step) -> list[str]:
        """The words of a step, with this checkout's folders and names."""
        words = shlex.split(
            step.words.replace("{shared}", str(SHARED)).replace("{checkout}", str(self.checkout))
        )
        for old, new in self.renamed.items():
            words = [new + word.removeprefix(old) if word.startswith(old) else word for word in words]
        words[0] = str(self.checkout / words[0])
        return [self.python, *(["-m", "unimo.training.launch"] if step.ranks > 1 else []), *words]

    def told(self, step: Step) -> str:
        """The command for people, without folders of this machine."""
        return self._neutral(shlex.join(self.command(step)[1:]).encode()).decode()

    def is_in(self, cases: dict[str, Any], case: Case) -> bool:
        """Whether a case was recorded with the commands that it has now."""
        steps = cases.get(case.name, {"steps": {}})["steps"]
        return [step.get("command") for step in steps.values()] == [self.told(step) for step in case.steps]

    def _run(self, step: Step, work: Path) -> dict[str, Any]:
        started, command = time.monotonic(), self.command(step)
        environ = environment(self.checkout)
        if step.ranks > 1:
            with RANKS_LOCK:
                code, out, err = run(command, work, {**environ, "NPROC_PER_NODE": str(step.ranks)})
        else:
            code, out, err = run(command, work, environ)
        found: dict[str, Any] = {"exit": code, "elapsed": round(time.monotonic() - started, 1)}
        found["command"] = self.told(step)
        if code:
            logs = "".join(
                path.read_text(errors="replace")[-1500:] for path in sorted(work.rglob("workerlog.*"))
            )
            return {**found, "stderr": f"{err[-2500:]}{logs}"}
        for kept in step.keep:
            try:
                found[kept] = self._kept(kept, out, work)
            except (OSError, ValueError, KeyError) as error:
                found[kept] = {"exit": -1, "stderr": repr(error)}
        return found

    def _kept(self, kept: str, out: str, work: Path) -> Any:
        kind, _, name = kept.partition(":")
        if kind == "json":
            return without_clock(printed_json(self._neutral(out.encode(), work).decode()))
        path = work / name
        if kind == "log":
            return [without_clock(json.loads(line)) for line in path.read_text().splitlines()]
        if kind == "model":
            return hash_tensors(path)
        files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
        if not files:
            raise OSError(f"nothing in {name}")
        named = {str(file.relative_to(path if path.is_dir() else path.parent)): file for file in files}
        return {
            relative: self._hash_file(file, work)
            for relative, file in named.items()
            if not any(fnmatch.fnmatch(relative, pattern) for pattern in TIMED_FILES)
        }

    def _hash_file(self, file: Path, work: Path) -> str:
        content = file.read_bytes()
        if file.name == "metrics.json":
            content = json.dumps(without_clock(json.loads(content))).encode()
        return hashlib.sha256(self._neutral(content, work)).hexdigest()

    def _neutral(self, content: bytes, *work: Path) -> bytes:
        folders = [(folder, b"WORK") for folder in work] + [(self.checkout, b"CHECKOUT"), (SHARED, b"SHARED")]
        for folder, word in folders:
            content = content.replace(str(folder).encode(), word)
        return content


def run(command: list[str], work: Path, environ: dict[str, str]) -> tuple[int, str, str]:
    """Exit code and both outputs of a command; it and its children are ended after `TIMEOUT` seconds."""
    process = subprocess.Popen(
        command,
        cwd=work,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return -9, out, f"{err}\nended after {TIMEOUT} s"
    return process.returncode, out, err


def printed_json(text: str) -> Any:
    """The whole output as JSON, else its last line that begins with a brace."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def without_clock(value: Any) -> Any:
    """JSON without the entries whose names are of times, speeds or memory."""
    if isinstance(value, list):
        return [without_clock(item) for item in value]
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if CLOCK.isdisjoint(k.lower().split("_"))}
    return value


def hash_tensors(path: Path) -> dict[str, Any]:
    """Digests of the tensors of a safetensors file: with their names, and of the values alone."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    named, values = hashlib.sha256(), []
    for name in sorted(header):
        begin, end = header[name]["data_offsets"]
        about = f"{header[name]['dtype']} {header[name]['shape']}".encode()
        value = about + content[8 + size + begin : 8 + size + end]
        named.update(f"{name} ".encode() + value)
        values.append(hashlib.sha256(value).digest())
    without_names = hashlib.sha256(b"".join(sorted(values))).hexdigest()
    return {"tensors": len(header), "sha256": named.hexdigest(), "sha256_without_names": without_names}


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Yield the differences, place by place; numbers must be equal to the last bit."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key in NOT_COMPARED:
                continue
            if key not in new or key not in old:
                yield f"{where}{key}: only in the {'old' if key in old else 'new'} one"
            else:
                yield from differences(old[key], new[key], f"{where}{key} > ")
    elif isinstance(old, list) and isinstance(new, list):
        for number, (one, two) in enumerate(zip(old, new, strict=False)):
            yield from differences(one, two, f"{where}{number} > ")
        if len(old) != len(new):
            yield f"{where}{len(old)} rows and {len(new)}"
    elif json.dumps(old) != json.dumps(new):  # NaN is equal to NaN
        yield f"{where.removesuffix(' > ')}: {shorten(old)} and {shorten(new)}"


def shorten(value: Any) -> str:
    """A value for a line of the table."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def compare(old_file: Path, new_file: Path, only: str = "") -> int:
    """Print a line for each case; 1 if any differs."""
    old, new = (json.loads(path.read_text())["cases"] for path in (old_file, new_file))
    names = [*old, *(name for name in new if name not in old)]
    names = [name for name in names if fnmatch.fnmatch(name, only or "*")]
    width, unequal = max(map(len, names), default=0), 0
    for name in names:
        if name not in old or name not in new:
            found = [f"only in {old_file if name in old else new_file}"]
        else:
            found = list(differences(old[name]["steps"], new[name]["steps"]))
        unequal += bool(found)
        more = f"  (and {len(found) - 1} more)" if len(found) > 1 else ""
        print(f"{name:{width}}  {found[0] + more if found else 'equal'}")
    print(f"{len(names)} cases, {unequal} differ")
    return int(unequal > 0)


def failed_steps(case: dict[str, Any]) -> list[str]:
    """Steps of a recorded case that ended with an error or left out what is kept of them."""
    wrong = []
    for name, step in case["steps"].items():
        missing = [k for k, v in step.items() if isinstance(v, dict) and v.get("exit")]
        if step["exit"] or missing:
            wrong.append(
                f"{name} (exit {step['exit']}{', without ' + ', '.join(missing) if missing else ''})"
            )
    return wrong


def record(options: argparse.Namespace) -> int:
    """Run the cases that are not recorded yet, and write after each of them."""
    checkout = options.checkout.resolve()
    recorder = Recorder(checkout, options.python, {} if options.old_names else RENAMED, options.keep)
    content: dict[str, Any] = {"machine": machine(checkout), "cases": {}}
    if options.out.exists():
        content["cases"] = json.loads(options.out.read_text())["cases"]
    wanted = [case for case in CASES if fnmatch.fnmatch(case.name, options.only or "*")]
    wanted = [case for case in wanted if options.again or not recorder.is_in(content["cases"], case)]
    started = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(recorder.record, case): case.name for case in wanted}
        for number, done in enumerate(as_completed(running), start=1):
            name, result = running[done], done.result()
            content["cases"][name] = result
            write(options.out, content)
            said = "; ".join(failed_steps(result)) or "recorded"
            print(f"{number}/{len(wanted)} {result['elapsed']:6.1f} s  {name}: {said}", flush=True)
    minutes = (time.monotonic() - started) / 60
    print(f"{len(wanted)} cases in {minutes:.1f} minutes, {len(content['cases'])} in {options.out}")
    return 0


def machine(checkout: Path) -> dict[str, str]:
    """Where the recording was made, to be read by people."""
    asked = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "commit": commit,
        "python": platform.python_version(),
        "cpu": cpu[0] if cpu else platform.machine(),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write whole or not at all, the cases in the order of the table."""
    order = {case.name: number for number, case in enumerate(CASES)}
    cases = dict(sorted(content["cases"].items(), key=lambda item: order.get(item[0], len(order))))
    fresh = path.with_name(f".{path.name}.writing")
    fresh.write_text(json.dumps({**content, "cases": cases}, indent=1))
    os.replace(fresh, path)


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="job", required=True)
    making = commands.add_parser("record", help="run the cases")
    making.add_argument("--checkout", type=Path, required=True, help="the code to run")
    making.add_argument("--out", type=Path, required=True, help="file to write, or to go on with")
    making.add_argument("--jobs", type=int, default=1, help="cases at a time")
    making.add_argument(
        "--only", default="", metavar="PATTERN", help="cases by name, e.g. 'pretrain/unimo_*'"
    )
    making.add_argument("--again", action="store_true", help="run cases that are in the file, too")
    making.add_argument(
        "--old-names", action="store_true", help="settings have the names that they had at first"
    )
    making.add_argument("--python", default=sys.executable, help="interpreter of the commands")
    making.add_argument("--keep", action="store_true", help="do not remove the folders of the cases")
    comparing = commands.add_parser("compare", help="compare two files")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.add_argument("--only", default="", metavar="PATTERN", help="cases by name")
    options = parser.parse_args()
    if options.job == "record":
        return record(options)
    return compare(options.old, options.new, options.only)


if __name__ == "__main__":
    sys.exit(main())
