"""Mistakes with segmentation: unsound maps of ADE20K, tables without names, settings that do not fit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from micro import words
from PIL import Image

from unimo.data.prepare.writer import SCHEMAS, ArrowWriter

SEGMENT = ["--task", "segmentation", "--init", "none", *words()]


def write_pixels(folder: Path) -> None:
    """A layout of ADE20K whose maps are too small, and a table with maps of 16 bits."""
    for place in ("training", "validation"):
        for kind, size, ending in (("images", 8, "jpg"), ("annotations", 6, "png")):
            (folder / "ade" / kind / place).mkdir(parents=True)
            Image.new("L", (size, size), 1).save(folder / "ade" / kind / place / f"a.{ending}")
    (folder / "ade/objectInfo150.txt").write_text("Idx\tName\n1\twall\n2\tsky\n")
    buffers = [io.BytesIO(), io.BytesIO()]
    for buffer, numbers in zip(buffers, (np.uint8, np.uint16), strict=True):
        Image.fromarray(np.ones((32, 32), numbers)).save(buffer, "PNG")
    image, wide = (buffer.getvalue() for buffer in buffers)
    for name in ("wide_maps", "no_names"):
        with ArrowWriter(folder / name, "own_train", SCHEMAS["segmentation"]) as writer:
            writer.write({"image": image, "class_map": wide, "image_id": "a"})
    (folder / "wide_maps/classes.json").write_text('["wall", "sky"]')


MISTAKES_OF_PIXELS: list[tuple[str, list[str], str]] = [
    (
        "prepare_data",
        ["ade20k", "--input", "ade", "--out", "made"],
        "the map is 6 x 6 pixels, its picture 8 x 8",
    ),
    (
        "prepare_data",
        ["ade20k", "--input", "tuned", "--out", "made"],
        "objectInfo150.txt; expected ADEChallenge",
    ),
    *[
        ("finetune", [*SEGMENT, *more], said)
        for more, said in (
            (["data.path=no_names"], "no file classes.json in no_names"),
            (["data.path=wide_maps", "output_dir=wide"], "expected one number of 8 bits"),
            (["task.layers=[1,2]"], "task.layers [1, 2]: expected four rising numbers"),
            (["task.layers=[1,1,2,9]"], "unimo3_tiny has 2 layers"),
            (["task.scales=many"], "task.scales: 'many' is not one of single, multi"),
            (["--model", "semvlp_tiny"], "segmentation"),
        )
    ],
    ("evaluate", ["--task", "segmentation", "--model", "tuned"], "was trained on 'vqa'"),
    ("visualize", ["segmentation", "--model", "tuned"], "was trained on vqa, not on segmentation"),
]
"""As `MISTAKES` of `mistakes.py`."""
