"""The tables of released weights on the papers' pages: commands convert, scores are the cards'."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from unimo.errors import CheckpointError
from unimo.inference.release import releases
from unimo.weights.cards import cards
from unimo.weights.huggingface import SOURCES

NUMBER = re.compile(r"\d+\.\d+")
HEADER = "| released weights | command | paper's score | what differs |"
PAGES = {path.stem: path for path in sorted((Path(__file__).parents[3] / "docs/papers").glob("*.md"))}
PAPERS = ["semvlp", "unimo", "unimo2", "unimo3", "vlmo"]


def table(name: str) -> list[list[str]]:
    text = PAGES[name].read_text(encoding="utf8")
    assert text.count(HEADER) == 1
    lines = text.partition(HEADER)[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("name", PAPERS)
def test_each_row_has_a_command_that_converts(name: str) -> None:
    for weights, command, score, differs in table(name):
        words = shlex.split(command.strip("`"))
        assert words[:2] == ["python", "tools/convert_checkpoint.py"] and weights and score and differs
        options = dict(zip(words[2::2], words[3::2], strict=False))
        kind, task = options["--from"], options.get("--task", "pretrain")
        assert ("--answers" in options) is (task == "vqa") and {"--input", "--out"} <= options.keys()
        if kind in SOURCES:
            assert "--tokenizer" not in options
            continue
        assert releases()[kind].name == name and "--tokenizer" in options
        with pytest.raises(CheckpointError):  # an unknown task would be a ConfigError
            releases()[kind].converters[kind]({}, "the file", task, {})


def test_scores_are_those_of_the_cards() -> None:
    for card in cards().values():
        if card.converter in releases() and card.part == "model":
            told = {
                float(n) for row in table(releases()[card.converter].name) for n in NUMBER.findall(row[2])
            }
            for number in NUMBER.findall(" ".join(card.scores.values())):
                digits = len(number.partition(".")[2])  # a card may round
                assert any(f"{one:.{digits}f}" == number for one in told), (card.name, number)
