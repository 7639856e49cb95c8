"""Process settings that only work before Paddle is imported; `unimo/__init__.py` makes them first.

They follow from measurements (Paddle 3.3.1, CPU):

- Paddle sets OMP_NUM_THREADS=1 on import, which leaves all but one core idle.
- The MKL that Paddle bundles takes a slow path on AMD: on an AVX2 EPYC a 1576x768x3072 product ran at
  18.8 GFLOP/s, and at 65.5 with MKL_DEBUG_CPU_TYPE=5.
- Transposes are lazy views whose later copy runs at 30 million elements a second. With
  FLAGS_use_stride_kernel=0 a fast kernel copies at once: an attention of ViT-B, forward and backward, took
  95 ms instead of 295.
- glibc maps every tensor above 32 MB anew and returns smaller ones to the kernel, so that memory costs page
  faults again and again: 154 MB of zeros took 129 ms, and 42 once freed memory was kept.
"""

import contextlib
import ctypes
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_PR_SET_PDEATHSIG = 1
# malloc.h: parameter of mallopt -> value. Never trim, never map, grow by 64 MB.
_KEEP_MEMORY = {-1: 2**31 - 1, -4: 0, -2: 1 << 26}


class QuietPaddle(importlib.abc.MetaPathFinder):
    """Imports Paddle, once, without what it says of our own settings, and keeps our handlers of signals.

    It prints a warning when OMP_NUM_THREADS, which `configure_cpu` sets, is above 1, warns that there is no
    cache for a C++ compiler, and replaces the handler of SIGTERM.
    """

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find Paddle as usual, with another function to run it; nothing else."""
        if name != "paddle":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = functools.partial(_run_quietly, spec.loader.exec_module)
        return spec


def _run_quietly(run: Callable[[ModuleType], None], module: ModuleType) -> None:
    warnings.filterwarnings("ignore", message="No ccache found")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with contextlib.redirect_stderr(_WithoutThreads(sys.stderr)) if sys.stderr else contextlib.nullcontext():
        run(module)
    for number, handler in handlers.items():
        if callable(handler):
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(number, handler)


class _WithoutThreads:
    """A stream without Paddle's two lines about OMP_NUM_THREADS."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._drops = stream, False

    def write(self, text: str) -> int:
        """Write a text, unless it is one of the lines or the line feed after it."""
        about = text.startswith(("WARNING: OMP_NUM_THREADS set to", "PLEASE USE OMP_NUM_THREADS WISELY"))
        if about or (self._drops and text == "\n"):
            self._drops = about
            return len(text)
        self._drops = False
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure_cpu(environ: "os._Environ[str] | dict[str, str]" = os.environ) -> None:
    """Set threads, kernels, MKL code path and memory, unless the user has set them. Idempotent.

    Under `paddle.distributed.launch`, which exports PADDLE_LOCAL_SIZE, local ranks share the cores. (That
    launcher also passes on OMP_NUM_THREADS=1; `unimo.training.launch` overrides it.)
    """
    if "paddle" in sys.modules and environ is os.environ:
        return
    named = environ.get("PADDLE_LOCAL_SIZE", "1")
    local_ranks = max(1, int(named)) if named.isdecimal() else 1
    environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // local_ranks)))
    environ.setdefault("FLAGS_use_stride_kernel", "0")
    if _is_amd_with_avx2():
        environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    if environ is os.environ:
        sys.meta_path.insert(0, QuietPaddle())
    if environ is os.environ and not any(name.startswith("MALLOC_") for name in environ):
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # not glibc
        return
    for parameter, value in _KEEP_MEMORY.items():
        mallopt(parameter, value)


def end_with_parent(parent: int) -> Callable[[], None]:
    """Return a function after which its process gets SIGTERM when its parent, a process number, ends.

    It may run between fork and exec. On systems other than Linux it does nothing.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError, TypeError):
        return lambda: None

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended before
            os.kill(os.getpid(), signal.SIGTERM)

    return tie


def _is_amd_with_avx2(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        text = cpuinfo.read_text(encoding="utf8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "AuthenticAMD" in text and " avx2" in flags
