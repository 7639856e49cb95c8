"""Pre-training on three corpora: the task, the recipes, and what is refused."""

import numpy as np
import paddle
import pytest
from micro import TOWER, make_run, make_task

from unimo.errors import CapabilityError, ConfigError
from unimo.models.batches import PretrainBatch
from unimo.models.unimo2.batches import UnpairedBatch, ViewsBatch
from unimo.settings import load_run_config
from unimo.tasks.base import to_tensors
from unimo.training.optimizer import build_optimizer

MODEL = {
    "name": "unimo2_tiny",
    "text": {**TOWER, "vocab_size": 300},
    "vision": {**TOWER, "image_size": 32},
    "grounding": {"dictionary_size": 20, "num_tokens": 4},
    "fusion": TOWER,
}
UNPAIRED = {"texts": [{"path": "scenes", "weight": 0.25}], "images": [{"path": "scenes", "weight": 0.25}]}


def test_ten_steps_are_finite() -> None:
    run = make_run("pretrain", model=MODEL, data=UNPAIRED, task={"masking": "span"})
    task, _, data = make_task(run)
    optimizer = build_optimizer(task, run.optim)
    loader = data.train_loader(run)
    task.train()
    for _ in range(10):
        loss, values = task(to_tensors(next(loader)))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        assert np.isfinite([float(value) for value in (loss, *values.values())]).all()
    loader.close()
    assert {"vcl", "text_mlm", "mlm", "itm", "grounding", "vcl_accuracy", "dictionary_use"} <= set(values)


def test_training_batches_have_parts_and_held_out_ones_are_pairs() -> None:
    run = make_run("pretrain", model=MODEL, data=UNPAIRED)
    task, _, data = make_task(run)
    assert list(data.train_datasets()) == ["scenes", "scenes_texts", "scenes_images"]
    loader = data.train_loader(run)
    batch = next(loader)
    loader.close()
    assert None not in (batch.pairs, batch.texts, batch.images) and len(batch.sample_ids) == 8
    held_out = next(iter(data.eval_loader("val", run)))
    assert type(held_out) is PretrainBatch
    task.eval()
    metrics = task.evaluate([held_out])
    with paddle.no_grad():
        losses, _ = task.losses(to_tensors(held_out))
    for name in ("mlm", "itm"):
        assert metrics[f"{name}_loss"] == pytest.approx(losses[name].item(), rel=1e-4)


@pytest.mark.parametrize("left_out", ["texts", "images"])
def test_without_texts_or_without_images(left_out: str) -> None:
    run = make_run("pretrain", model=MODEL, data={**UNPAIRED, left_out: []})
    task, _, data = make_task(run)
    loader = data.train_loader(run)
    batch = next(loader)
    loader.close()
    losses, _ = task.losses(to_tensors(batch))
    assert getattr(batch, left_out) is None and np.isfinite(task.total(losses).item())


def test_tensors_of_nested_batches() -> None:
    views = ViewsBatch(pixels=np.arange(3), pixels_2=np.arange(2), sample_ids=["x"])
    batch = to_tensors(UnpairedBatch(images=views, sample_ids=["x"]))
    assert isinstance(batch.images.pixels, paddle.Tensor) and batch.pairs is None
    assert batch.images.pixels.tolist() == [0, 1, 2] and batch.images.sample_ids == ["x"]


@pytest.mark.parametrize("kind", ["texts", "images"])
def test_models_of_pairs_only_say_so(kind: str) -> None:
    run = make_run("pretrain", data={kind: ["scenes"]})
    with pytest.raises(CapabilityError, match=rf"pretrain on data.{kind}.*unimo2_base"):
        make_task(run)


def test_curriculum_of_pairs_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pairs_only_epochs=3, but there are only pairs"):
        make_task(make_run("pretrain", model=MODEL, data={"pairs_only_epochs": 3}))


@pytest.mark.parametrize("name", ["unimo2_base", "unimo2_large"])
def test_the_recipe_is_that_of_the_paper(name: str) -> None:
    run = load_run_config(name, "pretrain")
    grounding, data, optim = run.model.grounding, run.data, run.optim
    assert (grounding.dictionary_size, grounding.num_tokens, grounding.beta) == (2048, 100, 0.25)
    assert (data.image_size, data.max_text_len, run.task.mlm_probability) == (224, 512, 0.15)
    assert (run.task.masking, data.pairs_only_epochs) == ("span", 20.0)
    assert (optim.lr, optim.schedule) == (5e-5, "linear")
    assert (
        data.texts
        and data.images
        and (optim.lr_multipliers["cross_modal"], run.model.fusion.num_layers)
        == (
            1.0,
            12 if name == "unimo2_base" else 24,
        )
    )


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("data.texts=[]", lambda run: run.data.texts == []),
        ("data.images=[]", lambda run: run.data.images == []),
        ("data.texts=a.txt", lambda run: run.data.texts[0].path == "a.txt"),
        ("model.grounding.enabled=false", lambda run: not run.model.grounding.is_active),
        ("data.pairs=[{path: x, prompt: 'a {}'}]", lambda run: run.data.pairs[0].prompt == "a {}"),
    ],
)
def test_ablations_are_lines(word: str, found) -> None:
    assert found(load_run_config("unimo2_tiny", "pretrain", [word]))
