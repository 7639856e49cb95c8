"""Each self-check reports what is broken as wrong: a slow path, a wrong sum, a run that differs."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from unimo.data.loading import loader
from unimo.doctor import attention, collectives, devices, number_formats, parallel, resume, speed, trial
from unimo.doctor.report import Options, Row
from unimo.errors import DeviceError, UnimoError
from unimo.nn import attention as layers
from unimo.weights.files import write_safetensors

INTEL = "vendor_id : GenuineIntel\nflags : fpu avx2 avx512f\ncpu MHz : 2000.0\n"
AMD = "vendor_id : AuthenticAMD\nflags : fpu avx avx2 avx512f\ncpu MHz : 2500.0\n\nprocessor : 1\n"


def test_products_on_the_slow_path_are_wrong() -> None:
    assert devices.core_peak(INTEL) == 128e9
    assert devices.core_peak(AMD) == 80e9
    assert devices.core_peak("") == 0
    good = devices.product_row(60e9, 65e9, 80e9, ["libmklml"], 0.1)
    slow = devices.product_row(18e9, 18.8e9, 80e9, ["libmklml"], 0.1)
    assert (good.result, slow.result) == ("ok", "wrong")
    assert "MKL_DEBUG_CPU_TYPE=5" in slow.advice
    # Others take half of the processor; ours is as fast as ever while it has it.
    assert devices.product_row(30e9, 65e9, 80e9, [], 9.0).result == "ok"
    assert devices.product_row(30e9, 3e9, 0.0, [], 9.0).result == "ok"


@pytest.mark.parametrize(
    "build,driver,seen,result",
    [
        ("12.6", 12040, 2, "ok"),
        ("12.6", 11080, 2, "wrong"),
        ("12.6", 0, 0, "wrong"),
        ("12.6", 12060, 0, "wrong"),
        ("11.8", 12060, 1, "ok"),
    ],
)
def test_driver(build: str, driver: int, seen: int, result: str) -> None:
    assert devices.driver_row(build, driver, seen, 2).result == result


def test_a_gpu_without_fast_half_precision_is_wrong() -> None:
    assert devices.gpu_verdict("GPU 0", "A", 19e12, 250e12, "bfloat16").result == "ok"
    assert devices.gpu_verdict("GPU 0", "A", 19e12, 20e12, "bfloat16").result == "wrong"


@pytest.mark.parametrize(
    "text,result",
    [
        ("noise\n0.0 0.01\n", "ok"),
        ("1.0 0.01\n", "wrong"),
        ("nan 0.01", "wrong"),
        ("", "wrong"),
        ("hello", "wrong"),
    ],
)
def test_sums_over_ranks(text: str, result: str) -> None:
    assert collectives.judge("all-reduce, gloo", 2, text).result == result


def test_ranks_that_fail_are_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*arguments: object) -> str:
        raise UnimoError("2 ranks ended with code 1: connection refused")

    monkeypatch.setattr(trial, "start_ranks", fail)
    row = collectives.measured("gloo", 2, "cpu", str(tmp_path))
    assert row.result == "wrong"
    assert "refused" in row.figure
    assert "SOCKET_IFNAME" in row.advice


def test_the_last_words_of_ranks_are_told(tmp_path: Path) -> None:
    tool = tmp_path / "tool.py"
    tool.write_text("raise SystemExit('no luck today')")
    with pytest.raises(UnimoError, match="1 ranks ended with code 1: .*no luck today"):
        trial.start_ranks(1, [str(tool)])


def test_attention_of_both_paths_agrees_and_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    real = F.scaled_dot_product_attention

    def kernel(query, key, value, mask, rate, training):
        taken.append(key.shape[1])
        return real(query, key, value, mask, rate, training=training)

    monkeypatch.setattr(layers.F, "scaled_dot_product_attention", kernel)
    assert attention.judge("length does not", 61, "float32").result == "ok"
    assert taken == [61] * len(attention.CASES)
    assert {(case.kind, case.mask, case.frozen) for case in attention.CASES} >= {
        ("self", "outer", "states"), ("cross", "padding", "other"), ("self", "padding", "layer"),
    }  # fmt: skip

    def ignores_mask(query, key, value, mask, rate, training):
        return real(query, key, value, None, rate, training=training)

    monkeypatch.setattr(layers.F, "scaled_dot_product_attention", ignores_mask)
    row = attention.judge("length does not", 61, "float32")
    assert row.result == "wrong"
    assert "outer" in row.figure or "padding" in row.figure

    def detached(query, key, value, mask, rate, training):
        return real(query.detach(), key, value, mask, rate, training=training)

    monkeypatch.setattr(layers.F, "scaled_dot_product_attention", detached)
    assert attention.judge("length divides by 8", 64, "float32").result == "wrong"

    def fails(query, key, value, mask, rate, training):
        if query.stop_gradient:
            raise RuntimeError("only some of q, k, v need gradients")
        return real(query, key, value, mask, rate, training=training)

    monkeypatch.setattr(layers.F, "scaled_dot_product_attention", fails)
    row = attention.judge("length divides by 8", 64, "float32")
    assert (row.result, "only some" in row.figure) == ("wrong", True)


def outcome(losses: list[float], weight: float = 1.0) -> resume.Outcome:
    return losses, {"weight": np.full(3, weight, np.float32)}


def test_a_resumed_run_that_differs_is_wrong() -> None:
    plain = outcome([3.0, 2.0])
    assert resume.judge(plain, plain, plain).result == "ok"
    bit = np.nextafter(2.0, 3.0)
    assert "step 2" in resume.judge(plain, plain, outcome([3.0, float(bit)])).figure
    assert resume.judge(plain, plain, outcome([3.0])).result == "wrong"
    assert "weight" in resume.judge(plain, plain, outcome([3.0, 2.0], 1.0000001)).figure
    restless = resume.judge(plain, outcome([3.0, 2.5]), plain)
    assert (restless.result, "unbroken" in restless.figure) == ("wrong", True)


def test_number_formats() -> None:
    plain = [4.0, 3.5]
    assert number_formats.judge("bf16", [4.01, 3.52], plain).result == "ok"
    assert number_formats.judge("fp16", [4.01, 3.55], plain).result == "wrong"
    assert number_formats.judge("bf16", [4.0, math.nan], plain).result == "wrong"
    assert "did nothing" in number_formats.judge("bf16", plain, plain).figure


def test_number_formats_that_a_cpu_ignores_are_refused_or_wrong() -> None:
    def refuses(precision: str) -> list[float]:
        raise DeviceError("a silent no-op")

    assert number_formats.refused("bf16", refuses).result == "not here"
    assert number_formats.refused("bf16", lambda precision: [1.0]).result == "wrong"


def test_gradients_of_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trial, "logged", lambda output: [3.0, 2.0])

    def run(name: str, *values: float) -> Path:
        folder = tmp_path / name / "checkpoints" / "step_00000001"
        folder.mkdir(parents=True)
        moments = {f"{number}/moment1": np.full(2, value, np.float32) for number, value in enumerate(values)}
        write_safetensors(folder / "optimizer.safetensors", moments)
        return tmp_path / name

    plain = run("plain", 1.0, 0.001)
    assert parallel.judge("same", run("same", 1.00001, 0.00101), plain, slices=False).result == "ok"
    assert parallel.judge("half", run("half", 0.5, 0.0005), plain, slices=False).result == "wrong"
    assert parallel.judge("lost", run("lost", 1.0), plain, slices=False).result == "wrong"
    assert parallel.judge("nan", run("nan", 1.0, math.nan), plain, slices=False).result == "wrong"
    monkeypatch.setattr(trial, "logged", lambda output: [3.0, 2.0 + 0.01 * ("same" in str(output))])
    assert parallel.judge("same", tmp_path / "same", plain, slices=True).result == "wrong"


def test_a_loader_slower_than_steps_is_wrong() -> None:
    assert speed.judge("unimo3_tiny", 400.0, 60.0, 0.01, 2).result == "ok"
    slow = speed.judge("unimo3_tiny", 40.0, 60.0, 0.4, 2)
    assert (slow.result, "data.num_workers=4" in slow.advice) == ("wrong", True)


def test_the_real_loader_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = Options(folder=str(tmp_path), overrides=("data.image_size=32", "data.num_workers=0"))
    run = speed.measured_run(options, 8, 1, on_gpu=False)
    assert speed.loader_rate(run, 0.3) > 0
    real = loader.read_batch

    def slow(*arguments: object) -> object:
        time.sleep(0.2)
        return real(*arguments)

    monkeypatch.setattr(loader, "read_batch", slow)
    assert speed.loader_rate(run, 0.3) < 8 / 0.2


def test_a_recipe_that_leaves_the_device_idle_is_wrong() -> None:
    run = speed.measured_run(Options(), 8, 1, on_gpu=False)
    times = [9.0, 2.0, 2.0, 1.0, 1.0, 1.1]
    row = speed.speed_row(run, times, operations=40 * 10**9, rate=1e11)
    assert (row.result, row.figure[:34]) == ("ok", "8.00 samples/s at 8 a step, fp32; ")
    assert "40% of the rate of products alone, 0.10 TFLOP/s" in row.figure
    assert speed.speed_row(run, times, operations=10**9, rate=1e11).result == "wrong"
    # More than plain products reach: one of the two numbers cannot be.
    assert speed.speed_row(run, times, operations=200 * 10**9, rate=1e11).result == "wrong"


def test_recipes_are_measured_on_request_only() -> None:
    rows = speed.examine_recipes(Options())
    assert {row.result for row in rows} == {"not here"}
    assert "speed of unimo3_base" in {row.name for row in rows}
    assert all(row.advice == "--recipes" for row in rows)


def test_clock_counts_what_lies_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 2.0, 5.0, 9.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(times))
    clock = speed.Clock()
    state = SimpleNamespace(is_finished=False)
    clock.on_start(state)
    for waited in (0.5, 1.0):
        clock.on_step_end(state, SimpleNamespace(data_seconds=waited))
        clock.on_step_logged(state)
    state.is_finished = True
    with pytest.raises(speed.TimedError):
        clock.on_step_logged(state)
    assert (clock.seconds, clock.waited) == ([2.0, 3.0, 4.0], [0.5, 1.0])


def test_short_runs_leave_out_every_dropout() -> None:
    words = trial.without_dropout(Options(recipe="unimo3_tiny"))
    assert words
    run = trial.small_run(Options(), Path("out"), 3, *words)
    assert run.train.max_steps == 3

    def rates(section: object) -> list[float]:
        values = {each.name: getattr(section, each.name) for each in dataclasses.fields(section)}
        own = [value for name, value in values.items() if name.endswith("dropout")]
        inner = [rates(value) for value in values.values() if dataclasses.is_dataclass(value)]
        return sum(inner, own)

    assert set(rates(run.model)) == {0.0}


def test_series() -> None:
    assert trial.largest_difference([1.0, 2.0], [1.0, 2.2]) == pytest.approx(0.2 / 2.2)
    assert trial.largest_difference([1.0], [1.0, 2.0]) == math.inf
    assert trial.largest_difference([math.nan], [1.0]) == math.inf
    assert trial.largest_difference([], []) == math.inf
    assert trial.compared("x", [1.0], [1.0], 0.1, "advice") == Row(
        "x", "ok", "losses of 1 step differ by 0.0e+00 at most, tolerance 0.1"
    )


def test_product_rate_is_positive() -> None:
    assert devices.product_rate((32, 32, 32), "float32", 0.01) > 0
    assert paddle.get_device() == "cpu"
