"""Stages of VLMo: what each changes, and what the next takes over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from small_models import set_parameters
from small_vlmo import small_vlmo

from unimo.errors import CheckpointError
from unimo.models.vlmo import PAPER
from unimo.models.vlmo.config import PretrainingConfig
from unimo.models.vlmo.model import Vlmo
from unimo.nn.relative_position import resize_table
from unimo.settings import load_run_config
from unimo.training import run as training
from unimo.training.loop import take_step
from unimo.training.state import TrainState
from unimo.weights.layers import load_into

STAGES = get_args(get_type_hints(PretrainingConfig)["stage"])
SMALL = [
    *("model.transformer.hidden_size=16", "model.transformer.num_heads=2", "model.transformer.num_layers=2"),
    *("model.transformer.intermediate_size=16", "data.scenes.train_images=16", "data.scenes.val_images=4"),
    *(
        "train.batch_size=4",
        "optim.warmup=0",
        "optim.weight_decay=0.5",
        "optim.lr=0.01",
        "data.image_size=224",
    ),
    *("data.num_workers=0", "train.max_steps=1"),
]
TABLE, TYPES = "model.relative_positions.position_bias", "model.type_embedding.weight"
ROWS_OF_IMAGES = 734
"""At 224 pixels: 27 x 27 distances, 3 of [I_CLS], 2 between texts and images."""


def state_of(stage: str, output: Path, *words: str) -> TrainState:
    overrides = [*SMALL, f"task.stage={stage}", f"output_dir={output}", *words]
    run = load_run_config("vlmo_tiny", "pretrain", overrides)
    processor = training.open_processor(run)
    return training.build(training.resolve(run, processor), processor)


def learns(stage: str, name: str) -> bool:
    """Facts of the release, with our names; what no input reaches changes by decay alone, or not at all."""
    if name == "model.text_embeddings.position.weight":  # relative positions are used in its place
        return False
    if stage == "vision_language":
        return True
    beginnings = {
        "vision": ("patch_embedding", "class_embedding", "type_embedding", "relative", "norm", "blocks."),
        "language": ("text_embeddings.", "type_embedding.", "relative_positions.", "norm."),
    }[stage]
    part = name.removeprefix("model.")
    own, other = {
        "vision": (".experts.image.", ".experts.text."),
        "language": (".experts.text.", ".experts."),
    }[stage]
    is_taught = part.startswith(beginnings) and other not in part
    return name.startswith("objective.") or own in part or is_taught


@pytest.mark.parametrize("stage", STAGES)
def test_one_step_changes_what_the_stage_teaches_and_nothing_else(stage: str, tmp_path: Path) -> None:
    state = state_of(stage, tmp_path)
    set_parameters(state.task)
    before = {name: parameter.numpy() for name, parameter in state.task.named_parameters()}
    take_step(state, iter(state.loader))
    state.loader.close()
    after = {name: parameter.numpy() for name, parameter in state.task.named_parameters()}
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in before if learns(stage, name)}
    rows = np.flatnonzero((before[TABLE] != after[TABLE]).any(1))
    types = np.flatnonzero((before[TYPES] != after[TYPES]).any(1))
    if stage == "language":
        assert rows.min() >= ROWS_OF_IMAGES and len(rows) > 20
        assert types.tolist() == [0]
    elif stage == "vision":
        assert rows.max() < ROWS_OF_IMAGES - 2 and len(rows) == ROWS_OF_IMAGES - 2
        assert types.tolist() == [1]
    else:
        assert rows.min() == 0 and set(range(ROWS_OF_IMAGES)) <= set(rows)
        assert types.tolist() == [0, 1]


def start(model: Vlmo, earlier: Vlmo, **options: Any) -> tuple[dict[str, np.ndarray], list[str]]:
    """Load an earlier model into one, and return what it then has, and what stayed random."""
    tensors = {name: tensor.numpy() for name, tensor in earlier.state_dict().items()}
    fitted, fresh = PAPER.fit_start(model, PretrainingConfig(**options), tensors)
    load_into(model, fitted, "earlier", fresh)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}, list(fresh)


def test_pairs_start_from_the_language_stage() -> None:
    """Longer texts and smaller images there, and no experts for pairs."""
    sizes = {"text": {"max_position": 19}, "vision": {"image_size": 48}, "transformer": {"pair_layers": 0}}
    model, earlier = small_vlmo(seed=1), small_vlmo(**sizes)
    own = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    there = {name: tensor.numpy() for name, tensor in earlier.state_dict().items()}
    found, fresh = start(model, earlier)
    assert fresh == [name for name in own if ".experts.pair." in name] and len(fresh) == 6
    positions, table = "text_embeddings.position.weight", "relative_positions.position_bias"
    for name, array in found.items():
        if name == positions:
            np.testing.assert_array_equal(array, there[name][: len(array)])
        elif name == table:
            np.testing.assert_array_equal(array[-397:], there[name][-397:])
            np.testing.assert_array_equal(array, resize_table(there[name], 4))
        else:
            np.testing.assert_array_equal(array, own[name] if name in fresh else there[name])


def test_longer_texts_go_on_at_random() -> None:
    model, earlier = small_vlmo(seed=1, text={"max_position": 19}), small_vlmo()
    name = "text_embeddings.position.weight"
    own, there = model.state_dict()[name].numpy(), earlier.state_dict()[name].numpy()
    found, fresh = start(model, earlier)
    np.testing.assert_array_equal(found[name], np.concatenate([there, own[len(there) :]]))
    assert not fresh


@pytest.mark.parametrize("kind", ["modality", "shared"])
def test_all_experts_start_from_that_for_images(kind: str) -> None:
    """Table 3, images alone: every expert, or the only one of a standard Transformer."""
    model, earlier = (
        small_vlmo(seed=1, transformer={"experts": kind}),
        small_vlmo(transformer={"pair_layers": 0}),
    )
    found, fresh = start(model, earlier, init_experts="image")
    assert not fresh
    there = {name: tensor.numpy() for name, tensor in earlier.state_dict().items()}
    for name, array in found.items():
        np.testing.assert_array_equal(array, there[re.sub(r"experts\.\w+", "experts.image", name)], name)


def test_what_is_missing_beside_experts_for_pairs_is_named() -> None:
    model, earlier = small_vlmo(), small_vlmo(transformer={"num_layers": 3})
    with pytest.raises(CheckpointError, match=r"missing: .*blocks\.3\.attention"):
        start(model, earlier)
