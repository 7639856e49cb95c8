"""Pictures of segmentation: classes have colours, wrong pixels are red; the commands make their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from micro import Tool, saved
from PIL import Image

from unimo.analysis.segmentation import Example, Seen
from unimo.analysis.segmentation_page import RIGHT, WRONG, draw, make_page, shown_classes, views
from unimo.inference.class_colours import UNKNOWN, colour_of, paint

CLASSES = ["sky", "road & rail", "car", "tree"]


def example() -> Example:
    truth = np.array([[0, 1], [255, 2]], np.uint8)
    return Example("a", Image.new("RGB", (2, 2)), truth, np.array([[0, 2], [1, 2]], np.uint8))


def test_views_and_scores_of_an_example() -> None:
    seen = Seen("model", CLASSES, [example()])
    assert seen.examples[0].accuracy == pytest.approx(100 * 2 / 3)
    assert seen.ious.tolist()[:3] == pytest.approx([100.0, 0.0, 50.0]) and np.isnan(seen.ious[3])
    assert shown_classes(seen) == [0, 1, 2]
    _, truth, found, wrong = map(np.asarray, views(seen.examples[0]))
    assert truth.tolist() == [[list(colour_of(0)), list(colour_of(1))], [list(UNKNOWN), list(colour_of(2))]]
    assert (np.asarray(paint(seen.examples[0].found)) == found).all()
    assert wrong.tolist() == [[list(RIGHT), list(WRONG)], [[255, 255, 255], list(RIGHT)]]
    page = make_page(seen, "x")
    assert "road &amp; rail" in page and "50.0" in page and "tree" not in page and page.count("<img") == 4


def test_colours_of_ade20k_differ() -> None:
    assert len({colour_of(number) for number in range(150)}) == 150


def test_many_names_are_broken_into_rows() -> None:
    names = [f"class with a long name {number}" for number in range(60)]
    found = np.arange(60, dtype=np.uint8).reshape(6, 10)
    few = Seen("m", names, [Example("a", Image.new("RGB", (10, 6)), np.zeros_like(found), found * 0)])
    many = Seen("m", names, [Example("a", Image.new("RGB", (10, 6)), np.zeros_like(found), found)])
    assert draw(many).height > draw(few).height + 100 and draw(many).width == draw(few).width


def test_commands(tmp_path: Path, tool: Tool) -> None:
    model = saved("segmentation", tmp_path)
    out = tmp_path / "out"
    words = ("--model", str(model), "--queries", "2", "--out", str(out), "task.scales=multi")
    code, printed, err = tool("visualize", "segmentation", *words)
    assert code == 0, err
    assert "2 pictures; miou" in printed and str(out / "segmentation.png") in printed
    assert Image.open(out / "segmentation.png").width > 1000
    assert (out / "segmentation.html").read_text(encoding="utf8").count("<img") == 8
    Image.effect_noise((70, 50), 80).convert("RGB").save(tmp_path / "p.png")
    asked = ("--model", str(model), "--image", str(tmp_path / "p.png"), "--save", str(tmp_path / "drawn.png"))
    code, printed, err = tool("predict", *asked)
    assert code == 0 and "%" in printed, err
    drawn = np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB"))
    assert (drawn == colour_of(1)).all(axis=2).any()  # the bar of the largest class
    other = saved("vqa", tmp_path / "vqa")
    code, _, err = tool("visualize", "segmentation", "--model", str(other))
    assert code == 2 and "was trained on vqa, not on segmentation" in err and "Traceback" not in err
