"""Targets of VLMo's vision stage that frozen networks give: DALL-E's codes, and states of a tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
import yaml
from PIL import Image
from small_models import IMAGE, set_parameters
from small_vlmo import small_config

from unimo import registry
from unimo.data.images.transforms import bytes_to_pixels
from unimo.data.processor import Processor, ProcessorConfig
from unimo.data.record import Record
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import CheckpointError, ConfigError, RecordError
from unimo.models.vlmo.collate import MaskedImageCollator
from unimo.models.vlmo.config import PretrainingConfig
from unimo.models.vlmo.dvae import DvaeEncoder, load_encoder
from unimo.nn.config import ClipVisionConfig, VitConfig
from unimo.nn.towers import ClipVisionTower, VitTower
from unimo.tasks.base import to_tensors
from unimo.tasks.pretrain import PretrainTask
from unimo.weights.files import write_safetensors
from unimo.weights.layers import tensors_of

GRID, CODES = IMAGE // 8, 24
SIZES = {"hidden_size": 12, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "patch_size": 4}


def openai_shapes(hidden: int = 256, codes: int = 8192) -> dict[str, list[int]]:
    """Names and shapes of OpenAI's encoder, written out."""
    found = {"blocks.input.w": [hidden, 3, 7, 7], "blocks.input.b": [hidden]}
    inputs = {(2, 1): hidden, (3, 1): 2 * hidden, (4, 1): 4 * hidden}
    for group in range(1, 5):
        for block in (1, 2):
            wide = hidden * 2 ** (group - 1)
            narrow, first = wide // 4, inputs.get((group, block), wide)
            name = f"blocks.group_{group}.block_{block}"
            shapes = {
                "res_path.conv_1": [narrow, first, 3, 3],
                "res_path.conv_2": [narrow, narrow, 3, 3],
                "res_path.conv_3": [narrow, narrow, 3, 3],
                "res_path.conv_4": [wide, narrow, 1, 1],
            }
            if first != wide:
                shapes["id_path"] = [wide, first, 1, 1]
            for part, shape in shapes.items():
                found |= {f"{name}.{part}.w": shape, f"{name}.{part}.b": shape[:1]}
    return found | {"blocks.output.conv.w": [codes, 8 * hidden, 1, 1], "blocks.output.conv.b": [codes]}


def dvae_file(folder: Path) -> str:
    """A file of a small encoder."""
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in openai_shapes(8, CODES).items()
    }
    write_safetensors(folder / "dvae.safetensors", tensors)
    return str(folder / "dvae.safetensors")


def tower_folder(folder: Path, kind: str) -> str:
    """A folder of a small tower of 4-pixel patches, as tools/convert_checkpoint.py writes it."""
    build, config = {"vit": (VitTower, VitConfig), "clip_vit": (ClipVisionTower, ClipVisionConfig)}[kind]
    tower = build(config(**SIZES, image_size=24))
    set_parameters(tower)
    write_safetensors(folder / "model.safetensors", tensors_of(tower))
    (folder / "config.yaml").write_text(yaml.safe_dump({"tower": kind, **SIZES, "image_size": 24}))
    return str(folder)


def configured(targets: str, teacher: str) -> Any:
    return small_config(objective={"image_targets": targets, "image_teacher": teacher})


def collator(config: Any, train: bool = True, **data: Any) -> MaskedImageCollator:
    chosen = {"train_transform": "beit_crop", "eval_transform": "vit", **data}
    return MaskedImageCollator(
        Processor(load_tokenizer("scenes"), ProcessorConfig(image_size=IMAGE, **chosen)), train, config
    )


def photo() -> Image.Image:
    """A smooth picture of 90 x 60."""
    y, x = np.mgrid[0:60, 0:90]
    planes = [128 + 100 * np.sin(x / 19), 128 + 100 * np.cos(y / 17), 40 + 2 * x]
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def test_names_and_shapes_are_those_of_openai() -> None:
    with paddle.LazyGuard():  # 53.8 million numbers that nobody reads
        encoder = DvaeEncoder()
    assert {name: list(value.shape) for name, value in encoder.named_parameters()} == openai_shapes()
    assert sum(int(np.prod(shape)) for shape in openai_shapes().values()) == 53_786_240


def test_codes_of_an_encoder_in_short(tmp_path: Path) -> None:
    """Written out with one convolution after the other."""
    encoder = load_encoder(dvae_file(tmp_path))
    named = dict(encoder.named_parameters())
    assert all(parameter.stop_gradient for parameter in named.values())

    def convolve(x: paddle.Tensor, name: str) -> paddle.Tensor:
        kernel = named[f"{name}.w"]
        return F.conv2d(x, kernel, named[f"{name}.b"], padding=(kernel.shape[2] - 1) // 2)

    pixels = paddle.to_tensor(np.random.default_rng(1).uniform(size=(2, 3, 32, 32)).astype("float32"))
    x = convolve(0.8 * pixels + 0.1, "blocks.input")
    for group in range(1, 5):
        for block in (1, 2):
            name, inner = f"blocks.group_{group}.block_{block}", x
            for number in range(1, 5):
                inner = convolve(F.relu(inner), f"{name}.res_path.conv_{number}")
            x = (convolve(x, f"{name}.id_path") if f"{name}.id_path.w" in named else x) + inner / 64
        x = F.max_pool2d(x, 2) if group < 4 else x
    logits = convolve(F.relu(x), "blocks.output.conv")
    np.testing.assert_allclose(encoder.logits(pixels), logits, rtol=1e-4, atol=1e-4)
    codes = encoder(pixels)
    assert codes.shape == [2, 16] and len(np.unique(codes.numpy())) > 1
    assert int(codes[1, 6]) == int(logits[1, :, 1, 2].argmax())


@pytest.mark.parametrize(("targets", "side"), [("dvae", 8), ("vit", 4), ("clip_vit", 4)])
@pytest.mark.parametrize("train", [True, False])
def test_a_teacher_reads_the_same_part_of_the_image(
    targets: str, side: int, train: bool, tmp_path: Path
) -> None:
    is_dvae = targets == "dvae"
    teacher = dvae_file(tmp_path) if is_dvae else tower_folder(tmp_path, targets)
    maker = collator(configured("dvae" if is_dvae else "features", teacher), train)
    size = side * GRID
    for seed in range(5):
        made = maker.prepare(Record("0", "", images=(photo(),)), np.random.default_rng(seed))
        own = (made["pixels"] + 1) / 2
        scale, shift = (1 / 255, 0) if is_dvae else bytes_to_pixels({"clip_vit": "clip"}.get(targets, "vit"))
        other = (made["target"] - shift) / scale / 255
        assert other.shape == (3, size, size) and -0.01 <= other.min() and other.max() <= 1.01
        coarse = [x.reshape(3, GRID, x.shape[1] // GRID, GRID, -1).mean((2, 4)) for x in (own, other)]
        np.testing.assert_allclose(*coarse, atol=0.04)
    plain = collator(small_config(), train).prepare(
        Record("0", "", images=(photo(),)), np.random.default_rng(4)
    )
    np.testing.assert_array_equal(plain["pixels"], made["pixels"])


@pytest.mark.parametrize("kind", ["dvae", "vit", "clip_vit"])
def test_learning_from_a_teacher(kind: str, tmp_path: Path) -> None:
    """It is no part of the weights, and its loss falls."""
    teacher = dvae_file(tmp_path) if kind == "dvae" else tower_folder(tmp_path, kind)
    config = configured("dvae" if kind == "dvae" else "features", teacher)
    task = PretrainTask(registry.build_model(config), PretrainingConfig(stage="vision"))
    assert not [name for name, _ in task.named_parameters() if "encoder" in name or "tower" in name]
    maker, rng = collator(config), np.random.default_rng(0)
    batch = to_tensors(
        maker.collate([maker.prepare(Record("0", "", images=(photo(),)), rng) for _ in range(4)], rng)
    )
    targets = task.objective.masked_images.targets.of(batch)
    assert targets.shape == ([4, GRID**2] if kind == "dvae" else [4, GRID**2, 12])
    optimizer = paddle.optimizer.AdamW(1e-2, parameters=[p for p in task.parameters() if not p.stop_gradient])
    values = []
    for _ in range(25):
        losses, report = task.losses(batch)
        losses["mim"].backward()
        optimizer.step()
        optimizer.clear_grad()
        values.append(float(losses["mim"]))
    assert values[-1] < 0.7 * values[0]
    assert list(report) == (["mim_accuracy"] if kind == "dvae" else [])
    metric = task.new_metric()
    metric.update(task.predict(batch), batch)
    assert metric.compute().keys() == {"mim_loss", *report}


def test_missing_and_wrong_teachers_are_refused(tmp_path: Path) -> None:
    for targets in ("dvae", "features"):
        with pytest.raises(ConfigError, match=f"image_targets={targets} needs weights.*image_teacher"):
            configured(targets, "")
    with pytest.raises(ConfigError, match="not read with"):
        configured("pixels", "dvae.safetensors")
    with pytest.raises(ConfigError, match="no folder of a vision tower.*convert_checkpoint"):
        collator(configured("features", str(tmp_path)))
    write_safetensors(tmp_path / "other.safetensors", {"a": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"OpenAI's names.*found a"):
        load_encoder(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="No such file"):
        load_encoder(tmp_path / "nothing.safetensors")


def test_transforms_that_show_a_teacher_another_image_are_refused(tmp_path: Path) -> None:
    config = configured("dvae", dvae_file(tmp_path))
    with pytest.raises(ConfigError, match=r"vit_randaug distorts.*beit_crop"):
        collator(config, train_transform="vit_randaug")
    collator(config, train=False, train_transform="vit_randaug")


def test_records_without_an_image_are_broken() -> None:
    with pytest.raises(RecordError, match="sample 7 has no image"):
        collator(small_config()).prepare(Record("7", "a text"), np.random.default_rng(0))
