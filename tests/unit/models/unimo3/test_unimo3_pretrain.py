"""The pre-training objective against its own definition: two separate passes, one encoding of the images."""

import dataclasses

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from small_models import VOCABULARY, inputs, pretrain_batch, set_parameters, small_config, small_model

from unimo.errors import ConfigError
from unimo.models.objective import hard_images
from unimo.models.unimo3.pretrain import Objective
from unimo.registry import build_model


def _objective(model, seed: int = 7) -> Objective:
    objective = Objective(model.config)
    set_parameters(objective, seed)
    objective.eval()
    return objective


def _separate_passes(model, objective, batch):
    """MLM and ITM as METER trains them: full passes of their own."""
    mask = batch.attention_mask
    masked = model(batch.images, batch.mlm_input_ids, mask)
    states = masked.fused_text.reshape([-1, 16])[batch.mlm_positions]
    mlm = F.cross_entropy(objective.mlm_head(states), batch.mlm_labels)
    pixels = batch.images
    if batch.false_pixels is not None:
        pixels = paddle.concat([pixels, batch.false_pixels])
    clean = model(pixels[batch.itm_image_index], batch.input_ids, mask)
    itm = F.cross_entropy(objective.itm_head(clean.pooled), batch.itm_labels)
    return {"mlm": mlm, "itm": itm}


@pytest.mark.parametrize("name", ["unimo3_tiny", "meter_tiny", "bridgetower_tiny"])
def test_losses_and_gradients_equal_two_separate_passes(name):
    model = small_model(name)
    objective, batch = _objective(model), pretrain_batch()
    results = []
    for function in (
        lambda: objective.losses(model, batch)[0],
        lambda: _separate_passes(model, objective, batch),
    ):
        losses = function()
        objective.total(losses).backward()
        parameters = [*model.named_parameters(), *objective.named_parameters()]
        results.append(({k: float(v) for k, v in losses.items()}, {n: p.grad.numpy() for n, p in parameters}))
        for _, parameter in parameters:
            parameter.clear_gradient(set_to_zero=False)
    (first, first_gradients), (second, second_gradients) = results
    assert first == pytest.approx(second, abs=1e-5)
    for key, gradient in first_gradients.items():
        scale = max(1.0, np.abs(gradient).max())
        np.testing.assert_allclose(gradient / scale, second_gradients[key] / scale, atol=3e-5, err_msg=key)


def _norm(states, layer, epsilon):
    centred = states - states.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * layer.weight.numpy() + layer.bias.numpy()


@pytest.mark.parametrize("name", ["unimo3_tiny", "meter_tiny", "bridgetower_tiny"])
@pytest.mark.parametrize("epsilon", [1e-12, 1e-5])
@paddle.no_grad()
def test_epsilon_of_co_attention_and_of_the_vocabulary_head(name, epsilon):
    """1e-12 in the code of METER and BridgeTower, the default, 1e-5 in their Hugging Face port."""
    model = small_model(name, **({} if epsilon == 1e-12 else {"fusion": {"epsilon": epsilon}}))
    objective = _objective(model)
    blocks = [*model.fusion.text_layers, *model.fusion.image_layers]
    norms = [norm for block in blocks for norm in (block.attention_norm, block.cross_norm, block.mlp_norm)]
    assert {norm._epsilon for norm in [*norms, objective.mlm_head.norm]} == {epsilon}
    others = [model.text.embeddings.norm, model.vision.ln_post, *model.fusion.text_links.norms]
    assert {norm._epsilon for norm in others} == {1e-5}
    # States of the scale 0.01, in which both values show, through a whole block and the head, in float64.
    rng = np.random.default_rng(0)
    own, other = rng.normal(0, 0.01, (1, 5, 16)), rng.normal(0, 0.01, (1, 4, 16))
    block, head = blocks[0], objective.mlm_head
    for parameter in (*block.parameters(), *head.dense.parameters()):
        parameter.set_value(parameter * 0.01)
    tensors = paddle.to_tensor(own.astype("float32")), paddle.to_tensor(other.astype("float32"))
    update = block.attention(tensors[0])[0].numpy()
    first = _norm(own + update, block.attention_norm, epsilon)
    update = block.cross_attention(paddle.to_tensor(first.astype("float32")), tensors[1])[0].numpy()
    second = _norm(first + update, block.cross_norm, epsilon)
    update = block.mlp(paddle.to_tensor(second.astype("float32"))).numpy()
    third = _norm(second + update, block.mlp_norm, epsilon)
    np.testing.assert_allclose(block(*tensors)[0].numpy(), third, rtol=1e-3, atol=1e-7)
    gelu = F.gelu(head.dense(tensors[0])).numpy().astype("float64")
    logits = _norm(gelu, head.norm, epsilon) @ head.decoder.weight.numpy() + head.decoder.bias.numpy()
    np.testing.assert_allclose(head(tensors[0]).numpy(), logits, rtol=1e-3, atol=1e-4)
    swapped = _norm(gelu, head.norm, 1e-17 / epsilon) @ head.decoder.weight.numpy()
    assert np.abs(swapped + head.decoder.bias.numpy() - logits).max() > 0.01


def test_an_epsilon_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="fusion.epsilon 0: expected a number above 0; try 1e-12"):
        small_config(fusion={"epsilon": 0})


def test_false_images_of_the_data_set():
    model = small_model()
    objective, batch = _objective(model), pretrain_batch()
    batch.false_pixels = inputs(2, seed=9)[0]
    batch.itm_image_index = paddle.to_tensor([0, 4, 3])
    with paddle.no_grad():
        losses, _ = objective.losses(model, batch)
        expected = _separate_passes(model, objective, batch)
    assert float(losses["itm"]) == pytest.approx(float(expected["itm"]), abs=1e-5)
    assert float(losses["mlm"]) == pytest.approx(float(expected["mlm"]), abs=1e-5)


def test_total_is_the_sum():
    model = small_model()
    objective = _objective(model)
    losses, report = objective.losses(model, pretrain_batch())
    assert float(objective.total(losses)) == pytest.approx(
        float(losses["mlm"]) + float(losses["itm"]), rel=1e-6
    )
    assert set(report) == {"mlm_accuracy", "itm_accuracy"}
    assert 0.0 <= float(report["itm_accuracy"]) <= 1.0


def test_no_masked_token_gives_zero_and_every_gradient():
    model = small_model()
    objective = _objective(model)
    losses, report = objective.losses(model, pretrain_batch(masked=0))
    objective.total(losses).backward()
    assert float(losses["mlm"]) == 0.0 and float(report["mlm_accuracy"]) == 0.0
    parameters = [*model.named_parameters(), *objective.named_parameters()]
    assert [n for n, p in parameters if p.grad is None] == []
    assert float(objective.mlm_head.decoder.weight.grad.abs().max()) == 0.0


def test_mlm_reads_masked_text_and_itm_clean_text():
    model = small_model()
    objective, batch = _objective(model), pretrain_batch()
    other = paddle.where(batch.input_ids == 1, batch.input_ids, VOCABULARY - 2 - batch.input_ids % 9)
    with paddle.no_grad():
        before = objective.losses(model, batch)[0]
        clean = objective.losses(model, dataclasses.replace(batch, input_ids=other))[0]
        masked = objective.losses(model, dataclasses.replace(batch, mlm_input_ids=other))[0]
    assert float(before["mlm"]) == float(clean["mlm"]) and float(before["itm"]) != float(clean["itm"])
    assert float(before["itm"]) == float(masked["itm"]) and float(before["mlm"]) != float(masked["mlm"])


def test_hard_negatives_show_other_images_to_mismatched_texts():
    model = small_model(objective={"itm_negatives": "hard"})
    objective, batch = _objective(model), pretrain_batch()
    objective.itc_temperature.set_value(paddle.to_tensor(0.07))
    losses, _ = objective.losses(model, batch)
    objective.total(losses).backward()
    assert set(losses) == {"mlm", "itm", "itc"}
    parameters = [*model.named_parameters(), *objective.named_parameters()]
    assert [n for n, p in parameters if p.grad is None] == []
    text, image = model.encode_text(batch.input_ids, batch.attention_mask), model.encode_image(batch.images)
    contrast = objective.contrast(
        objective.pair_vectors(text.text[:, 0], image.image[:, 0], batch.image_group)
    )
    _, rows, labels = hard_images(contrast, image, batch.itm_labels)
    assert int(rows[0]) == 0
    assert int(rows[1]) != 1 and int(rows[2]) != 2
    assert labels.tolist() == [1, 0, 0]


def test_it_learns_a_batch_by_heart():
    paddle.seed(0)
    model = build_model(small_config())
    model.train()
    objective, batch = Objective(model.config), pretrain_batch()
    optimizer = paddle.optimizer.AdamW(1e-2, parameters=[*model.parameters(), *objective.parameters()])
    first = None
    for _ in range(20):
        total = objective.total(objective.losses(model, batch)[0])
        total.backward()
        optimizer.step()
        optimizer.clear_grad()
        first = float(total) if first is None else first
    assert float(total) < 0.4 * first
