"""Cores, memory and limits of this machine and of the container around this process. Imports no Paddle."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path

from unimo import __version__
from unimo._runtime import available_cores
from unimo.doctor.report import Options, Row, verdict
from unimo.limits import GIB, MEMORY_BYTES

LEAST_MEMORY, LEAST_SHARED, LEAST_FILES = 2 * GIB, GIB, 1024
"""What a run needs: memory of a tiny recipe, /dev/shm for nccl among the GPUs of a machine, open files."""
_UNLIMITED = 1 << 60
"""Version 1 of cgroups says `no limit` by a number near 2^63."""


def heading(root: Path = Path("/")) -> str:
    """Return one line about this machine and what runs on it."""
    with contextlib.suppress(OSError, StopIteration):
        lines = (root / "proc/cpuinfo").read_text(encoding="utf8", errors="replace").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        break_down = f"{processor}, {available_cores()} cores, {MEMORY_BYTES / GIB:.1f} GiB"
        return f"{break_down}; {_software()}"
    return f"{platform.machine()}, {available_cores()} cores, {MEMORY_BYTES / GIB:.1f} GiB; {_software()}"


def _software() -> str:
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{system}, Python {platform.python_version()}, unimo {__version__}"


def examine(options: Options) -> list[Row]:
    """Examine this machine."""
    quota, limit = container_limits()
    return [
        cores_row(available_cores(), quota, os.environ),
        memory_row(available_memory(), limit),
        shared_row(shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0, count_cards()),
        files_row(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ]


def count_cards(root: Path = Path("/")) -> int:
    """Count the NVIDIA GPUs that the driver shows, whatever Paddle can do with them."""
    return len(list((root / "dev").glob("nvidia[0-9]*")))


def container_limits(root: Path = Path("/")) -> tuple[float | None, int | None]:
    """Return the cores and the bytes that the cgroups of this process allow, None where there is no limit.

    Of nested groups the narrowest counts.
    """
    cores: list[float] = []
    memory: list[int] = []
    for folder in _groups(root):
        quota = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and quota[0] not in ("max", "-1"):
            cores.append(int(quota[0]) / int(quota[1]))
        for name in ("memory.max", "memory.limit_in_bytes"):
            memory += [int(word) for word in _words(folder / name) if word != "max"]
    bounded = [size for size in memory if size < _UNLIMITED]
    return min(cores, default=None), min(bounded, default=None)


def _groups(root: Path) -> list[Path]:
    """Return the folders of the groups of this process, and of those around them."""
    mount = root / "sys/fs/cgroup"
    folders = [mount, mount / "cpu", mount / "cpu,cpuacct", mount / "memory"]
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf8").splitlines():
            _, controllers, path = line.split(":", 2)
            inner = mount / controllers / path.strip("/")
            folders += [inner, *(above for above in inner.parents if mount in above.parents)]
    return list(dict.fromkeys(folders))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf8").split()
    except OSError:
        return []


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that can be had without swapping; all memory where the kernel does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = (root / "proc/meminfo").read_text(encoding="utf8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return MEMORY_BYTES


def cores_row(cores: int, quota: float | None, environ: Mapping[str, str]) -> Row:
    """Judge the number of threads: as many as cores, and no more than the container gives time to."""
    named = environ.get("OMP_NUM_THREADS", "")
    threads = int(named) if named.isdecimal() else cores
    allowed = cores if quota is None else min(cores, quota)
    limit = "" if quota is None else f", the container gives time for {quota:g}"
    figure = f"{cores} cores{limit}; {threads} threads (OMP_NUM_THREADS)"
    wanted = max(1, int(allowed))
    advice = f"export OMP_NUM_THREADS={wanted}: threads without a core of their own wait for each other"
    row = verdict("cores and threads", threads <= max(1, -(-allowed // 1)), figure, advice)
    if row.result == "ok" and threads < wanted:
        return Row(row.name, "ok", figure, f"{wanted} threads are possible: unset OMP_NUM_THREADS")
    return row


def memory_row(available: int, limit: int | None) -> Row:
    """Judge the memory that is free, and that the container allows."""
    figure = f"{available / GIB:.1f} GiB free"
    if limit is not None:
        figure += f", the container allows {limit / GIB:.1f}"
    enough = min(available, limit or available) >= LEAST_MEMORY
    return verdict("memory", enough, f"{figure}; the tiny recipes take {LEAST_MEMORY / GIB:.0f}",
                   "end other processes, or give the container more: docker run --memory=16g")  # fmt: skip


def shared_row(size: int, cards: int) -> Row:
    """Judge the size of /dev/shm, through which nccl talks among the GPUs of a machine."""
    figure = f"{size / GIB:.2f} GiB, {cards} GPUs"
    advice = (
        "nccl needs it between GPUs: docker run --shm-size=8g, or an emptyDir of medium Memory on /dev/shm"
    )
    return verdict("/dev/shm", cards < 2 or size >= LEAST_SHARED, figure, advice)


def files_row(limit: int) -> Row:
    """Judge how many files this process may open: shards, sockets between ranks, logs."""
    advice = "ulimit -n 65536 before the command, or LimitNOFILE= of the service"
    return verdict("open files", limit >= LEAST_FILES, f"ulimit -n is {limit}", advice)
