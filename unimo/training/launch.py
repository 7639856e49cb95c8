"""Start a tool on several ranks.

    NPROC_PER_NODE=2 python -m unimo.training.launch tools/pretrain.py unimo3_tiny

Reads NPROC_PER_NODE (ranks on this machine; default: every GPU, 1 on a CPU), NNODES, NODE_RANK,
MASTER_ADDR and MASTER_PORT (needed from two machines on). One rank runs in this process; more go through
`paddle.distributed.launch`, over gloo between CPUs and nccl between GPUs. The output of each rank goes to
`OUTPUT/launch_logs/workerlog.N`; that of rank 0 is shown. SIGTERM, SIGINT, SIGHUP and SIGUSR1 go on to the
ranks, which save and end; then the exit code is 75. If this process is killed, the ranks save and end too.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from unimo import cli, signals
from unimo._runtime import available_cores, end_with_parent
from unimo.errors import ConfigError
from unimo.files import regular
from unimo.limits import LOG_END_BYTES
from unimo.training import addresses

# As `python -m paddle.distributed.launch`, without what importing Paddle prints (`unimo/_runtime.py`).
_PADDLES_LAUNCHER = "import unimo; from paddle.distributed.launch.main import launch; launch()"
_MOST_RANKS = 1024
"""Ranks of one machine, machines, and threads of a rank; a larger number is a slip."""


def main() -> int:
    """Start the tool of the command line and return its exit code."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    local, nodes = read_ranks(os.environ)
    environ, folder = rank_environment(local, os.environ), log_folder(words)
    if not Path(words[0]).is_file():
        raise ConfigError(f"no tool {words[0]}; expected a Python file, e.g. tools/pretrain.py")
    wants_answer_only = not {"-h", "--help", "--dry-run", "--list"}.isdisjoint(words)
    if local * nodes == 1 or wants_answer_only:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *words])
    with own_logs(folder) as log_dir:
        note = log_dir / "stopped"
        environ[cli.STOP_NOTE] = str(note.absolute())
        code = supervise(launch_command(words, local, nodes, log_dir, os.environ), environ)
        errors = user_errors(log_dir) if code else []
        code = cli.STOPPED if note.exists() and not code else code
    for error in errors:
        print(error, file=sys.stderr)
    return cli.USER_ERROR if errors else code


def read_ranks(environ: Mapping[str, str]) -> tuple[int, int]:
    """Read the number of ranks on this machine and the number of machines, and check what names them.

    Raises:
        ConfigError: a number, address or port that cannot be, or several machines without a master.
    """
    local = _number("NPROC_PER_NODE", environ.get("NPROC_PER_NODE") or str(max(1, count_gpus(environ))))
    nodes = _number("NNODES", environ.get("NNODES") or "1")
    address, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    if nodes > 1 and not (address and port):
        raise ConfigError(
            f"NNODES={nodes} needs MASTER_ADDR and MASTER_PORT, the same on all machines, "
            "e.g. MASTER_ADDR=10.0.0.1 MASTER_PORT=29500"
        )
    if port:
        _number("MASTER_PORT", port, most=65535)
    if address and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[?[0-9A-Fa-f:.]+\]?", address):
        raise ConfigError(f"MASTER_ADDR={address!r}: expected a name or address, e.g. 10.0.0.1")
    if environ.get("NODE_RANK"):
        _number("NODE_RANK", environ["NODE_RANK"], least=0, most=nodes - 1)
    return local, nodes


def _number(name: str, text: str, least: int = 1, most: int = _MOST_RANKS) -> int:
    if not (re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= most):
        raise ConfigError(f"{name}={text!r}: expected a number of at least {least}, at most {most}")
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
    """Return `launch_logs` in the run's output folder, or in `output/` if the command does not name one.

    Raises:
        ConfigError: the name of the output folder looks like an option.
    """
    named = [word.partition("=")[2] for word in words if word.startswith("output_dir=")]
    folder = named[-1] if named and named[-1] else "output"
    if folder.startswith("-"):
        raise ConfigError(f"output_dir={folder}: expected a folder; if that is its name, give ./{folder}")
    return Path(folder) / "launch_logs"


@contextlib.contextmanager
def own_logs(folder: Path) -> Iterator[Path]:
    """Yield a folder for the logs of this launch, without logs of earlier ones.

    While another launch has `folder` in use, it is `folder` with the number of this process behind it.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                folder = folder.with_name(f"{folder.name}_{os.getpid()}")
                folder.mkdir()
            for old in (*folder.glob("workerlog.*"), *folder.glob("stopped")):
                old.unlink()
            yield folder
    except OSError as error:
        place = error.filename or folder
        raise ConfigError(f"cannot write {place}: {error.strerror}; choose another output_dir=") from error


def launch_command(
    words: Sequence[str], local: int, nodes: int, log_dir: Path, environ: Mapping[str, str]
) -> list[str]:
    """Build the command that starts Paddle's launcher.

    Raises:
        ConfigError: the first of several machines cannot be found or reached.
    """
    command = [sys.executable, "-c", _PADDLES_LAUNCHER, "--log_level", "WARNING"]
    command += ["--nproc_per_node", str(local), "--nnodes", str(nodes), "--max_restart", "0"]
    command += [f"--log_dir={log_dir}", "--log_overwrite", "1"]
    if nodes > 1:
        port = environ["MASTER_PORT"]
        master, own = addresses.meeting_place(environ["MASTER_ADDR"], int(port))
        command += ["--master", f"{master}:{port}", "--host", own]
    if environ.get("NODE_RANK"):
        command += ["--rank", environ["NODE_RANK"]]
    return [*command, *words]


def rank_environment(local: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of the ranks: cores divided among them, Paddle's C++ log off.

    Paddle's launcher sets OMP_NUM_THREADS=1 when it is imported, unless it is set, and its ranks inherit it.
    `unimo` has already set it to all cores of this process, which is overridden; a smaller number set by the
    user is kept.

    Raises:
        ConfigError: OMP_NUM_THREADS is no number; lists for nested parallelism have no use here.
    """
    cores = available_cores()
    asked = _number("OMP_NUM_THREADS", environ.get("OMP_NUM_THREADS") or str(min(cores, _MOST_RANKS)))
    threads = asked if asked < cores else max(1, cores // local)
    fresh = {**environ, "OMP_NUM_THREADS": str(threads)}
    fresh.setdefault("GLOG_minloglevel", "2")
    # Paddle would take these two for a rendezvous other than its own `--master`.
    return {key: value for key, value in fresh.items() if key not in ("MASTER_ADDR", "MASTER_PORT")}


def supervise(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run Paddle's launcher and return its exit code; pass signals on to the ranks, which save and end.

    The launcher does not get them: it would kill the ranks 30 s later, in the middle of a long round. It gets
    one only when this process has been killed; then its ranks have those 30 s to save. A second SIGINT kills
    the ranks.
    """
    launcher = subprocess.Popen(
        command, env=dict(environ), start_new_session=True, preexec_fn=end_with_parent(os.getpid())
    )
    asked: list[str] = []

    def send(number: int) -> None:
        for target in child_processes(launcher.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, number)

    def pass_on(name: str) -> None:
        asked.append(name)
        if child_processes(launcher.pid):
            send(signal.Signals[name])
        else:  # it has not started them
            launcher.terminate()

    try:
        with signals.heard_by(pass_on):
            code = launcher.wait()
    except KeyboardInterrupt:
        send(signal.SIGKILL)
        launcher.wait()
        raise
    return cli.STOPPED if asked and code not in (0, cli.USER_ERROR) else code


def user_errors(log_dir: Path) -> list[str]:
    """Return the error messages for the user in the logs of the ranks, each once."""
    found: dict[str, None] = {}
    for path in sorted(log_dir.glob("workerlog.*")):
        with contextlib.suppress(OSError), open(regular(path), "rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_END_BYTES))
            for line in file.read(LOG_END_BYTES).decode("utf8", "replace").splitlines():
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
