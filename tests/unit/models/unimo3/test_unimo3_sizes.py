"""Parameter counts of all sizes: the numbers that the papers' released files and our reading give."""

import numpy as np
import paddle
import pytest

import unimo
from unimo.models.unimo3.pretrain import Objective
from unimo.registry import list_models, model_config


def _count(layer: paddle.nn.Layer) -> int:
    return sum(int(np.prod(parameter.shape)) for parameter in layer.parameters())


def _size(name: str, **overrides) -> int:
    with paddle.LazyGuard():  # shapes without memory
        return _count(unimo.create_model(name, **overrides))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unimo3_base", 333_335_808),
        ("bridgetower_base", 326_248_704),
        ("meter_base", 319_142_400),
        ("unimo3_base_d", 329_783_040),
        ("unimo3_base_d1", 327_414_528),
        ("unimo3_large", 877_109_248),
        ("bridgetower_large", 864_514_048),
    ],
)
def test_count_without_heads(name: str, expected: int):
    assert _size(name) == expected


@pytest.mark.parametrize(("image_size", "more"), [(288, 98_304), (384, 291_840), (576, 844_800)])
def test_count_grows_by_position_rows(image_size: int, more: int):
    assert _size("unimo3_base", vision={"image_size": image_size}) == 333_335_808 + more


@pytest.mark.parametrize(
    ("name", "expected"),
    [("unimo3_base", 372_584_795), ("bridgetower_base", 365_497_691), ("unimo3_large", 929_686_619)],
)
def test_count_with_pretraining_heads(name: str, expected: int):
    with paddle.LazyGuard():
        heads = _count(Objective(model_config(name)))
    assert _size(name) + heads == expected


def test_parts_of_the_base_model():
    with paddle.LazyGuard():
        model = unimo.create_model("unimo3_base")
    assert _count(model.text) == 124_645_632
    assert _count(model.vision) == 85_799_424
    assert _count(model.text.pooler) == 590_592
    assert _count(model.fusion.text_layers[0]) == 9_451_776
    assert _count(model.fusion.text_links) + _count(model.fusion.image_links) == 7_087_104 + 18_432


def test_without_the_unused_pooler():
    assert _size("unimo3_base", text={"pooler": False}) == 333_335_808 - 590_592


def test_every_tiny_size_is_registered():
    assert {"unimo3_tiny", "meter_tiny", "bridgetower_tiny", "unimo3_tiny_d"} <= set(list_models())
