"""A real all-reduce between two processes, over nccl between GPUs and over gloo between CPUs.

As a program it is one of the ranks: python -m unimo.training.launch unimo/doctor/collectives.py device=cpu
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import paddle  # noqa: E402 - after the path
import paddle.distributed as dist  # noqa: E402

from unimo import cli, distributed  # noqa: E402
from unimo.doctor import trial  # noqa: E402
from unimo.doctor.report import Options, Row, verdict  # noqa: E402
from unimo.errors import UnimoError  # noqa: E402
from unimo.settings import TrainConfig  # noqa: E402

NUMBERS = 1 << 22
"""Numbers of float32 that are added up: 16 MiB."""
REPEATS = 5
ADVICE = (
    "NCCL_DEBUG=INFO shows why; several network cards: NCCL_SOCKET_IFNAME=eth0 (gloo: GLOO_SOCKET_IFNAME); "
    "no route between GPUs: NCCL_P2P_DISABLE=1; containers: --shm-size=8g, and the host's name in /etc/hosts"
)


def examine(options: Options) -> list[Row]:
    """Add up over the GPUs of this machine, if it has two, and over two CPU processes."""
    cards = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    rows = [measured("gloo", 2, "cpu", options.folder)]
    if cards < 2:
        return [*rows, Row("all-reduce, nccl", "not here", f"needs two GPUs, {cards} are here")]
    return [*rows, measured("nccl", cards, "gpu", options.folder)]


def measured(carrier: str, ranks: int, device: str, place: str) -> Row:
    """Start the ranks, whose logs go into `place` meanwhile, and judge what they print."""
    name = f"all-reduce, {carrier}"
    try:
        with trial.scratch(place) as folder:
            text = trial.start_ranks(ranks, [__file__, f"device={device}", f"output_dir={folder}"])
    except UnimoError as error:
        return Row(name, "wrong", str(error), ADVICE)
    return judge(name, ranks, text)


def judge(name: str, ranks: int, text: str) -> Row:
    """Judge the last line of rank 0: largest error of the sum, and seconds of one all-reduce."""
    try:
        error, seconds = map(float, text.strip().splitlines()[-1].split())
    except (ValueError, IndexError):
        return Row(name, "wrong", f"{ranks} ranks said: {text.strip()[-200:] or 'nothing'}", ADVICE)
    rate = 4 * NUMBERS / seconds / 2**20
    figure = f"{ranks} ranks, 16 MiB in {seconds * 1e3:.0f} ms ({rate:.0f} MiB/s), error {error:g}"
    return verdict(name, error == 0, figure, ADVICE)


def main() -> None:
    """Be one rank: add up, and print the error and the time on rank 0."""
    device = sys.argv[1].partition("=")[2]
    distributed.setup(TrainConfig(device=device))
    rank, ranks = distributed.rank(), distributed.world_size()
    times = []
    for _ in range(REPEATS):
        values = paddle.full([NUMBERS], float(rank + 1))
        distributed.barrier()
        started = time.perf_counter()
        dist.all_reduce(values)
        worst = float((values - ranks * (ranks + 1) / 2).abs().max())
        times.append(time.perf_counter() - started)
    if cli.is_main_rank():
        sys.stdout.write(f"{worst} {min(times)}\n")


if __name__ == "__main__":
    cli.run(main)
