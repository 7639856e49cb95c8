"""Process settings that only work before Paddle is imported. `unimo/__init__.py` calls it first.

Two measured facts decide this file. Paddle sets OMP_NUM_THREADS=1 on import, which leaves all but one
core idle. And the MKL that Paddle bundles takes a slow path on AMD: on an AVX2 EPYC a
1576x768x3072 product ran at 18.8 GFLOP/s, and at 65.5 with MKL_DEBUG_CPU_TYPE=5.
"""

import os
import sys
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure_cpu(environ: "os._Environ[str] | dict[str, str]" = os.environ) -> None:
    """Set thread count and MKL code path, unless the user has set them. Idempotent.

    Under `paddle.distributed.launch`, which exports PADDLE_LOCAL_SIZE, the cores are shared out among the
    local ranks. (That launcher also hands down OMP_NUM_THREADS=1; `unimo.training.launch` mends it.)
    """
    if "paddle" in sys.modules and environ is os.environ:
        return
    local_ranks = max(1, int(environ.get("PADDLE_LOCAL_SIZE", "1")))
    environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // local_ranks)))
    if _is_amd_with_avx2():
        environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def _is_amd_with_avx2(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        text = cpuinfo.read_text(encoding="utf8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "AuthenticAMD" in text and " avx2" in flags
