"""SemVLP's objective: which mode teaches what, and that a mismatched pair teaches matching alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from micro import make_run
from region_samples import write_store
from semvlp_records import collated, make_collator
from small_models import set_parameters
from small_semvlp import pretrain_batch, small_config, small_semvlp
from small_unimo import FEATURE, REGIONS

from unimo.data.tokenizers import load_tokenizer
from unimo.errors import ConfigError
from unimo.models import collate
from unimo.models.objective import Scalars
from unimo.models.semvlp.batches import PretrainBatch
from unimo.models.semvlp.config import PretrainingConfig
from unimo.models.semvlp.pretrain import Objective
from unimo.nn.block import set_recompute
from unimo.nn.kernels import paddle_kernels
from unimo.tasks.base import to_tensors
from unimo.tasks.pretrain import PretrainTask
from unimo.training import run as training

MASKED_LOSSES = ("mlm", "object", "label", "attribute", "qa")


def make_task(modes: Any = "both", **overrides: Any) -> PretrainTask:
    task = PretrainTask(small_semvlp(**overrides), PretrainingConfig(modes=modes))
    set_parameters(task)
    task.eval()
    return task


def gradients(task: PretrainTask, mode: Any, batch: PretrainBatch) -> tuple[Scalars, dict[str, float]]:
    """Losses, and the largest gradient of each parameter that learns."""
    task.objective.mode = mode
    loss, values = task(batch)
    loss.backward()
    learning = [item for item in task.named_parameters() if not item[1].stop_gradient]
    assert all(parameter.grad is not None for _, parameter in learning)  # data parallelism waits for them
    found = {name: parameter.grad.abs().max().item() for name, parameter in learning}
    task.clear_gradients()
    return values, found


@pytest.mark.parametrize("modules", ["above", "all"])
def test_cross_attention_learns_in_two_streams_only_and_the_rest_in_both(modules: Any) -> None:
    task, batch = make_task(cross={"modules": modules}), pretrain_batch()
    single, two = (gradients(task, mode, batch)[1] for mode in ("single", "two"))
    cross = {name for name in single if ".cross_" in name}
    assert {int(name.split(".")[2]) for name in cross} == {2, 3}
    assert all(single[name] == 0 for name in cross)
    # Softmax does not see a bias of keys, but they share theirs with values.
    assert all(two[name] > 0 for name in cross)
    assert all(single[name] > 0 and two[name] > 0 for name in single.keys() - cross)


@pytest.mark.parametrize(("modes", "learns"), [("single", False), ("two", True)])
def test_a_model_of_one_mode_stays_in_it(modes: Any, learns: bool) -> None:
    task = make_task(modes)
    for step in range(20):
        task.begin_step(step)
        assert task.objective.mode == modes
    assert task.model.mode == modes
    cross = [value for name, value in task.model.named_parameters() if ".cross_" in name]
    assert {value.stop_gradient for value in cross} == {not learns}


def test_modes_are_drawn_from_the_seed_with_equal_chance() -> None:
    drawn = []
    for task in (make_task(), make_task()):
        for seed in range(400):
            task.begin_step(seed)
            drawn.append(task.objective.mode)
    assert drawn[:400] == drawn[400:]
    assert 170 < drawn[:400].count("two") < 230


def test_losses_by_hand() -> None:
    """Each as its definition, from the states of the single stream; all weights are 1."""
    task, batch = make_task(), pretrain_batch()
    values, _ = gradients(task, "single", batch)
    model, heads = task.model, task.objective
    fused = model.fuse(
        model.encode_text(batch.mlm_input_ids, batch.attention_mask),
        model.encode_image(batch.images).select(batch.itm_image_index),
    )

    def transformed(head: Any, states: paddle.Tensor) -> paddle.Tensor:
        return head.norm(paddle.nn.functional.gelu(head.dense(states)))

    def entropy(logits: paddle.Tensor, labels: paddle.Tensor) -> float:
        logits = logits.numpy().astype(np.float64)
        chosen = logits[np.arange(len(logits)), labels.numpy()]
        return float((np.log(np.exp(logits).sum(1)) - chosen).mean())

    words = transformed(heads.mlm_head, fused.fused_text.flatten(0, 1)[batch.mlm_positions])
    logits = paddle.matmul(words, model.embeddings.word.weight, transpose_y=True) + heads.mlm_head.bias
    objects = transformed(heads.object_head, fused.fused_image.flatten(0, 1)[batch.object_positions])
    off = np.abs((heads.feature_head(objects) - batch.object_features).numpy())
    question = fused.pooled[1:2]
    expected = {
        "mlm": entropy(logits, batch.mlm_labels),
        "itm": entropy(heads.itm_head(fused.pooled), batch.itm_labels),
        "object": np.where(off < 1, off**2 / 2, off - 0.5).mean(),
        "label": entropy(heads.label_head(objects[:2]), batch.label_labels),
        "attribute": entropy(heads.attribute_head(objects), batch.attribute_labels),
        "qa": entropy(heads.answer_head.out(transformed(heads.answer_head, question)), batch.qa_labels[1:2]),
    }
    for name, value in expected.items():
        assert values[name].item() == pytest.approx(value, rel=1e-4), name
    assert task.total(values).item() == pytest.approx(sum(expected.values()), rel=1e-4)


@pytest.mark.parametrize("batch_has", ["nothing masked", "no question"])
def test_losses_without_targets_are_zero(batch_has: str) -> None:
    task, batch = make_task(), pretrain_batch()
    if batch_has == "no question":
        batch.qa_labels = paddle.full([4], -1, "int64")
        names = ("qa",)
    else:
        names = ("mlm", "object", "label", "attribute")
        for name in ("mlm", "label"):
            setattr(batch, f"{name}_labels", paddle.zeros([0], "int64"))
            setattr(batch, f"{name}_positions", paddle.zeros([0], "int64"))
        batch.object_positions = paddle.zeros([0], "int64")
        batch.attribute_labels = paddle.zeros([0], "int64")
        batch.object_features = paddle.zeros([0, FEATURE])
    values, found = gradients(task, "two", batch)
    assert all(values[name].item() == 0 for name in names) and values["itm"].item() > 0
    assert all(np.isfinite(list(found.values())))


@pytest.mark.parametrize("mode", ["single", "two"])
def test_recomputed_passes_give_the_same_gradients(mode: Any) -> None:
    batch, found = pretrain_batch(), []
    for recomputes in (False, True):
        task = make_task()
        task.train()
        set_recompute(task, recomputes)
        found.append(gradients(task, mode, batch)[1])
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_a_run_takes_widths_classes_and_attributes_of_its_regions(tmp_path: Path) -> None:
    write_store(tmp_path / "store", ["0.jpg"])
    model = {"name": "semvlp_tiny", "text": {"vocab_size": 300}}
    for regions, sizes in ((str(tmp_path / "store"), (6, 3, 2)), ("grid:2:4", (48, 0, 0))):
        run = make_run("pretrain", model=model, data={"regions": regions})
        found = training.resolve(run, training.open_processor(run)).model.regions
        assert (found.feature_size, found.num_classes, found.num_attributes) == sizes


def test_targets_are_of_masked_tokens_and_objects_of_matching_pairs() -> None:
    batch = collated(make_collator())
    matched = batch.itm_labels == 1
    assert matched.sum() == 4
    assert (batch.itm_image_index == np.arange(8))[matched].all()
    assert (batch.qa_labels == np.where(matched, np.arange(8) % 3, -1)).all()
    masked = batch.images["masked"]
    assert masked[~matched].any()
    row, region = np.nonzero(masked * matched[:, None])
    assert np.array_equal(batch.object_positions, row * (1 + REGIONS) + 1 + region)
    np.testing.assert_array_equal(batch.object_features, batch.images["features"][row, region])
    assert np.array_equal(batch.attribute_labels, region)
    known = region > 0  # the detector knows no class of the first
    assert np.array_equal(batch.label_positions, batch.object_positions[known]) and known.sum() < len(known)
    texts = batch.mlm_positions // batch.input_ids.shape[1]
    assert matched[texts].all() and len(texts) > 3
    assert np.array_equal(batch.mlm_labels, batch.input_ids.reshape(-1)[batch.mlm_positions])
    assert (batch.mlm_input_ids != batch.input_ids)[~matched].any()


@pytest.mark.parametrize("mode", ["single", "two"])
def test_a_mismatched_pair_teaches_matching_alone(mode: Any) -> None:
    """By the gradient of each loss in what the network reads of each pair."""
    words = {"vocab_size": load_tokenizer("scenes").vocab_size}
    task = make_task(text=words, regions={"num_attributes": 6})
    batch = collated(make_collator())
    objects, labels = batch.object_positions // (1 + REGIONS), batch.label_positions // (1 + REGIONS)
    rows = {
        "mlm": batch.mlm_positions // batch.input_ids.shape[1],
        **{"object": objects, "label": labels, "attribute": objects},
        "qa": np.flatnonzero(batch.qa_labels >= 0),
    }
    assert rows.keys() == set(MASKED_LOSSES)
    assert all(set(found) == set(np.flatnonzero(batch.itm_labels)) for found in rows.values())
    given = to_tensors(batch)
    features = given.images["features"]
    features.stop_gradient = False
    shift = paddle.zeros([*batch.input_ids.shape, 16])
    shift.stop_gradient = False
    embed = task.model.embeddings.forward
    task.model.embeddings.forward = lambda ids: embed(ids) + shift
    task.objective.mode = mode
    with paddle_kernels():
        losses, _ = task.losses(given)

    def teachers(name: str) -> list[set[int]]:
        """Texts and images that a loss has a gradient in."""
        found = paddle.grad(losses[name], [shift, features], retain_graph=True, allow_unused=True)
        return [
            set() if value is None else set(np.flatnonzero(np.abs(value.numpy()).max((1, 2))))
            for value in found
        ]

    for name, own in rows.items():
        # A text of its own stream sees no image.
        images = set() if (name, mode) == ("mlm", "two") else set(own)
        assert teachers(name) == [set(own), images], name
    assert teachers("itm") == [set(range(8)), set(batch.itm_image_index)]


@pytest.mark.parametrize("mode", ["single", "two"])
def test_mismatched_pairs_alone_move_no_parameter_but_by_matching(
    mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collate, "draw_matches", lambda size, rng: np.zeros(size, bool))
    words = {"vocab_size": load_tokenizer("scenes").vocab_size}
    task = make_task(text=words, regions={"num_attributes": 6})
    batch = collated(make_collator())
    assert not batch.itm_labels.any() and batch.images["masked"].any()
    task.objective.mode = mode
    losses, _ = task.losses(to_tensors(batch))
    assert all(losses[name].item() == 0 for name in MASKED_LOSSES) and losses["itm"].item() > 0
    sum(losses[name] for name in MASKED_LOSSES).backward()
    assert all(value.grad is None or not value.grad.abs().max() for value in task.parameters())


def test_answers_that_are_no_class_and_labels_that_are_not_there() -> None:
    batch = collated(make_collator(answers="ab"))
    known = (batch.itm_labels == 1) & (np.arange(8) % 3 < 2)
    assert (batch.qa_labels == np.where(known, np.arange(8) % 3, -1)).all() and known.any()
    assert (collated(make_collator(answers="")).qa_labels == -1).all()
    none, off = {"num_classes": 0, "num_attributes": 0}, {"object_attributes": False}
    for name in ("labels", "attributes"):
        wanted = {**off, f"object_{name}": True}
        with pytest.raises(ConfigError, match=rf"object_{name}=true.*data\.regions have no {name}"):
            Objective(small_config(regions=none, objective=wanted), PretrainingConfig())
    assert Objective(small_config(regions=none, objective=off), PretrainingConfig()).label_head is None
    nothing = {**off, "object_labels": False, "object_features": False}
    assert Objective(small_config(objective=nothing), PretrainingConfig()).object_head is None
