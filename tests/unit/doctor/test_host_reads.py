"""Reads by the host within steps are counted with the line that asks, and made-up profiles are judged."""

from __future__ import annotations

from pathlib import Path

import paddle
import pytest
from small_run import SmallTask, make_run, make_state

from unimo.config import dump
from unimo.doctor import host_reads
from unimo.doctor.host_reads import HostReads, Watch, judge, judge_trace
from unimo.training.loop import carry_out, only_run_in
from unimo.training.state import Callback


def watched(output: Path, *extra: Callback) -> dict[str, int]:
    """Reads in the steps of a small run through the real loop."""
    watch = Watch(None)
    run = make_run(output, train={"max_steps": 8, "log_every": 8, "save_every": 0})
    state = make_state(run, [*extra, watch])
    with only_run_in(state.output_dir):
        carry_out(state, None, dump(run))
    return dict(watch.reads.found)


class Curious(Callback):
    """Looks at a loss after each step."""

    def on_step_end(self, state: object, report: object) -> None:
        float(report.values[0])


def test_the_loop_reads_nothing_between_logs(tmp_path: Path) -> None:
    assert watched(tmp_path) == {}


def test_a_callback_that_reads_is_found(tmp_path: Path) -> None:
    found = watched(tmp_path, Curious())
    assert sum(found.values()) == host_reads.LAST - host_reads.FIRST
    assert all("__float__" in place for place in found)
    assert judge(found).result == "wrong"


def test_a_loss_that_reads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = SmallTask.losses

    def losses(self, batch):
        values = real(self, batch)
        if values[0]["square"] > 1e9:  # asks for the value
            raise AssertionError
        return values

    monkeypatch.setattr(SmallTask, "losses", losses)
    assert any("__bool__" in place for place in watched(tmp_path))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.numpy(), lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: bool(x.sum() > 0),
        lambda x: int(x.sum()), lambda x: f"{x.sum()}", lambda x: x[x > 0], lambda x: paddle.nonzero(x),
        lambda x: paddle.masked_select(x, x > 0), lambda x: x[: paddle.to_tensor(2)],
        lambda x: paddle.unique(x), lambda x: x.cpu(), lambda x: range(4)[x.astype("int64")[0]],
        lambda x: paddle.where(x > 0), lambda x: repr(x), lambda x: __import__("numpy").asarray(x),
    ],
)  # fmt: skip
def test_every_way_of_reading_counts_once(read) -> None:
    values = paddle.to_tensor([1.0, 0.0, 3.0])
    reads = HostReads()
    reads.start()
    try:
        read(values)
    finally:
        reads.stop()
    assert sum(reads.found.values()) == 1, reads.found
    assert "test_host_reads.py" in next(iter(reads.found))


def test_what_stays_on_the_device_does_not_count() -> None:
    values = paddle.to_tensor([[1.0, 0.0, 3.0]], stop_gradient=False)
    reads = HostReads()
    before = paddle.Tensor.numpy, paddle.Tensor.__getitem__, paddle._C_ops.nonzero
    reads.start()
    try:
        taken = values[0, 1:] * values[:, paddle.to_tensor([0, 1])].sum()
        paddle.where(taken > 0, taken, -taken).sum().backward()
        assert values.shape == [1, 3]
        assert len(values) == 1
    finally:
        reads.stop()
    assert not reads.found
    assert (paddle.Tensor.numpy, paddle.Tensor.__getitem__, paddle._C_ops.nonzero) == before


@pytest.mark.parametrize(
    "names,result",
    [
        (["matmul", "MEMCPY_HtoD", "cudaStreamSynchronize", "cudaMemcpyAsync"], "ok"),
        (["MEMCPY_HtoD", "MEMCPY_DtoH", "cudaMemcpyAsync"], "wrong"),
        (["Memcpy DtoH (Device -> Pageable)"], "wrong"),
        (["matmul", "cudaStreamSynchronize", "cudaDeviceSynchronize"], "wrong"),
        ([], "wrong"),
    ],
)
def test_profiles(names: list[str], result: str) -> None:
    assert judge_trace([{"name": name} for name in names]).result == result


def test_traces_are_read_as_paddle_writes_them(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    profile = paddle.profiler.Profiler(
        targets=[paddle.profiler.ProfilerTarget.CPU],
        on_trace_ready=paddle.profiler.export_chrome_tracing(str(traces)),
    )
    profile.start()
    (paddle.ones([4, 4]) @ paddle.ones([4, 4])).numpy()
    profile.stop()
    names = {str(event.get("name", "")) for event in host_reads._events(traces)}
    assert any("matmul" in name for name in names)
