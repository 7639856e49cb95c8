"""Paddle itself: whether it imports, its devices, and how fast they multiply."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable
from pathlib import Path

import paddle

from unimo.benchmark.machine import MATMUL_SHAPE, matmul_rate
from unimo.doctor.machine import count_cards
from unimo.doctor.report import Options, Row, verdict

LEAST_SHARE = 0.3
"""Share of a core's peak below which a product takes a slow path."""
LEAST_GAIN = 1.5
"""Rate of half-precision products over that of float32 on GPUs with bf16, at least."""
WIDE_SHAPE = (8192, 4096, 4096)
"""m, k, n of the products on a GPU."""
_LANES = {"avx512f": 64, "avx2": 32, "avx": 16}
"""FLOPs of a core in one cycle: two units that multiply and add 16 or 8 numbers, or one for each on 8."""
_LIBRARIES = ("libmklml", "libmkl_rt", "libopenblas", "libdnnl")


def examine(options: Options) -> list[Row]:
    """Examine Paddle and its devices."""
    rows = [Row("Paddle imports", "ok", f"{paddle.__version__}, built for {built_for()}")]
    cards = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    rows += [gpu_row(number) for number in range(cards)]
    if paddle.is_compiled_with_cuda():
        rows.append(driver_row(paddle.version.cuda(), driver_version(), cards, count_cards()))
    else:
        rows.append(Row("GPUs", "not here", f"{built_for()} build; {count_cards()} GPUs are in this machine"))
    paddle.set_device("cpu")
    return [*rows, cpu_row()]


def built_for() -> str:
    """Name what this build of Paddle runs on."""
    return f"CUDA {paddle.version.cuda()}" if paddle.is_compiled_with_cuda() else "CPUs"


def driver_version() -> int:
    """Return the newest CUDA that the driver supports, as 1000 major + 10 minor; 0 without a driver."""
    try:
        found = ctypes.c_int(0)
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(found))
    except (OSError, AttributeError):
        return 0
    return found.value


def driver_row(build: str, driver: int, seen: int, cards: int) -> Row:
    """Judge whether the driver can run the build; within one major version of CUDA any pair works.

    Args:
        build: version of CUDA that Paddle was built with.
        driver: as `driver_version` returns it.
        seen: GPUs that Paddle sees.
        cards: GPUs that the driver shows.
    """
    version = f"{driver // 1000}.{driver % 1000 // 10}"
    figure = f"Paddle for CUDA {build}, driver for {version}; {seen} of {cards} GPUs seen"
    if not driver:
        return Row("CUDA and driver", "wrong", f"Paddle for CUDA {build}, no driver (libcuda.so.1)",
                   "install NVIDIA's driver, or docker run --gpus all; for a CPU: .[cpu]")  # fmt: skip
    if driver // 1000 < int(build.partition(".")[0]):
        return Row(
            "CUDA and driver", "wrong", figure, "update the driver, or take Paddle's index for an older CUDA"
        )
    hidden = f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}"
    return verdict("CUDA and driver", seen > 0, figure, f"no GPU is visible: {hidden}; nvidia-smi -L")


def gpu_row(number: int) -> Row:
    """Measure products on one GPU in float32 and, where it has them, bf16."""
    paddle.set_device(f"gpu:{number}")
    name = f"GPU {number}"
    title = paddle.device.cuda.get_device_name(number)
    major, minor = paddle.device.cuda.get_device_capability(number)
    memory = paddle.device.cuda.get_device_properties(number).total_memory
    about = f"{title}, capability {major}.{minor}, {memory / 2**30:.0f} GiB"
    try:
        plain = product_rate(WIDE_SHAPE, "float32")
        half = "bfloat16" if paddle.amp.is_bfloat16_supported() else "float16"
        return gpu_verdict(name, about, plain, product_rate(WIDE_SHAPE, half), half)
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        return Row(
            name,
            "wrong",
            f"{about}: {reason}",
            "is it in use by others (nvidia-smi)? is the build for its capability?",
        )


def gpu_verdict(name: str, about: str, plain: float, halved: float, half: str) -> Row:
    """Judge the rates of a GPU in FLOP/s."""
    figure = f"{about}; float32 {plain / 1e12:.1f} TFLOP/s, {half} {halved / 1e12:.1f}"
    return verdict(name, halved >= LEAST_GAIN * plain, figure,
                   f"{half} should be {LEAST_GAIN:g} times as fast; is the GPU shared?")  # fmt: skip


def product_rate(shape: tuple[int, int, int], kind: str, seconds: float = 1.0) -> float:
    """Measure the FLOP/s of a product on the device in use, many of which are under way at once."""
    m, k, n = shape
    left, right = paddle.randn([m, k]).astype(kind), paddle.randn([k, n]).astype(kind)
    done, each = 0, 10
    with paddle.no_grad():
        _wait(paddle.matmul(left, right))
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            for _ in range(each):
                product = paddle.matmul(left, right)
            _wait(product)
            done += each
    return 2.0 * m * k * n * done / (time.perf_counter() - started)


def _wait(product: paddle.Tensor) -> None:
    """Wait until a product, and all before it, is done."""
    float(product[0, 0])


def cpu_row() -> Row:
    """Measure products on the CPU; other processes that use it hardly matter, as processor time counts."""
    began, started = time.process_time(), time.perf_counter()
    rate = matmul_rate(MATMUL_SHAPE, 2.0)
    elapsed, used = time.perf_counter() - started, time.process_time() - began
    text = Path("/proc/cpuinfo").read_text(encoding="utf8", errors="replace")
    peak = core_peak(text)
    return product_row(rate, rate * elapsed / used, peak, loaded_libraries(), load=os.getloadavg()[0])


def product_row(rate: float, by_core: float, peak: float, libraries: Iterable[str], load: float) -> Row:
    """Judge the rate of products on the CPU.

    Args:
        rate: FLOP/s as the clock on the wall has it.
        by_core: FLOP/s of a second of processor time.
        peak: those that a core could do at most; 0 if unknown.
        libraries: loaded libraries of products.
        load: processes that want a core.
    """
    name = "matrix products, CPU"
    switch = os.environ.get("MKL_DEBUG_CPU_TYPE", "unset")
    figure = (
        f"{rate / 1e9:.0f} GFLOP/s now (load {load:.1f}), {by_core / 1e9:.0f} a core of about "
        f"{peak / 1e9:.0f}; {', '.join(libraries) or 'no BLAS found'}; MKL_DEBUG_CPU_TYPE={switch}"
    )
    if not peak:
        return Row(name, "ok", figure)
    advice = (
        f"less than {LEAST_SHARE:.0%} of the peak: on AMD export MKL_DEBUG_CPU_TYPE=5 before Paddle starts; "
        "import unimo before paddle, which sets it; end other processes"
    )
    return verdict(name, by_core >= LEAST_SHARE * peak, figure, advice)


def core_peak(cpuinfo: str) -> float:
    """Return the FLOP/s in float32 that a core could do at the clock that /proc/cpuinfo has; 0 if unknown.

    AMD's cores of AVX-512 before Zen 5 halve it, and their `avx512f` counts as AVX2.
    """
    fields = dict(line.split(":", 1) for line in reversed(cpuinfo.splitlines()) if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags, clock = fields.get("flags", "").split(), fields.get("cpu MHz", "0")
    if "AuthenticAMD" in fields.get("vendor_id", ""):
        flags = [flag for flag in flags if flag != "avx512f"]
    lanes = next((count for flag, count in _LANES.items() if flag in flags), 0)
    return float(clock) * 1e6 * lanes


def loaded_libraries(maps: Path = Path("/proc/self/maps")) -> list[str]:
    """Return the libraries of matrix products that this process has loaded."""
    try:
        text = maps.read_text(encoding="utf8", errors="replace")
    except OSError:
        return []
    return [name for name in _LIBRARIES if name in text]
