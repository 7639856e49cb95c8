"""Tasks that a VLMo learns (Table 5), and matching without contrast, against two passes by hand."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from small_models import pretrain_batch, set_parameters
from small_vlmo import small_config, small_vlmo

from unimo.errors import ConfigError
from unimo.models.vlmo.pretrain import Objective
from unimo.nn.outputs import Encoded
from unimo.registry import model_config
from unimo.tasks.base import to_tensors


@pytest.mark.parametrize("false_images", ["batch", "dataset"])
def test_without_contrast_the_pairs_of_the_batch_are_judged(false_images: str) -> None:
    model = small_vlmo(objective={"tasks": ["itm", "mlm"]})
    objective, batch = Objective(model.config), pretrain_batch()
    set_parameters(objective, 7)
    pixels = batch.images
    if false_images == "dataset":
        batch.false_pixels = paddle.flip(batch.images[:1], [3])
        batch.itm_image_index = to_tensors(np.array([0, 3, 2]))
        pixels = paddle.concat([batch.images, batch.false_pixels])
    losses, report = objective.losses(model, batch)
    assert losses.keys() == {"itm", "mlm"} and report.keys() == {"itm_accuracy", "mlm_accuracy"}

    def fused(images: paddle.Tensor, ids: paddle.Tensor) -> Encoded:
        return model.fuse(model.encode_text(ids, batch.attention_mask), model.encode_image(images))

    pairs = fused(pixels[batch.itm_image_index], batch.input_ids)
    masked = fused(batch.images, batch.mlm_input_ids).fused_text.flatten(0, 1)
    itm = F.cross_entropy(objective.itm_head(pairs.pooled), batch.itm_labels)
    mlm = F.cross_entropy(objective.mlm_head(masked[batch.mlm_positions]), batch.mlm_labels)
    assert [float(losses["itm"]), float(losses["mlm"])] == pytest.approx([float(itm), float(mlm)], abs=1e-5)
    assert float(objective.total(losses)) == pytest.approx(float(itm + 0.25 * mlm), abs=1e-5)


@pytest.mark.parametrize("experts", ["modality", "shared"])
@pytest.mark.parametrize("tasks", [("mlm",), ("itm", "mlm")], ids="+".join)
def test_without_contrast_it_has_no_heads_and_no_parameter_lacks_a_gradient(
    tasks: tuple[str, ...], experts: str
) -> None:
    model = small_vlmo(objective={"tasks": tasks}, transformer={"experts": experts})
    objective = Objective(model.config)
    assert not [name for name, _ in objective.named_parameters() if name.startswith("itc_")]
    assert not objective.contrasts and not objective.hard
    losses, _ = objective.losses(model, pretrain_batch())
    objective.total(losses).backward()
    both = [*model.named_parameters(), *objective.named_parameters()]
    learned = {name: parameter for name, parameter in both if not parameter.stop_gradient}
    # Data parallelism waits for every gradient; that of a part which no task reads is zero.
    zero = {name for name, parameter in learned.items() if not np.abs(parameter.grad.numpy()).max()}
    top = {f"blocks.3.experts.{kind}." for kind in ("text", "image")} if experts == "modality" else set()
    unread = {"pooler.", "itm_head."} - ({"pooler.", "itm_head."} if "itm" in tasks else set())
    assert {name for name in learned if name.startswith((*top, *unread))} == zero


def test_a_model_that_learns_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="objective.tasks is empty"):
        small_config(objective={"tasks": []})
    assert model_config("vlmo_base").objective.tasks == ("itc", "itm", "mlm")
