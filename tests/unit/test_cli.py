import errno
from collections.abc import Callable

import pytest

from unimo import cli
from unimo.errors import ConfigError, DataError
from unimo.ranges import Seed, Share, Size
from unimo.settings import RunConfig


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


def test_lack_of_memory_and_endless_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(raising(MemoryError("Unable to allocate\n8 TiB"))) == 2
    said = capsys.readouterr().err
    assert said == "error: not enough memory for these batches, images or files: Unable to allocate 8 TiB\n"
    assert code_of(raising(DataError("x" * 10**7))) == 2
    assert len(capsys.readouterr().err) < 5000


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.ENOENT, "gone"), RuntimeError("gloo")])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        cli.run(raising(error))


def test_lost_rank_is_no_bug_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setattr(cli, "_leave", lambda code, together: left.append(code))
    cli.run(raising(RuntimeError("gloo/transport/tcp/pair.cc: Connection closed by peer")))
    assert left == [3]


def test_run_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.arguments("Does a thing.", "python tools/thing.py x=1")
    cli.add_run_arguments(parser, RunConfig)
    options = parser.parse_args(["a.b=1", "--dry-run"])
    assert (options.overrides, options.dry_run) == (["a.b=1"], True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "example:\n  python tools/thing.py x=1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--max_steps 20", "no option --max_steps; write train.max_steps=20; see"),
        ("--max-steps=20", "no option --max-steps; write train.max_steps=20;"),
        ("--output_dir x", "write output_dir=x;"),
        ("--lr 1e-4 --batch_size 8", "no option --lr, --batch_size; write optim.lr=1e-4 train.batch_size=8;"),
        ("--learning-rate=1e-4 a.b=1", "write optim.lr=1e-4;"),
        ("-lr 3", "write optim.lr=3;"),
        ("--epochs 3", "write train.max_steps=STEPS (epochs x samples / train.batch_size);"),
        ("--train.max_steps=20", "write train.max_steps=20;"),
        ("--fp16", "write train.precision=fp16;"),
        ("--recompute", "write train.recompute=true;"),
        ("--resume", "write resume=VALUE;"),
        ("--gpus 8", "write NPROC_PER_NODE=8 before bash scripts/run_....sh;"),
        ("--num_workers 0", "write data.num_workers=0;"),
        ("--train_images 5", "write data.scenes.train_images=5;"),
        ("--max_stepz 20", "write train.max_steps=20 or "),
        ("--dryrun", "write --dry-run;"),
        ("--nothing_like_it", "write settings as KEY=VALUE, e.g. train.max_steps=200;"),
    ],
)
def test_options_that_are_settings_are_hinted_at(words: str, said: str) -> None:
    parser = cli.arguments("Does a thing.", "python tools/thing.py x=1")
    cli.add_run_arguments(parser, RunConfig)
    for parse in (parser.parse_args, parser.parse_intermixed_args):
        with pytest.raises(ConfigError) as caught:
            parse(words.split())
        assert said in str(caught.value)


def test_a_list_needs_no_other_argument(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.arguments("Does a thing.", "python tools/thing.py x")
    parser.add_argument("needed")
    cli.add_list(parser, lambda: "one\ntwo", "things")
    with pytest.raises(SystemExit) as caught:
        parser.parse_intermixed_args(["--list"])
    assert not caught.value.code and capsys.readouterr().out == "one\ntwo\n"


def test_messages_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(raising(DataError("not valid YAML:\n  line 1,\n  column 3"))) == 2
    assert capsys.readouterr().err == "error: not valid YAML: line 1, column 3\n"
    for error in (
        NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"),
        IsADirectoryError(1, "x", "a"),
    ):
        assert code_of(raising(error)) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--size 0", "--size 0: expected 1 or more; see"),
        ("--size 1_000", "argument --size: expected int, found '1_000'"),
        ("--size 010", "found '010'"),
        ("--share nan", "expected float, found 'nan'"),
        ("--share 1.5", "--share 1.5: expected 0 to 1"),
        ("--share 1e999", "--share inf: expected a finite number"),
        ("--seed -1", "--seed -1: expected 0 to 4294967295"),
        ("--seed x", "expected int, found 'x'"),
        ("--siez 1", "unrecognized arguments: --siez 1"),
        ("--size", "expected one argument"),
    ],
)
def test_numbers_of_options_have_ranges_and_errors_of_the_command_line_no_usage(
    words: str, message: str
) -> None:
    parser = cli.arguments("Does a thing.", "python tools/thing.py --size 3")
    for name, kind in {"size": Size, "share": Share, "seed": Seed}.items():
        parser.add_argument(f"--{name}", type=cli.number(kind))
    assert vars(parser.parse_args(["--share", "1e-2"]))["share"] == 0.01
    with pytest.raises(ConfigError) as caught:
        parser.parse_args(words.split())
    assert message in str(caught.value) and "usage" not in str(caught.value)
