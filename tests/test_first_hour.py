"""The first page, typed into a clean clone with an environment of its own, trainings cut to a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from first_hour import first_hour, sections, typed


@pytest.mark.slow
def test_the_first_page_succeeds_as_typed(tmp_path: Path) -> None:
    done = first_hour(tmp_path, short=True, network=False)
    failed = [f"$ {one.command}\n{one.shown[-2000:]}" for one in done if one.code]
    assert not failed, "\n".join(failed)


def test_sections_have_commands_and_their_order_is_that_of_a_first_hour() -> None:
    names = [name for name, _ in sections()]
    wanted = ["Install", "First result", "Your own pictures", "Weights you have", "A million photos"]
    assert names == wanted


def test_first_output_and_end_are_timed_in_a_terminal(tmp_path: Path) -> None:
    first, last, code, shown = typed("sleep 0.3; test -t 1 && echo a; sleep 0.5; echo b; exit 3", tmp_path)
    assert 0.25 < first < 0.75 and first + 0.4 < last and code == 3
    assert shown.split() == ["a", "b"]
    first, last, code, shown = typed("sleep 0.2", tmp_path)
    assert first == last and code == 0 and shown == ""
