"""Texts, paths and ids: the one place that decides what they are."""

import pytest

from unimo.data.checks import check_id, check_path, check_text
from unimo.errors import RecordError

NAN = float("nan")


@pytest.mark.parametrize("value", ["None", "nan", "5", "['x']", "犬", "🐕", "a\u200bb", "\ufeffa", "é"])
def test_whatever_is_spelled_out_is_a_text(value):
    assert check_text(value) == value


def test_blanks_around_a_text_are_no_part_of_it():
    assert check_text(" \ta dog\u00a0\n") == "a dog"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *(
            (value, "expected a text, found")
            for value in (None, NAN, 5, 0.5, True, b"x", ["x"], {"a": 1}, ())
        ),
        *(
            (value, "the text is empty")
            for value in ("", " ", "\n\t", "\u00a0", "\u200b", "\ufeff\u200d", "\x1f")
        ),
        *((value, "not UTF-8") for value in ("half \ud83d", "\udc80", "caf\udce9")),
        ("a\0b", "NUL"),
    ],
)
def test_nothing_else_is(value, message):
    with pytest.raises(RecordError, match=f"here: {message}|here: the text (is|has a) {message}"):
        check_text(value, "here")


@pytest.mark.parametrize("value", ["a.jpg", " a .jpg", "a/b/c", "é.jpg", "caf\udce9.jpg", "."])
def test_paths_that_a_file_can_have(value):
    assert check_path(value, "here") == value


@pytest.mark.parametrize("value", [None, NAN, 5, ["a.jpg"], "", "a\0.jpg", "\ud83d.jpg", b"a.jpg", True])
def test_paths_that_no_file_can_have(value):
    with pytest.raises(RecordError, match="here: "):
        check_path(value, "here")


@pytest.mark.parametrize(("value", "expected"), [("a", "a"), (5, 5), (5.0, 5), (-1, -1), ("5", "5"), (0, 0)])
def test_ids(value, expected):
    found = check_id(value, "here")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    "value", [None, NAN, float("inf"), 0.5, True, ["a"], {}, "", "\0", "\ud83d", 10**4000]
)
def test_what_is_no_id(value):
    with pytest.raises(RecordError, match="here: "):
        check_id(value, "here")
