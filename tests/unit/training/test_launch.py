import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unimo import cli
from unimo.errors import ConfigError
from unimo.training import launch

MASTER = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


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
        ({"NPROC_PER_NODE": "²"}, "NPROC_PER_NODE='²': expected a number of at least 1"),
        ({"NPROC_PER_NODE": "٣"}, "NPROC_PER_NODE='٣'"),
        ({"NPROC_PER_NODE": "2.0"}, "NPROC_PER_NODE='2.0'"),
        ({"NPROC_PER_NODE": "-1"}, "NPROC_PER_NODE='-1'"),
        ({"NPROC_PER_NODE": "9" * 5000}, "NPROC_PER_NODE='999"),
        ({"NPROC_PER_NODE": "100000"}, "at most 1024"),
        ({"NNODES": "2:4"}, "NNODES='2:4'"),
        ({"NNODES": "0"}, "NNODES='0'"),
        ({**MASTER, "NNODES": "2", "MASTER_PORT": "http"}, "MASTER_PORT='http'"),
        ({**MASTER, "NNODES": "2", "MASTER_PORT": "65536"}, "at most 65535"),
        ({**MASTER, "NNODES": "2", "MASTER_PORT": "0"}, "MASTER_PORT='0'"),
        ({"MASTER_PORT": "-5"}, "MASTER_PORT='-5'"),
        ({**MASTER, "NNODES": "2", "MASTER_ADDR": "-h"}, "MASTER_ADDR='-h'"),
        ({**MASTER, "NNODES": "2", "MASTER_ADDR": "a b"}, "MASTER_ADDR='a b'"),
        ({**MASTER, "NNODES": "2", "NODE_RANK": "2"}, "NODE_RANK='2': expected .* at most 1"),
        ({"NODE_RANK": "one"}, "NODE_RANK='one'"),
    ],
)
def test_bad_environment(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launch.read_ranks(environ)


@pytest.mark.parametrize("threads", ["2,1", "0", "-1", "two", "²", "1e3", " 2"])
def test_threads_that_are_no_number(threads: str) -> None:
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS='.*': expected a number of at least 1"):
        launch.rank_environment(2, {"OMP_NUM_THREADS": threads})


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OMP_NUM_THREADS": "2,1"}, [__file__]),
        ({"NPROC_PER_NODE": "²"}, [__file__]),
        ({"NPROC_PER_NODE": "2", "MASTER_PORT": "99999"}, [__file__]),
        ({"NPROC_PER_NODE": "2"}, [__file__, "output_dir=-rf"]),
        ({"NPROC_PER_NODE": "2"}, [__file__, f"output_dir={__file__}"]),
        ({"NPROC_PER_NODE": "2"}, [__file__, f"output_dir={__file__}/below"]),
        ({"NPROC_PER_NODE": "2"}, [__file__, "output_dir=/proc/there"]),
        ({"NPROC_PER_NODE": "2"}, ["no_such_tool.py"]),
        ({"NPROC_PER_NODE": "2"}, ["--rank"]),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environ: dict[str, str],
    words: list[str],
) -> None:
    def started(*arguments: object) -> None:
        raise AssertionError("something was started")

    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["launch", *words])
    monkeypatch.setattr(launch, "supervise", started)
    monkeypatch.setattr(os, "execv", started)
    with pytest.raises(SystemExit) as caught:
        cli.run(launch.main)
    printed = capsys.readouterr().err
    assert caught.value.code == 2 and printed.startswith("error: ") and printed.count("\n") == 1


def test_logs_of_earlier_launches_are_not_quoted(tmp_path: Path) -> None:
    for number in (0, 1, 7):
        (tmp_path / f"workerlog.{number}").write_text("error: of another run\n")
    with launch.own_logs(tmp_path) as folder:
        assert folder == tmp_path and launch.user_errors(folder) == []
        (folder / "workerlog.1").write_text("error: of this one\n")
        # A second launch with the same folder leaves the logs of the first alone.
        with launch.own_logs(tmp_path) as other:
            assert other != folder and launch.user_errors(other) == []
        assert launch.user_errors(folder) == ["error: of this one"]


CHILD = """
import os, time
from unimo._runtime import end_with_parent
end_with_parent(os.getppid())()
os.write(1, b"%d\\n" % os.getpid())
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
from unimo._runtime import end_with_parent
for code, tie in ((sys.argv[1], None), (sys.argv[2], end_with_parent(os.getpid()))):
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True, preexec_fn=tie)
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parents are watched on Linux only")
def test_children_end_with_a_killed_parent() -> None:
    untied = CHILD.replace("end_with_parent(os.getppid())()", "")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, untied], stdout=subprocess.PIPE, text=True
    )
    children = [parent.stdout.readline().strip() for _ in range(2)]
    parent.kill()
    assert parent.stdout.read() == ""  # ends when the last one that could write has ended
    parent.wait()
    assert all(child.isdecimal() for child in children), children


def test_a_parent_that_has_ended_before_is_noticed() -> None:
    code = "from unimo._runtime import end_with_parent; end_with_parent(1 << 22)(); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_command_names_master_and_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.addresses, "meeting_place", lambda *given: ("10.0.0.1", "10.0.0.7"))
    environ = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": "1"}
    command = launch.launch_command(["tool.py", "x"], 8, 2, Path("logs"), environ)
    assert command[-2:] == ["tool.py", "x"]
    assert command[command.index("--master") + 1] == "10.0.0.1:29500"
    assert command[command.index("--host") + 1] == "10.0.0.7"
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
