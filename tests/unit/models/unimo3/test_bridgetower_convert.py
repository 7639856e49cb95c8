"""Released weights of METER and BridgeTower: every name and shape, both ways, and what is not whole."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from bridgetower_names import Shapes, classifier, released_shapes

from unimo.errors import CheckpointError, ConfigError
from unimo.models.unimo3 import PAPER
from unimo.models.unimo3.convert import BRIDGETOWER, HF_BRIDGETOWER, METER, to_release
from unimo.registry import build_model, task_class, task_config

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


@pytest.mark.parametrize(
    ("task", "head", "types", "classes"),
    [("nlvr2", "nlvr2_classifier", 3, 2), ("entailment", "snli_classifier", 2, 3)],
)
def test_fine_tuned_files(task: str, head: str, types: int, classes: int) -> None:
    pooled = 256 if task == "nlvr2" else 128
    tensors = small("bridgetower", types) | tensors_of(classifier(head, pooled, 96, classes))
    found = PAPER.converters["bridgetower"](tensors, "the file", task)
    assert found.task == {"name": task, "head_hidden_multiplier": 1.5}
    back = to_release(BRIDGETOWER, found.tensors, task)
    heads = {name for name in tensors if name.startswith(head)}
    assert heads <= back.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in back)
    assert found.config.vision.types == types - 1


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
    with pytest.raises(ConfigError, match="known: pretrain, nlvr2, entailment"):
        PAPER.converters["meter"](small("meter"), "the file", "caption")
