"""Start a tool on several ranks.

    NPROC_PER_NODE=2 python -m unimo.training.launch tools/pretrain.py unimo3_tiny

Reads NPROC_PER_NODE (ranks on this machine; default: every GPU, 1 on a CPU), NNODES, NODE_RANK,
MASTER_ADDR and MASTER_PORT (needed from two machines on). One rank runs in this process; more go through
`paddle.distributed.launch`, over gloo between CPUs and nccl between GPUs. The output of each rank goes to
`OUTPUT/launch_logs/workerlog.N`; that of rank 0 is shown.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from unimo import cli
from unimo._runtime import available_cores
from unimo.errors import ConfigError


def main() -> int:
    """Start the tool of the command line and return its exit code."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    local, nodes = read_ranks(os.environ)
    wants_answer_only = not {"-h", "--help", "--dry-run"}.isdisjoint(words)
    if local * nodes == 1 or wants_answer_only:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *words])
    log_dir = log_folder(words)
    log_dir.mkdir(parents=True, exist_ok=True)
    command = launch_command(words, local, nodes, log_dir, os.environ)
    code = supervise(command, rank_environment(local, os.environ))
    errors = user_errors(log_dir) if code else []
    for error in errors:
        print(error, file=sys.stderr)
    return cli.USER_ERROR if errors else code


def read_ranks(environ: Mapping[str, str]) -> tuple[int, int]:
    """Read the number of ranks on this machine and the number of machines.

    Raises:
        ConfigError: not a positive number, or several machines without a master.
    """
    local = _positive("NPROC_PER_NODE", environ.get("NPROC_PER_NODE") or str(max(1, count_gpus(environ))))
    nodes = _positive("NNODES", environ.get("NNODES") or "1")
    if nodes > 1 and not (environ.get("MASTER_ADDR") and environ.get("MASTER_PORT")):
        raise ConfigError(
            f"NNODES={nodes} needs MASTER_ADDR and MASTER_PORT, the same on all machines, "
            "e.g. MASTER_ADDR=10.0.0.1 MASTER_PORT=29500"
        )
    return local, nodes


def _positive(name: str, text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name}={text!r}: expected a number of at least 1")
    return int(text)


def count_gpus(environ: Mapping[str, str]) -> int:
    """Count the GPUs that a GPU build of Paddle would use here, without importing Paddle."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        importlib.metadata.version("paddlepaddle-gpu")
        if "CUDA_VISIBLE_DEVICES" in environ:
            return len([word for word in environ["CUDA_VISIBLE_DEVICES"].split(",") if word.strip()])
        if shutil.which("nvidia-smi"):
            listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
            return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    return 0


def log_folder(words: Sequence[str]) -> Path:
    """Return `launch_logs` in the run's output folder, or in `output/` if the command does not name one."""
    named = [word.partition("=")[2] for word in words if word.startswith("output_dir=")]
    return Path(named[-1] if named else "output") / "launch_logs"


def launch_command(
    words: Sequence[str], local: int, nodes: int, log_dir: Path, environ: Mapping[str, str]
) -> list[str]:
    """Build the command that starts Paddle's launcher."""
    command = [sys.executable, "-m", "paddle.distributed.launch", "--log_level", "WARNING"]
    command += ["--nproc_per_node", str(local), "--nnodes", str(nodes), "--max_restart", "0"]
    command += ["--log_dir", str(log_dir), "--log_overwrite", "1"]
    if nodes > 1:
        command += ["--master", f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"]
    if environ.get("NODE_RANK"):
        command += ["--rank", environ["NODE_RANK"]]
    return [*command, *words]


def rank_environment(local: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of the ranks: cores divided among them, Paddle's C++ log off.

    Paddle's launcher sets OMP_NUM_THREADS=1 when it is imported, unless it is set, and its ranks inherit it.
    `unimo` has already set it to all cores of this process, which is overridden; a smaller number set by the
    user is kept.
    """
    cores = available_cores()
    asked = int(environ.get("OMP_NUM_THREADS") or cores)
    threads = asked if asked < cores else max(1, cores // local)
    fresh = {**environ, "OMP_NUM_THREADS": str(threads)}
    fresh.setdefault("GLOG_minloglevel", "2")
    # Paddle would take these two for a rendezvous other than its own `--master`.
    return {key: value for key, value in fresh.items() if key not in ("MASTER_ADDR", "MASTER_PORT")}


def supervise(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the launcher and return its exit code; pass SIGTERM and SIGINT to the ranks, which save and end.

    The launcher does not get these signals: it would kill the ranks 30 s later, in the middle of a long step.
    """
    launcher = subprocess.Popen(command, env=dict(environ), start_new_session=True)

    def pass_on(number: int, frame: FrameType | None) -> None:
        targets = child_processes(launcher.pid) or [launcher.pid]
        for target in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    return launcher.wait()


def user_errors(log_dir: Path) -> list[str]:
    """Return the error messages for the user in the logs of the ranks, each once."""
    found: dict[str, None] = {}
    for path in sorted(log_dir.glob("workerlog.*")):
        for line in path.read_text(encoding="utf8", errors="replace").splitlines():
            if line.startswith("error: "):
                found[line] = None
    return list(found)


def child_processes(process: int) -> list[int]:
    """Return the direct children of a process; empty on systems without /proc."""
    children: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, path.read_text().split())
    return children


if __name__ == "__main__":
    cli.run(main)
