"""unimo/_runtime.py: threads and the MKL switch, before Paddle is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from unimo import _runtime

CORES = len(os.sched_getaffinity(0))


def configured(monkeypatch, is_amd: bool, **environ: str) -> dict[str, str]:
    monkeypatch.setattr(_runtime, "_is_amd_with_avx2", lambda: is_amd)
    _runtime.configure_cpu(environ)
    return environ


def test_threads_are_the_cores_shared_by_local_ranks(monkeypatch):
    assert configured(monkeypatch, False)["OMP_NUM_THREADS"] == str(CORES)
    assert configured(monkeypatch, False, PADDLE_LOCAL_SIZE="1000")["OMP_NUM_THREADS"] == "1"


def test_the_users_own_settings_stay(monkeypatch):
    given = {"OMP_NUM_THREADS": "7", "MKL_DEBUG_CPU_TYPE": "4", "FLAGS_use_stride_kernel": "1"}
    assert configured(monkeypatch, True, **given) == given


@pytest.mark.parametrize("is_amd", [True, False])
def test_mkl_switch_is_set_on_amd_only(monkeypatch, is_amd):
    assert configured(monkeypatch, is_amd).get("MKL_DEBUG_CPU_TYPE") == ("5" if is_amd else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vendor_id : AuthenticAMD\nflags : fpu avx avx2 fma\n", True),
        ("vendor_id : AuthenticAMD\nflags : fpu avx\n", False),
        ("vendor_id : GenuineIntel\nflags : fpu avx avx2\n", False),
        ("", False),
    ],
)
def test_processor_is_read_from_cpuinfo(tmp_path, text, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert _runtime._is_amd_with_avx2(path) is expected


def test_no_cpuinfo_is_no_amd(tmp_path):
    assert _runtime._is_amd_with_avx2(tmp_path / "absent") is False


def test_importing_unimo_sets_threads_for_paddle():
    code = "import os, unimo; print(os.environ['OMP_NUM_THREADS'])"
    environ = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
    )
    assert done.stdout.strip() == str(CORES)


def test_paddle_says_nothing_of_our_settings_and_leaves_signals_alone():
    """Two threads, as on any machine of two cores."""
    code = (
        "import os, signal, sys, unimo; signal.signal(signal.SIGTERM, lambda *_: print('heard'))\n"
        "import paddle; os.kill(os.getpid(), signal.SIGTERM); print('to stderr', file=sys.stderr)"
    )
    environ = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\n", "to stderr\n")
