"""Limits of machine, container and disk that a run would hit are reported as wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from unimo.doctor import machine, storage
from unimo.doctor.report import Options
from unimo.errors import ConfigError
from unimo.limits import GIB, MIB


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    "files,cores,memory",
    [
        ({}, None, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max"}, None, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000", "sys/fs/cgroup/memory.max": "1024"}, 1.5, 1024),
        (
            {
                "proc/self/cgroup": "0::/kube/pod\n",
                "sys/fs/cgroup/kube/cpu.max": "400000 100000",
                "sys/fs/cgroup/kube/pod/cpu.max": "200000 100000",
                "sys/fs/cgroup/kube/memory.max": "4096",
                "sys/fs/cgroup/kube/pod/memory.max": "max",
            },
            2.0,
            4096,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/job\n7:memory:/job\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2048",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            0.5,
            2048,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            None,
            None,
        ),
    ],
)
def test_limits_of_containers(
    tmp_path: Path, files: dict[str, str], cores: float | None, memory: int | None
) -> None:
    assert machine.container_limits(write(tmp_path, files)) == (cores, memory)


@pytest.mark.parametrize(
    "cores,quota,threads,result,words",
    [
        (8, None, "", "ok", ""),
        (8, None, "8", "ok", ""),
        (8, None, "1", "ok", "8 threads"),
        (64, 4.0, "", "wrong", "OMP_NUM_THREADS=4"),
        (64, 4.0, "4", "ok", ""),
        (4, 1.5, "2", "ok", ""),
        (2, None, "16", "wrong", "OMP_NUM_THREADS=2"),
        (4, 0.5, "1", "ok", ""),
    ],
)
def test_threads(cores: int, quota: float | None, threads: str, result: str, words: str) -> None:
    row = machine.cores_row(cores, quota, {"OMP_NUM_THREADS": threads} if threads else {})
    assert (row.result, words in row.advice) == (result, True), row


def test_memory_shared_memory_and_open_files() -> None:
    assert machine.memory_row(8 * GIB, None).result == "ok"
    assert machine.memory_row(8 * GIB, GIB).result == "wrong"
    assert machine.memory_row(GIB, None).result == "wrong"
    assert machine.shared_row(64 * MIB, 1).result == "ok"
    assert machine.shared_row(64 * MIB, 8).result == "wrong"
    assert machine.files_row(256).result == "wrong"
    assert machine.files_row(65536).result == "ok"


def test_this_machine_is_described(tmp_path: Path) -> None:
    text = machine.heading(write(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name : Fast One\n"}))
    assert text.startswith("Fast One, ")
    assert "Python 3." in text
    assert machine.count_cards(write(tmp_path, {"dev/nvidia0": "", "dev/nvidiactl": ""})) == 1
    assert machine.available_memory(write(tmp_path, {"proc/meminfo": "MemAvailable: 2 kB"})) == 2048


def test_disk() -> None:
    def judge(free: int, speed: int) -> list[str]:
        return [row.result for row in storage.judge("big", free, speed, checkpoint=3 * GIB, kept=2)]

    assert judge(100 * GIB, 100 * MIB) == ["ok", "ok"]
    assert judge(10 * GIB, 100 * MIB) == ["wrong", "ok"]
    assert judge(100 * GIB, MIB) == ["ok", "wrong"]


def test_disk_of_a_recipe(tmp_path: Path) -> None:
    rows = storage.examine(Options(folder=str(tmp_path), overrides=("train.keep_checkpoints=7",)))
    assert "7 + 1 checkpoints" in rows[0].figure
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="nearest"):
        storage.light_run("unimo3_tinny", ())
    with pytest.raises(ConfigError, match="train"):
        storage.light_run("unimo3_tiny", ("train.max_step=3",))
