"""Turns, ratios and shares with fake sides; nothing is timed."""

import pytest

from unimo.benchmark import compare
from unimo.benchmark.compare import format_report, ratios, take_turns

SETTINGS = {
    "batch": {"batch_size": 4, "text_len": 10, "image_tokens": 17, "targets": 2},
    "steps": 3,
    "warmup": 1,
}


class Pretender:
    def __init__(self, name, times, log):
        self.name, self.parameters, self.library = name, 1_000_000, "pretended 1.0, more"
        self.times, self.log = iter(times), log

    def ask(self, word):
        self.log.append((self.name, word))
        return {
            "matmul": {"flops_per_second": 100.0},
            "step": {
                "seconds": next(self.times) if word == "step" else 0,
                "loss": 1.0,
                "forward": 0.25,
                "processor": 6.0 if self.name == "peer" else 4.0,
            },
            "memory": {"peak_bytes": 3_000_000_000},
        }[word]

    def close(self):
        self.log.append((self.name, "close"))


@pytest.fixture
def outcome(monkeypatch):
    monkeypatch.setattr(compare, "SETTLE", 0)
    log = []
    ours = Pretender("ours", [9.0, 1.0, 2.0, 4.0], log)
    peer = Pretender("peer", [99.0, 3.0, 5.0, 8.0], log)
    opened = [(ours, {"tower": 30, "gates": 20}), (peer, {"tower": 80})]
    figures = take_turns(opened, SETTINGS, SETTINGS["batch"])
    return log, {"settings": SETTINGS, "sides": figures, "ratios": ratios(figures)}


def test_sides_take_turns_and_each_is_first_in_turn(outcome):
    log, _ = outcome
    steps = [name for name, word in log if word == "step"]
    assert steps == ["ours", "peer", "peer", "ours", "ours", "peer", "peer", "ours"]
    assert all(log[i + 1] == (name, "step") for i, (name, word) in enumerate(log) if word == "matmul")


def test_figures(outcome):
    ours, peer = outcome[1]["sides"]
    assert ours["times"] == [1.0, 2.0, 4.0]  # the warm-up is not counted
    assert (ours["seconds_per_step"], ours["samples_per_second"], ours["text_tokens_per_second"]) == (
        2.0,
        2.0,
        20.0,
    )
    assert ours["flops_per_step"] == 50
    # 50 FLOP in 1, 2 and 4 s at 100 FLOP/s.
    assert ours["share_of_matmul_rate"] == pytest.approx(0.25)
    assert ours["seconds_of_parts"] == {"forward": 0.25, "processor": 4.0}
    assert peer["peak_bytes"] == 3_000_000_000
    # 3/1, 5/2, 8/4
    expected = {"median": 2.5, "lowest": 2.0, "highest": 3.0, "processor": 1.5}
    assert outcome[1]["ratios"] == {"peer": expected}


def test_table(outcome):
    text = format_report(outcome[1])
    assert "batch 4, 17 image tokens, 10 text tokens" in text
    assert "ours makes 2.50 times the samples/s of peer (rounds: 2.00 to 3.00)" in text
    assert "in processor time 1.50" in text
    assert "pretended 1.0" in text and "25%" in text
