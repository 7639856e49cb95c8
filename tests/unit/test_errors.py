"""unimo/errors.py: what a person can mend is one family, and the command line shows it as one message."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from unimo import errors


def test_all_errors_are_unimo_errors():
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass)]
    assert len(classes) >= 8
    assert all(issubclass(item, errors.UnimoError) for item in classes)
    assert issubclass(errors.RecordError, errors.DataError)


def outcome(statement: str) -> subprocess.CompletedProcess[str]:
    code = f"from unimo import cli, errors\ndef main():\n    {statement}\ncli.run(main)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_user_errors_end_with_code_2_and_no_traceback():
    done = outcome("raise errors.DataError('no folder x; make it')")
    assert (done.returncode, done.stderr) == (2, "error: no folder x; make it\n")


def test_a_bug_keeps_its_traceback():
    done = outcome("raise KeyError('x')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_full_disk_is_not_a_bug():
    done = outcome("raise OSError(28, 'No space left on device', '/out/model')")
    assert done.returncode == 2
    assert "/out/model" in done.stderr and "Traceback" not in done.stderr


def test_success_ends_with_0():
    assert outcome("return None").returncode == 0


@pytest.mark.parametrize("kind", [errors.ConfigError, errors.DataError, errors.RecordError])
def test_no_message_is_longer_than_a_screen(kind):
    """Whatever a library says about a file of others, the beginning and the advice at the end stay."""
    text = str(kind(f"first {'x' * 10**6} last"))
    assert len(text) <= errors.LONGEST_MESSAGE and text.startswith("first x") and text.endswith("x last")
    assert str(kind("short")) == "short"
