"""Counted FLOPs of the three kinds of attention, and the command that measures them, at the smallest size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unimo.benchmark import compare, fusion
from unimo.benchmark.compare import doubts
from unimo.benchmark.fusion import FusionStep
from unimo.registry import model_config


def test_logits_are_those_of_fig_2():
    grounded, full, one_to_one = fusion.variants(model_config("unimo2_base"), image=197, text=50)
    # Image rows attend to image + grounded, text rows to text + grounded, grounded rows to all.
    assert grounded.logits(197, 50) == 197 * 297 + 50 * 150 + 100 * 347 == 100_709
    assert full.logits(197, 50) == 347**2
    assert one_to_one.grounded == 196 + 49
    assert one_to_one.logits(197, 50) == 197 * (197 + 245) + 50 * (50 + 245) + 245 * 492


def test_counted_work():
    variant = fusion.Variant("grounded", "grounded", 8)
    parts = variant.count(model_config("unimo2_tiny"), image=17, text=10, layers=2, batch_size=3)
    # 35 rows of width 64, inner 256: 12 W^2 weights, 2 FLOPs each; three passes, two layers, three samples.
    assert parts["linear"] == 3 * 2 * 3 * 35 * 2 * 12 * 64**2
    assert parts["attention"] == 3 * 2 * 3 * 4 * 64 * (17 * 25 + 10 * 18 + 8 * 35)


def test_counted_ratios_of_the_paper_sizes():
    """Grounded attention saves little of a layer; the 1-to-1 map costs rows, and so work everywhere."""
    config = model_config("unimo2_base")
    token, pair = 2 * 12 * 768**2, 4 * 768  # FLOPs of one row's products, and of one logit with its sum
    # Rows and logits of 197 and 577 image tokens, by hand.
    work = {
        197: [(347, 100_709), (347, 120_409), (492, 222_364)],
        577: [(727, 470_829), (727, 528_529), (1252, 1_509_804)],
    }
    for image, expected in work.items():
        counts = [v.count(config, image, 50, 3, 2) for v in fusion.variants(config, image, 50)]
        assert [sum(parts.values()) for parts in counts] == [
            3 * 3 * 2 * (rows * token + logits * pair) for rows, logits in expected
        ]
    # 224 px: 1.2% more operations with full attention, 46% more with the 1-to-1 map.
    totals = [rows * token + logits * pair for rows, logits in work[197]]
    assert [total / totals[0] for total in totals[1:]] == pytest.approx([1.0116, 1.4647], abs=1e-4)


def rows_that_change(step):
    """Return the rows of one layer's output that depend on the last text row of the input."""
    step.transformer.eval()
    image, grounded, text = (states.detach() for states in step.inputs)
    other = text.clone()
    other[:, -1] = other[:, -1] + 1.0
    outputs = [
        step.transformer(step.transformer.join(image, grounded, t), step.views)[0] for t in (text, other)
    ]
    return np.flatnonzero(np.abs((outputs[0] - outputs[1]).numpy()).max(axis=(0, 2)) > 1e-6).tolist()


def test_steps_differ_in_what_image_rows_read():
    sizes = {"batch_size": 2, "image_tokens": 5, "text_len": 3}
    for visibility, expected in (("grounded", range(5, 10)), ("full", range(10))):
        step = FusionStep({"name": "unimo2_tiny"}, sizes, layers=1, grounded=2, visibility=visibility)
        answer = step()
        assert np.isfinite(answer["loss"]) and answer["attention"] > 0
        assert answer["seconds"] == pytest.approx(answer["forward"] + answer["backward"])
        assert all(parameter.grad is not None for parameter in step.transformer.parameters())
        assert rows_that_change(step) == list(expected)


def run_tool(*words):
    root = Path(__file__).resolve().parents[3]
    return subprocess.run(
        [sys.executable, "tools/benchmark.py", *words], cwd=root, capture_output=True, text=True
    )


class InThisProcess:
    """A side in the same process."""

    def __init__(self, model, request, threads):
        self.step = FusionStep(model, request["batch"], **request["fusion"])
        self.name, self.library, self.parameters = model["name"], "paddle", self.step.parameters
        self.grounded = request["fusion"]["grounded"]

    def ask(self, word):
        return {
            "matmul": lambda: {"flops_per_second": 1e9},
            "step": self.step,
            "memory": lambda: {"peak_bytes": 10**9 * (1 + self.grounded), "resting_bytes": 10**9},
        }[word]()

    def close(self):
        pass


def test_a_batch_without_padding_is_timed_without_masks():
    """A mask of ones would cost full attention only: 24 x 24 logits, none of the image rows here."""
    sizes = {"batch_size": 2, "image_tokens": 17, "text_len": 5}
    for visibility, masked in (("grounded", [False, True, True]), ("full", [True])):
        step = FusionStep({"name": "unimo2_tiny"}, sizes, layers=1, grounded=2, visibility=visibility)
        assert all(view.mask is None for view in step.views)
        assert [view.mask is not None for view in step.masked_views] == masked


def test_a_busy_machine_is_named():
    sides = [{"matmul_flops_per_second": rate * 1e9} for rate in (110, 68, 54)]
    assert "NOT QUIET: products alone ran at 54 to 110 GFLOP/s" in doubts(sides)[0]
    assert doubts([{"matmul_flops_per_second": rate * 1e9} for rate in (100, 95)]) == []


def test_kinds_take_turns_and_their_figures_stand_side_by_side(monkeypatch):
    monkeypatch.setattr(fusion, "own_side", InThisProcess)
    monkeypatch.setattr(compare, "SETTLE", 0)
    settings = {
        "batch": {"batch_size": 2, "text_len": 6},
        "matmul": {},
        "threads": 1,
        "steps": 2,
        "warmup": 1,
    }
    content = fusion.measure(model_config("unimo2_tiny"), settings, layers=1, image_sizes=(64, 96))
    assert [(size["image_size"], size["image_tokens"]) for size in content["sizes"]] == [(64, 17), (96, 37)]
    sides = content["sizes"][0]["variants"]
    assert [(side["name"], side["grounded_tokens"], side["rows"]) for side in sides] == [
        ("grounded", 8, 31),
        ("full pairwise", 8, 31),
        ("1-to-1 map", 21, 44),
    ]
    assert [side["step_bytes"] for side in sides] == [8 * 10**9, 8 * 10**9, 21 * 10**9]
    ratio = content["sizes"][0]["time_ratios"][1]
    each = [b / a for a, b in zip(sides[0]["times"], sides[2]["times"], strict=True)]
    assert (ratio["lowest"], ratio["highest"]) == (min(each), max(each))
    text = fusion.format_report(content)
    assert "unimo2_tiny: 1 of its 2 layers, forward and backward, batch 2" in text
    memory = next(line for line in text.splitlines() if line.startswith("memory a step adds, measured"))
    assert memory.split()[-2:] == ["1.00", "2.62"]
    counted = next(line for line in text.splitlines() if line.startswith("operations, counted"))
    token, pair = 2 * 12 * 64**2, 4 * 64
    expected = [(31 * token + 31**2 * pair), (44 * token + (17 * 38 + 6 * 27 + 21 * 44) * pair)]
    grounded = 31 * token + (17 * 25 + 6 * 14 + 8 * 31) * pair
    assert counted.split()[-2:] == [f"{work / grounded:.2f}" for work in expected]


@pytest.mark.slow
def test_command_reports_both_sizes_and_three_kinds(tmp_path):
    out = tmp_path / "b.json"
    words = "train --model unimo2_tiny --steps 1 --threads 1 --text-len 8 --layers 1".split()
    done = run_tool(*words, "--matmul-seconds", "0.01", "--out", str(out))
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert [size["image_size"] for size in content["sizes"]] == [224, 384]
    for size in content["sizes"]:
        names = [side["name"] for side in size["variants"]]
        assert names == ["grounded", "full pairwise", "1-to-1 map"]
        assert size["image_tokens"] == (size["image_size"] // 16) ** 2 + 1
        assert all(side["step_bytes"] >= 0 and side["seconds_per_step"] > 0 for side in size["variants"])
        assert len(size["time_ratios"]) == 2
    assert "1 of its 2 layers" in done.stdout and "operations, counted" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --model unimo2_tiny --model unimo3_tiny", "only --model"),
        ("train --model unimo2_tiny --layers 3", "--layers is 3, expected 1 to the 2"),
    ],
)
def test_command_refuses_with_one_message(words, message):
    done = run_tool(*words.split())
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
