"""Released weights of VLMo: every name and shape of the three sizes, both ways, and what is not whole."""

from __future__ import annotations

from math import prod

import numpy as np
import paddle
import pytest
from vlmo_names import random_file, released_shapes, task_shapes

from unimo import registry
from unimo.config import merge_into
from unimo.errors import CheckpointError, ConfigError
from unimo.models.vlmo import SIZES
from unimo.models.vlmo.convert import BUFFERS, from_release, rows_of, to_release
from unimo.models.vlmo.pretrain import Objective
from unimo.nn.relative_position import image_index
from unimo.tasks.pretrain import PretrainTask
from unimo.weights.layers import load_into, tensors_of

RELEASED = {
    "vlmo_base": (released_shapes(768, 12, 12, 10, relative=True), 202_445_470),
    "vlmo_base_plus": (released_shapes(544, 24, 16, 21, relative=False), 184_980_734),
    "vlmo_large": (released_shapes(1024, 24, 16, 21, relative=True), 599_127_102),
}
SMALL = released_shapes(32, 3, 2, 2, relative=True, words=50)


@pytest.mark.parametrize("name", RELEASED)
def test_every_name_and_shape_of_the_release_is_one_of_ours(name: str) -> None:
    shapes, parameters = RELEASED[name]
    assert sum(map(prod, shapes.values())) == parameters
    empty = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    rows, absent = rows_of(empty, "pretrain")
    assert absent == ()
    theirs = [other for row in rows for other in row.theirs]
    assert sorted(theirs) == sorted(shapes)
    assert len({row.ours for row in rows}) == len(rows)


@pytest.mark.parametrize("name", ["vlmo_base", "vlmo_base_plus"])
def test_sizes_follow_from_shapes(name: str) -> None:
    shapes, _ = RELEASED[name]
    found = from_release({key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()})
    assert found.config == SIZES[name]
    assert found.data["image_size"] == 224 and found.data["max_text_len"] == 40


def small_task(tensors: dict[str, np.ndarray]) -> tuple[PretrainTask, dict[str, np.ndarray]]:
    converted = from_release(tensors)
    task = PretrainTask(registry.build_model(converted.config), registry.task_config("pretrain", "vlmo_tiny"))
    return task, converted.tensors


@pytest.mark.parametrize("relative", [True, False])
def test_a_file_goes_both_ways_bit_by_bit(relative: bool) -> None:
    if relative:
        tensors = random_file(SMALL)
    else:
        shapes = released_shapes(544, 1, 16, 0, relative=False, words=50)
        tensors = random_file(shapes)
    converted = from_release(tensors)
    back = to_release(converted.tensors)
    assert back.keys() == tensors.keys() - set(BUFFERS)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)


def test_converted_tensors_fill_model_and_objective() -> None:
    task, tensors = small_task(random_file(SMALL))
    state = task.state_dict()
    assert state.keys() == tensors.keys()
    assert all(list(state[name].shape) == list(tensor.shape) for name, tensor in tensors.items())


def test_numbers_of_a_converted_block_are_those_of_the_release() -> None:
    """One block as the release computes it, from its own tensors in NumPy."""
    theirs = random_file(SMALL)
    task, ours = small_task(theirs)
    for name, parameter in task.state_dict().items():
        parameter.set_value(ours[name])
    task.eval()
    model = task.model
    states = np.random.default_rng(1).normal(size=(1, 197, 32)).astype("float32")
    bias = model.relative_positions(0, True)[1]
    found, _ = model.blocks[1](paddle.to_tensor(states), bias, {"image": 197})

    block = {n.removeprefix("transformer.blocks.1."): x for n, x in theirs.items() if "blocks.1." in n}

    def norm(x: np.ndarray, layer: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * block[f"{layer}.weight"] + block[f"{layer}.bias"]

    packed = norm(states, "norm1") @ block["attn.qkv.weight"].T
    packed += np.concatenate([block["attn.q_bias"], np.zeros(32), block["attn.v_bias"]])
    query, key, value = packed.reshape(1, 197, 3, 2, 16).transpose(2, 0, 3, 1, 4)
    columns = theirs["relative_position_bias_table"][:, 2:4]  # heads of the second block
    logits = (query * 16**-0.5) @ key.transpose(0, 1, 3, 2) + columns[image_index(14)].transpose(2, 0, 1)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ value
    mixed = mixed.transpose(0, 2, 1, 3).reshape(1, 197, 32) @ block["attn.proj.weight"].T
    first = states + block["gamma_1"] * (mixed + block["attn.proj.bias"])
    inner = norm(first, "norm2_imag") @ block["mlp_imag.fc1.weight"].T + block["mlp_imag.fc1.bias"]
    inner = paddle.nn.functional.gelu(paddle.to_tensor(inner.astype("float32"))).numpy()
    second = inner @ block["mlp_imag.fc2.weight"].T + block["mlp_imag.fc2.bias"]
    np.testing.assert_allclose(found.numpy(), first + block["gamma_2"] * second, atol=1e-5)


def test_a_file_of_the_language_stage_lacks_heads() -> None:
    tensors = {n: x for n, x in random_file(SMALL).items() if not n.startswith(("itc_", "itm_", "logit_"))}
    found = from_release(tensors)
    assert "objective.itm_head" in found.absent and "objective.mlm_head" not in found.absent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("pooler.dense.bias"), "1 missing: pooler.dense.bias"),
        (lambda t: t.update(extra=np.zeros(1)), "1 unknown: extra"),
        (lambda t: t.update({"transformer.norm.bias": np.zeros(31)}), "1 mis-shaped: transformer.norm.bias"),
        (lambda t: t.clear(), "not a release of VLMo"),
    ],
)
def test_what_is_not_whole_is_named(change: object, message: str) -> None:
    tensors = random_file(SMALL)
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        from_release(tensors)


def test_tasks_without_released_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="known: pretrain, vqa"):
        from_release(random_file(SMALL), task="caption")


def test_counts_with_heads() -> None:
    """MLM, ITM, four projections of both contrasts, and two scales."""
    config = SIZES["vlmo_tiny"]
    objective, width = Objective(config), config.hidden_size
    words = config.text.vocab_size
    mlm = width**2 + 3 * width + width * words + words
    assert sum(p.size for p in objective.parameters()) == mlm + 2 * width + 2 + 4 * width**2 + 2


FINE_TUNED = {
    "stage2": (14, 0, 190_756_506),
    "vqa": (30, 3129, 182_410_905),
    "nlvr2": (24, 2, 178_601_954),
    "retrieval": (24, 0, 177_413_857),
}
"""Kind of file -> patches along a side, classes, and parameters of base."""


@pytest.mark.parametrize("kind", FINE_TUNED)
def test_every_name_and_shape_of_other_files_is_one_of_ours(kind: str) -> None:
    side, classes, parameters = FINE_TUNED[kind]
    shapes = task_shapes(kind, RELEASED["vlmo_base"][0], side, classes)
    assert sum(map(prod, shapes.values())) == parameters
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    task = "pretrain" if kind == "stage2" else kind
    rows, _ = rows_of(empty, task)
    assert sorted(name for row in rows for name in row.theirs) == sorted(shapes)
    found = from_release(empty, task=task)
    assert found.data["image_size"] == 16 * side and found.classes == (classes if kind == "vqa" else 0)


@pytest.mark.parametrize("kind", ["vqa", "nlvr2", "retrieval"])
def test_fine_tuned_files_fill_the_task_and_go_back_bit_by_bit(kind: str) -> None:
    tensors = random_file(task_shapes(kind, SMALL, 14, 5 if kind == "vqa" else 2))
    converted = from_release(tensors, task=kind)
    assert converted.config.vision.types == (2 if kind == "nlvr2" else 1)
    fields = {"name": kind} if kind == "retrieval" else {"name": kind, "head_hidden_multiplier": 2.0}
    assert converted.task == fields
    config = merge_into(registry.task_config(kind, "vlmo_base"), fields, "task")
    metadata = {"answers": list("abcde")}
    task = registry.task_class(kind).create(registry.build_model(converted.config), config, metadata)
    load_into(task, converted.tensors, "here")
    back = to_release(tensors_of(task), kind)
    assert back.keys() == tensors.keys() - set(BUFFERS)
    assert all(np.array_equal(back[name], tensors[name]) for name in back)
