import errno
from collections.abc import Callable

import pytest

from unimo import cli
from unimo.errors import DataError


def code_of(main: Callable[[], int | None]) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    return caught.value.code


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def test_exit_codes_and_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(lambda: None) == 0
    assert code_of(lambda: 5) == 5
    assert code_of(raising(DataError("no data at X; try Y"))) == 2
    assert capsys.readouterr().err == "error: no data at X; try Y\n"
    assert code_of(raising(KeyboardInterrupt())) == 130
    assert code_of(raising(OSError(errno.ENOSPC, "No space left on device", "out/metrics.jsonl"))) == 2
    assert "out/metrics.jsonl: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.ENOENT, "gone"), RuntimeError("gloo")])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        cli.run(raising(error))


def test_lost_rank_is_no_bug_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setattr(cli, "_leave", left.append)
    cli.run(raising(RuntimeError("gloo/transport/tcp/pair.cc: Connection closed by peer")))
    assert left == [3]


def test_run_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.arguments("Does a thing.", "python tools/thing.py x=1")
    cli.add_run_arguments(parser)
    options = parser.parse_args(["a.b=1", "--dry-run"])
    assert (options.overrides, options.dry_run) == (["a.b=1"], True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "example:\n  python tools/thing.py x=1" in capsys.readouterr().out
