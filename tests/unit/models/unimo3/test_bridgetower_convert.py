"""Released weights of METER and BridgeTower: every name and shape, both ways, and what is not whole."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np
import pytest
from bridgetower_names import Shapes, classifier, contrast, leftovers, ranking, released_shapes

from unimo.config import merge_into
from unimo.errors import CheckpointError, ConfigError
from unimo.models.unimo3 import PAPER
from unimo.models.unimo3.convert import BRIDGETOWER, HF_BRIDGETOWER, METER, to_release
from unimo.registry import build_model, task_class, task_config
from unimo.weights.name_map import Converted

RELEASES = {"meter": METER, "bridgetower": BRIDGETOWER, "hf-bridgetower": HF_BRIDGETOWER}
# Parameters of the networks, without heads, as METER and BridgeTower count them.
SIZES = {
    ("meter", 768, 12, 14, 16): 319_142_400,
    ("meter", 768, 12, 18, 16): 319_240_704,
    ("bridgetower", 768, 12, 14, 16): 326_248_704,
    ("bridgetower", 768, 12, 18, 16): 326_347_008,
    ("bridgetower", 1024, 24, 21, 14): 864_514_048,
    ("hf-bridgetower", 768, 12, 18, 16): 326_347_008,
    ("hf-bridgetower", 1024, 24, 21, 14): 864_514_048,
}
# The same with the heads of pre-training, and what else is in the file.
FILES = {
    ("meter", 14): 358_431_835,
    ("meter", 18): 358_530_139,
    ("bridgetower", 14): 365_538_140,
    ("bridgetower", 18): 365_636_444,
}


def tensors_of(shapes: Shapes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def small(kind: str, types: int = 2, has_heads: bool = True) -> dict[str, np.ndarray]:
    sizes = {"patch": 4, "words": 60, "types": types, "has_heads": has_heads}
    return tensors_of(released_shapes(kind, 64, 3, 2, 2, **sizes))


@pytest.mark.parametrize("case", SIZES, ids=str)
def test_published_shapes_are_the_published_sizes(
    case: tuple[str, int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, width, depth, grid, patch = case
    shapes = released_shapes(kind, width, depth, 6, grid, patch=patch, has_heads=False)
    assert sum(map(prod, shapes.values())) == SIZES[case]
    # Nothing is allocated: only shapes are looked at.
    monkeypatch.setattr("unimo.weights.released.join", lambda entry, theirs: entry)
    found = PAPER.converters[kind]({name: np.broadcast_to(np.float32(0), s) for name, s in shapes.items()})
    assert sorted(name for entry in found.tensors.values() for name in entry.theirs) == sorted(shapes)
    config = found.config
    assert (config.vision.image_size, config.text.num_heads) == (grid * patch, width // 64)
    if config.vision.image_size == PAPER.sizes[config.name].vision.image_size and kind != "hf-bridgetower":
        assert config == PAPER.sizes[config.name]


@pytest.mark.parametrize("kind", RELEASES)
def test_a_file_of_pretraining_goes_both_ways_bit_by_bit_and_fills_the_model(kind: str) -> None:
    tensors = small(kind)
    buffers = {
        "vit_model.positional_embedding": np.zeros((77, 8)),
        "text_transformer.embeddings.position_ids": np.zeros(1),
    }
    prefix = "bridgetower." if kind == "hf-bridgetower" else ""
    named = {n if n.startswith(("mlm_", "itm_")) else prefix + n: x for n, x in tensors.items()}
    found = PAPER.converters[kind](named | buffers)
    back = to_release(RELEASES[kind], found.tensors)
    assert back.keys() == tensors.keys() and found.absent == ()
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)
    options = task_config("pretrain", found.config.name)
    state = task_class("pretrain").create(build_model(found.config), options, {}).state_dict()
    assert {n: tuple(x.shape) for n, x in state.items()} == {n: x.shape for n, x in found.tensors.items()}


@pytest.mark.parametrize("case", FILES, ids=str)
def test_published_files_are_of_the_published_size(case: tuple[str, int]) -> None:
    kind, grid = case
    shapes = released_shapes(kind, grid=grid) | leftovers(kind)
    assert sum(map(prod, shapes.values())) == FILES[case]


HEADS = {
    "vqa": ("vqa_classifier", 128, 7),
    "nlvr2": ("nlvr2_classifier", 256, 2),
    "entailment": ("snli_classifier", 128, 3),
}


@pytest.mark.parametrize("kind", ["meter", "bridgetower"])
@pytest.mark.parametrize("task", HEADS)
def test_fine_tuned_files(kind: str, task: str) -> None:
    head, pooled, classes = HEADS[task]
    types = 3 if task == "nlvr2" else 2
    tensors = small(kind, types, has_heads=False) | tensors_of(
        classifier(head, pooled, 96, classes) | leftovers(kind)
    )
    found = PAPER.converters[kind](tensors, "the file", task)
    assert found.task == {"name": task, "head_hidden_multiplier": 1.5}
    assert found.classes == (7 if task == "vqa" else 0)
    assert found.config.vision.types == types - 1
    assert_same(to_release(RELEASES[kind], found.tensors, task), tensors, leftovers(kind))
    assert_filled(found, {"answers": list("abcdefg")})


def assert_same(found: dict, expected: dict, without: Iterable[str]) -> None:
    assert found.keys() == expected.keys() - set(without)
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
        assert tensor.shape == expected[name].shape and tensor.dtype == expected[name].dtype


def assert_filled(found: Converted, metadata: dict | None = None) -> None:
    """Every tensor of a task has a value."""
    options = merge_into(task_config(found.task["name"], found.config.name), found.task, "task")
    state = task_class(options.name).create(build_model(found.config), options, metadata or {}).state_dict()
    assert {n: tuple(x.shape) for n, x in state.items()} == {n: x.shape for n, x in found.tensors.items()}


SCALES = {"temperature": 0.07, "logit_scale": 2.6592}
SIGMA = {"bridgetower": 0.07, "hf-bridgetower": np.exp(-2.6592)}


@pytest.mark.parametrize(
    ("kind", "is_ranked"),
    [("meter", True), ("bridgetower", True), ("bridgetower", False), ("hf-bridgetower", False)],
)
def test_files_of_retrieval(kind: str, is_ranked: bool) -> None:
    """METER's score of a pair is the log-odds of a match; BridgeTower's files contrast the towers too."""
    besides = leftovers(kind) if kind != "hf-bridgetower" else {}
    tensors = small(kind) | tensors_of(besides | (ranking(64) if is_ranked else contrast(kind, 64, 24)))
    tensors |= {n: np.full((), x, np.float32) for n, x in SCALES.items() if n in tensors}
    found = PAPER.converters[kind](tensors, "the file", "retrieval")
    if is_ranked:
        assert found.task == {"name": "retrieval", "loss": "cross_entropy"}
        logits = np.eye(128, dtype=np.float32) @ found.tensors["itm_head.weight"]
        np.testing.assert_array_equal(logits[:, 1] - logits[:, 0], tensors["rank_output.weight"][0])
        unread = [*besides, *(name for name in tensors if name.startswith(("mlm_", "itm_")))]
    else:
        assert found.task == {"name": "retrieval", "loss": "itc_itm", "itc_size": 24}
        np.testing.assert_allclose(found.tensors["temperature"], [SIGMA[kind]], rtol=1e-6)
        unread = [name for name in tensors if name.startswith(("mlm_", "itc_cross"))]
        unread += [name for name in besides if name != "temperature"]
    assert_same(to_release(RELEASES[kind], found.tensors, "retrieval"), tensors, unread)
    assert_filled(found)


def test_a_bare_model_lacks_heads() -> None:
    found = PAPER.converters["hf-bridgetower"](small("hf-bridgetower", has_heads=False))
    assert found.absent == ("objective.mlm_head", "objective.itm_head")
    assert found.config.fusion.epsilon == 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("cross_modal_text_pooler.dense.bias"), "1 missing: cross_modal_text_pooler.dense"),
        (lambda t: t.update(extra=np.zeros(1)), "1 unknown: extra"),
        (lambda t: t.update({"vit_model.visual.ln_pre.bias": np.zeros(3)}), "1 mis-shaped: vit_model"),
        (lambda t: t.clear(), "not a release of METER"),
    ],
)
def test_what_is_not_whole_is_named(change: object, message: str) -> None:
    tensors = small("meter")
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        PAPER.converters["meter"](tensors)


def test_other_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match="known: pretrain, vqa, nlvr2, entailment, retrieval"):
        PAPER.converters["meter"](small("meter"), "the file", "caption")
