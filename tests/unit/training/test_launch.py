import os
from pathlib import Path

import pytest

from unimo.errors import ConfigError
from unimo.training import launch


def test_ranks_come_from_the_environment() -> None:
    assert launch.read_ranks({}) == (1, 1)
    assert launch.read_ranks({"NPROC_PER_NODE": "2"}) == (2, 1)
    master = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert launch.read_ranks({"NPROC_PER_NODE": "8", "NNODES": "2", **master}) == (8, 2)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"NPROC_PER_NODE": "two"}, "NPROC_PER_NODE='two'"),
        ({"NPROC_PER_NODE": "0"}, "at least 1"),
        ({"NNODES": "2"}, "needs MASTER_ADDR and MASTER_PORT"),
    ],
)
def test_bad_environment(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launch.read_ranks(environ)


def test_command_names_master_and_node() -> None:
    environ = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": "1"}
    command = launch.launch_command(["tool.py", "x"], 8, 2, Path("logs"), environ)
    assert command[-2:] == ["tool.py", "x"]
    assert command[command.index("--master") + 1] == "10.0.0.1:29500"
    assert command[command.index("--rank") + 1] == "1"
    assert command[command.index("--nproc_per_node") + 1] == "8"


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "available_cores", lambda: 8)
    assert launch.rank_environment(2, {"OMP_NUM_THREADS": "8"})["OMP_NUM_THREADS"] == "4"
    assert launch.rank_environment(16, {})["OMP_NUM_THREADS"] == "1"
    assert launch.rank_environment(2, {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"


def test_log_folder_is_in_the_output_folder() -> None:
    assert launch.log_folder(["tool.py", "a", "output_dir=out/run"]) == Path("out/run/launch_logs")
    assert launch.log_folder(["tool.py", "a"]) == Path("output/launch_logs")


def test_children_of_this_process(tmp_path: Path) -> None:
    import subprocess

    child = subprocess.Popen(["sleep", "5"])
    try:
        assert child.pid in launch.child_processes(os.getpid())
    finally:
        child.kill()
        child.wait()


def test_errors_of_all_ranks_once(tmp_path: Path) -> None:
    (tmp_path / "workerlog.0").write_text("step 1\nlost contact with another rank\n")
    (tmp_path / "workerlog.1").write_text("noise\nerror: no data in X; try Y\n")
    (tmp_path / "workerlog.2").write_text("error: no data in X; try Y\n")
    assert launch.user_errors(tmp_path) == ["error: no data in X; try Y"]
