"""Errors of users, one test for each kind, through the tools: one clear message, exit code 2.

Broken records do not end a run before there are too many of them; then they do.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import largest_file
from micro import Tool, saved, words
from PIL import Image, ImageFile

from unimo.weights.files import read_safetensors, write_safetensors


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_refused(result: tuple[int, str, str], *parts: str) -> None:
    """Exit code 2 and one message on standard error that says all of this."""
    code, _, err = result
    assert code == 2, err
    assert err.count("\nerror: ") + err.startswith("error: ") == 1 and "Traceback" not in err, err
    for part in parts:
        assert part in err, err


def jpeg(seed: int = 0) -> bytes:
    """A picture of noise, as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def huge_png() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in its header, and a hundred bytes of data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(90_000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def corpus(images: Mapping[str, bytes] = {}, lines: tuple[bytes, ...] = (), good: int = 10) -> Path:
    """A folder `mine` of jsonl and images: `good` sound training records and the given ones; 3 for val."""
    folder = Path("mine")
    folder.mkdir()
    files = {f"{i}.jpg": jpeg(i) for i in range(good)} | dict(images)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    rows = [json.dumps({"image": name, "text": "there is a red circle ."}).encode() for name in files]
    (folder / "train.jsonl").write_bytes(b"\n".join([*rows, *lines]) + b"\n")
    (folder / "val.jsonl").write_bytes(b"\n".join(rows[:3]) + b"\n")
    return folder


def pretrain(tool: Tool, *overrides: str) -> tuple[int, str, str]:
    """A micro pre-training run into `out`."""
    return tool("pretrain", "unimo3_tiny", *words(), "output_dir=out", *overrides)


def counts() -> dict[str, Any]:
    """Counted records of the run in `out`, which has one rank."""
    (records,) = json.loads(Path("out/summary.json").read_text())["records"]
    return records


# Two of 12 records, in two epochs.
TWO_BAD = {"read": {"mine": 24}, "bad": {"mine": 4}}


def test_unknown_recipe(tool: Tool) -> None:
    assert_refused(
        tool("pretrain", "unimo3_bsae"), "no pretrain recipe 'unimo3_bsae'", "nearest: unimo3_base"
    )


@pytest.mark.parametrize(
    ("override", "nearest"),
    [("train.max_stepz=1", "nearest: max_steps"), ("model.fusion.num_layer=1", "nearest: num_layers")],
)
def test_unknown_key(tool: Tool, override: str, nearest: str) -> None:
    assert_refused(pretrain(tool, override), f"unknown key config.{override[:-2]}", nearest)


def test_missing_folder(tool: Tool) -> None:
    assert_refused(pretrain(tool, "data.pairs=nowhere"), "no data at", "nowhere", "tools/prepare_data.py")
    assert_refused(tool("finetune", "--task", "vqa", *words(), "data.path=nowhere"), "no data at", "nowhere")
    karpathy = ("karpathy", "--annotations", "a.json", "--out", "arrows", "--images")
    assert_refused(tool("prepare_data", *karpathy, "nowhere"), "cannot read a.json")
    Path("a.json").write_text('{"images": [{"filename": "1.jpg", "split": "train", "sentences": []}]}')
    assert_refused(tool("prepare_data", *karpathy, "nowhere"), "no folder nowhere")


def test_annotations_without_images(tool: Tool) -> None:
    images = [{"filename": f"{i}.jpg", "split": "train", "sentences": [{"raw": "a dog"}]} for i in range(3)]
    Path("dataset.json").write_text(json.dumps({"images": images, "dataset": "mine"}))
    Path("images").mkdir()
    result = tool(
        "prepare_data", "karpathy", "--annotations", "dataset.json", "--images", "images", "--out", "arrows"
    )
    assert_refused(result, "annotations without images", "none of the 3", "0.jpg", "--images")
    assert not Path("arrows").exists()
    folder = corpus()
    for file in folder.glob("*.jpg"):
        file.unlink()
    assert_refused(pretrain(tool, "data.pairs=mine"), "annotations without images", "mine")


def test_truncated_jpeg_and_empty_file_are_counted_and_skipped(tool: Tool, caplog: Any) -> None:
    corpus({"cut.jpg": jpeg()[:600], "empty.jpg": b""})
    code, _, err = pretrain(tool, "data.pairs=mine", "data.max_bad_rate=0.2")
    assert code == 0, err
    assert counts() == TWO_BAD
    assert caplog.text.count("skipped mine[") == 1 and "further ones are only counted" in caplog.text


def test_too_many_broken_images_end_the_run(tool: Tool) -> None:
    corpus({"cut.jpg": jpeg()[:600], "empty.jpg": b""})
    result = pretrain(tool, "data.pairs=mine", "data.max_bad_rate=0.1", "train.max_steps=20")
    assert_refused(
        result, "17 of 104 records of mine were broken", "data.max_bad_rate=0.1", "the last one: mine[1"
    )


def test_header_of_900_million_pixels_is_not_decoded(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    corpus({"huge.png": huge_png()}, good=15)  # 16 records, two batches
    model = saved("vqa", Path("tuned"))
    result = tool("predict", "--model", model, "--image", "mine/huge.png", "--question", "what is it ?")
    assert_refused(result, "huge.png", "900000000 pixels", "89,000,000", "scale it down")
    code, _, err = pretrain(tool, "data.pairs=mine", "data.max_bad_rate=0.2", "train.max_steps=2")
    assert code == 0, err
    assert counts()["bad"] == {"mine": 1} and set(decoded) == {(64, 48)}


BAD_LINES = (b'{"image": "0.jpg", "text": "  "}', b'{"image": "1.jpg", "text": "caf\xe9"}')


def test_empty_and_non_utf8_captions_are_counted_and_skipped(tool: Tool) -> None:
    corpus(lines=BAD_LINES)
    code, _, err = pretrain(tool, "data.pairs=mine", "data.max_bad_rate=0.2")
    assert code == 0, err
    assert counts() == TWO_BAD


@pytest.mark.parametrize(
    ("line", "message"), zip(BAD_LINES, ("the text is empty", "not valid UTF-8 at byte"), strict=True)
)
def test_empty_or_non_utf8_caption_above_the_rate(tool: Tool, line: bytes, message: str) -> None:
    corpus(lines=(line,))
    where = "mine/train.jsonl, line 11"
    result = pretrain(tool, "data.pairs=mine", "train.max_steps=20")
    assert_refused(result, "records of mine were broken", "data.max_bad_rate=0.01", where, message)
    result = tool("prepare_data", "jsonl", "--input", "mine", "--out", "arrows")
    assert_refused(result, "1 of 14 samples", "--max-missing-rate", where, message)


def test_empty_question(tool: Tool) -> None:
    model, folder = saved("vqa", Path("tuned")), corpus()
    result = tool("predict", "--model", model, "--image", folder / "0.jpg", "--question", " ")
    assert_refused(result, "the text is empty; give at least one word")


def test_missing_extra_and_misshaped_tensors_are_all_named(tool: Tool) -> None:
    model = saved("vqa", Path("tuned"))
    tensors = read_safetensors(model / "model.safetensors")
    del tensors["classifier.out.bias"]
    tensors["stranger"] = np.zeros(3, np.float32)
    tensors["model.type_embedding.weight"] = np.zeros((5, 16), np.float32)
    write_safetensors(model / "model.safetensors", tensors)
    assert_refused(
        tool("evaluate", "--task", "vqa", "--model", model),
        "1 missing: classifier.out.bias; 1 extra: stranger; 1 mis-shaped: model.type_embedding.weight",
        "(file [5, 16], model [2, 16])",
        "model.name",
    )


def test_truncated_weights(tool: Tool) -> None:
    model = saved("vqa", Path("tuned"))
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    said = (str(file), "truncated", f"{file.stat().st_size} bytes", "copy it again")
    assert_refused(tool("evaluate", "--task", "vqa", "--model", model), *said)
    assert_refused(tool("finetune", "--task", "vqa", "--init", model, "train.device=cpu"), *said)


def test_full_disk_while_saving_leaves_the_previous_checkpoint(tool: Tool) -> None:
    steps = ("train.save_every=2", "train.max_steps=4", "optim.schedule=constant", "optim.warmup=1")
    assert pretrain(tool, *steps, "output_dir=whole")[0] == 0
    assert pretrain(tool, *steps, "train.max_steps=2")[0] == 0
    first = Path("out/checkpoints/step_00000002")
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    with largest_file(len(before["model.safetensors"]) // 2):
        result = pretrain(tool, *steps)
    assert_refused(
        result, "step_00000004", "File too large", "Older checkpoints are intact", "Free some space"
    )
    assert list(first.parent.iterdir()) == [first]
    assert {file.name: file.read_bytes() for file in first.iterdir()} == before
    assert pretrain(tool, *steps)[0] == 0
    assert json.loads(Path("out/summary.json").read_text())["started_from"] == f"last checkpoint {first}"
    ends = [Path(run, "model/model.safetensors").read_bytes() for run in ("out", "whole")]
    assert ends[0] == ends[1]


def test_output_folder_of_another_model(tool: Tool) -> None:
    assert pretrain(tool, "train.max_steps=1")[0] == 0
    before = Path("out/model/model.safetensors").read_bytes()
    result = tool("pretrain", "meter_tiny", *words(), "output_dir=out")
    assert_refused(
        result, "out is the output folder of another run", "'unimo3_tiny'", "'meter_tiny'", "output_dir="
    )
    assert_refused(pretrain(tool, "model.fusion.num_layers=1"), "model.fusion.num_layers is 2 there, 1 now")
    assert Path("out/model/model.safetensors").read_bytes() == before
