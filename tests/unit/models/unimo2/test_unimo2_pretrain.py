"""The objective of UNIMO-2 against its own definition: separate passes over pairs, texts and images."""

import dataclasses

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from small_models import inputs, pretrain_batch, set_parameters
from small_unimo2 import small_unimo2, unimo2_config

from unimo.models.batches import MaskedTextBatch
from unimo.models.objective import hard_images
from unimo.models.unimo2.batches import UnpairedBatch, ViewsBatch
from unimo.models.unimo2.pretrain import Objective
from unimo.registry import build_model

PAIRS = {"mlm", "itm", "grounding"}
TEXTS = {"text_mlm", "text_grounding"}
IMAGES = {"vcl", "image_grounding"}


def objective_of(model, seed=7):
    objective = Objective(model.config)
    set_parameters(objective, seed)
    if objective.contrastive:
        objective.itc_temperature.set_value(paddle.to_tensor(0.07))
    return objective


def unpaired_batch():
    pairs = pretrain_batch()
    texts = {item.name: getattr(pairs, item.name) for item in dataclasses.fields(MaskedTextBatch)}
    images = {"pixels": inputs(2, seed=3)[0], "pixels_2": inputs(2, seed=4)[0]}
    return UnpairedBatch(
        pairs=pairs,
        texts=MaskedTextBatch(**texts),
        images=ViewsBatch(**images, sample_ids=["a", "b"]),
        sample_ids=["x"],
    )


def gradients(model, objective):
    parameters = [*model.named_parameters(), *objective.named_parameters()]
    found = {name: parameter.grad for name, parameter in parameters}
    values = {name: None if grad is None else grad.numpy() for name, grad in found.items()}
    for _, parameter in parameters:
        parameter.clear_gradient(set_to_zero=False)
    return values


def separate_passes(model, objective, batch):
    """Every objective in a pass of its own, the network called from pixels and ids each time."""
    pairs, texts, images = batch.pairs, batch.texts, batch.images

    def masked(part, pixels):
        text = model.encode_text(part.mlm_input_ids, part.attention_mask)
        image = None if pixels is None else model.encode_image(pixels)
        states = model.fuse(text, image).fused_text.reshape([-1, 16])[part.mlm_positions]
        mlm = F.cross_entropy(objective.mlm_head(states), part.mlm_labels)
        return mlm, model.grounding.loss(model.ground(text, image))

    mlm, grounding = masked(pairs, pairs.images)
    text_mlm, text_grounding = masked(texts, None)
    shown = model.encode_image(pairs.images[pairs.itm_image_index])
    clean = model.fuse(model.encode_text(pairs.input_ids, pairs.attention_mask), shown)
    itm = F.cross_entropy(objective.itm_head(clean.pooled), pairs.itm_labels)
    views = [model.encode_image(pixels) for pixels in (images.pixels, images.pixels_2)]
    first, second = (objective.vcl_head(model.fuse(None, view).pooled) for view in views)
    everything = paddle.concat([first, second])
    scores = paddle.matmul(everything, everything, transpose_y=True) / 0.1 - 1e9 * paddle.eye(4)
    vcl = F.cross_entropy(scores, paddle.to_tensor([2, 3, 0, 1]))
    image_grounding = sum(model.grounding.loss(model.ground(None, view)) for view in views) / 2
    return {
        "mlm": mlm, "itm": itm, "grounding": grounding, "text_mlm": text_mlm,
        "text_grounding": text_grounding, "vcl": vcl, "image_grounding": image_grounding,
    }  # fmt: skip


def test_losses_and_gradients_equal_separate_passes():
    model = small_unimo2()
    objective, batch = objective_of(model), unpaired_batch()
    results = []
    for function in (
        lambda: objective.losses(model, batch)[0],
        lambda: separate_passes(model, objective, batch),
    ):
        losses = function()
        sum(losses.values()).backward()
        results.append(({name: float(value) for name, value in losses.items()}, gradients(model, objective)))
    (first, first_gradients), (second, second_gradients) = results
    assert set(first) == PAIRS | TEXTS | IMAGES == set(Objective.LOSSES) - {"itc"}
    assert first == pytest.approx(second, abs=1e-5)
    for name, gradient in first_gradients.items():
        scale = max(1.0, np.abs(gradient).max())
        np.testing.assert_allclose(gradient / scale, second_gradients[name] / scale, atol=3e-5, err_msg=name)


def test_each_image_of_the_pairs_is_encoded_once():
    model = small_unimo2()
    objective, calls = objective_of(model), []
    encode = model.encode_image
    model.encode_image = lambda pixels, **options: calls.append(pixels.shape[0]) or encode(pixels, **options)
    objective.losses(model, unpaired_batch())
    assert calls == [3, 4]  # three pairs, two views of two images


@pytest.mark.parametrize("parts", ["pairs", "texts", "images", "pairs texts", "texts images"])
def test_absent_parts_add_nothing_and_every_parameter_has_a_gradient(parts):
    model = small_unimo2()
    objective, whole = objective_of(model), unpaired_batch()
    batch = UnpairedBatch(
        **{name: getattr(whole, name) for name in parts.split()}, sample_ids=whole.sample_ids
    )
    losses, report = objective.losses(model, batch)
    objective.total(losses).backward()
    names = {"pairs": PAIRS, "texts": TEXTS, "images": IMAGES}
    assert set(losses) == set().union(*(names[part] for part in parts.split()))
    found = gradients(model, objective)
    assert [name for name, gradient in found.items() if gradient is None] == []
    if parts == "texts":
        assert all(not gradient.any() for name, gradient in found.items() if name.startswith("vision"))
        assert found["grounding.dictionary"].any() and found["text.layers.0.attention.qkv.weight"].any()
    if parts == "images":
        assert not found["text.embeddings.word.weight"].any() and found["grounding.dictionary"].any()
        assert (
            found["vision.patch_embedding.weight"].any() if "vision.patch_embedding.weight" in found else True
        )
    assert set(report) >= {"dictionary_use"}


def test_flat_batch_is_one_of_pairs():
    model = small_unimo2()
    objective, pairs = objective_of(model), pretrain_batch()
    with paddle.no_grad():
        flat = objective.losses(model, pairs)[0]
        nested = objective.losses(model, UnpairedBatch(pairs=pairs, sample_ids=[]))[0]
    assert {name: float(x) for name, x in flat.items()} == {name: float(x) for name, x in nested.items()}


def test_total_is_the_sum():
    model = small_unimo2()
    objective = objective_of(model)
    for batch in (unpaired_batch(), pretrain_batch()):
        losses, report = objective.losses(model, batch)
        assert float(objective.total(losses)) == pytest.approx(sum(map(float, losses.values())), rel=1e-6)
        assert all(0.0 <= float(value) <= 1.0 for value in report.values())


def test_dictionary_use_counts_distinct_entries():
    model = small_unimo2()
    objective, batch = objective_of(model), unpaired_batch()
    report = objective.losses(model, batch)[1]
    pairs, texts, images = batch.pairs, batch.texts, batch.images
    image = model.encode_image(pairs.images)
    masked = model.encode_text(pairs.mlm_input_ids, pairs.attention_mask)
    views = model.encode_image(paddle.concat([images.pixels, images.pixels_2]))
    alone = model.encode_text(texts.mlm_input_ids, texts.attention_mask)
    chosen = [model.ground(masked, image), model.ground(alone, None), model.ground(None, views)]
    distinct = set().union(*(grounding.ids.flatten().tolist() for grounding in chosen))
    assert float(report["dictionary_use"]) == pytest.approx(len(distinct) / 20)


@pytest.mark.parametrize(
    "grounding", [{"enabled": False}, {"num_tokens": 0}, {"method": "one_to_one"}], ids=lambda x: str(*x)
)
def test_ablations_of_the_dictionary(grounding):
    model = small_unimo2(grounding=grounding)
    objective = objective_of(model)
    losses, report = objective.losses(model, unpaired_batch())
    objective.total(losses).backward()
    has_dictionary = grounding == {"method": "one_to_one"}
    assert ("grounding" in losses) == ("dictionary_use" in report) == has_dictionary
    assert [name for name, gradient in gradients(model, objective).items() if gradient is None] == []


def test_pretraining_uses_a_dictionary_that_inference_leaves_out():
    """ "w/o GD (I)" of Table 4 changes `fuse`, not the objective."""
    models = [small_unimo2(grounding={"enabled_at_inference": value}) for value in (True, False)]
    with paddle.no_grad():
        first, second = (objective_of(model).losses(model, unpaired_batch())[0] for model in models)
    assert {name: float(x) for name, x in first.items()} == {name: float(x) for name, x in second.items()}


def test_no_masked_token_gives_zero_and_every_gradient():
    model = small_unimo2()
    objective = objective_of(model)
    losses, _ = objective.losses(model, pretrain_batch(masked=0))
    objective.total(losses).backward()
    assert float(losses["mlm"]) == 0.0
    assert [name for name, gradient in gradients(model, objective).items() if gradient is None] == []


def test_hard_negatives_show_other_images_to_mismatched_texts():
    model = small_unimo2(objective={"itm_negatives": "hard"})
    objective, batch = objective_of(model), pretrain_batch()
    losses, _ = objective.losses(model, batch)
    objective.total(losses).backward()
    assert set(losses) == PAIRS | {"itc"}
    assert [name for name, gradient in gradients(model, objective).items() if gradient is None] == []
    text = model.encode_text(batch.input_ids, batch.attention_mask)
    image = model.encode_image(batch.images)
    contrast = objective.contrast(
        objective.pair_vectors(text.text[:, 0], image.image[:, 0], batch.image_group)
    )
    candidates, rows, labels = hard_images(contrast, image, batch.itm_labels)
    shown = candidates.select(rows)
    assert paddle.equal_all(shown.image[0], image.image[0])
    assert not any(paddle.equal_all(shown.image[row], image.image[row]) for row in (1, 2))
    assert labels.tolist() == [1, 0, 0]


@paddle.no_grad()
def test_contrast_of_the_release_has_no_heads():
    """Class tokens as they are, that of the image with unit length, over a clipped temperature; both ways."""
    model = small_unimo2(objective={"contrastive": True, "contrastive_heads": False})
    objective, batch = objective_of(model), pretrain_batch()
    assert not [
        name for name, _ in objective.named_parameters() if name.startswith(("itc_text", "itc_image"))
    ]
    text, image = model.encode_text(batch.input_ids, batch.attention_mask), model.encode_image(batch.images)
    words, seen = text.text.numpy()[:, 0].astype("float64"), image.image.numpy()[:, 0].astype("float64")
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    scores = seen @ words.T / 0.07
    both = [-np.diag(s - np.log(np.exp(s).sum(1, keepdims=True))).mean() for s in (scores, scores.T)]
    losses, _ = objective.losses(model, batch)
    assert float(losses["itc"]) == pytest.approx(sum(both) / 2, rel=1e-4)


def test_contrast_alone_keeps_the_negatives_of_the_batch():
    plain, added = small_unimo2(), small_unimo2(objective={"contrastive": True})
    batch = pretrain_batch()
    with paddle.no_grad():
        first, second = (objective_of(model).losses(model, batch)[0] for model in (plain, added))
    assert set(second) - set(first) == {"itc"}
    assert float(second["itm"]) != 0 and float(second["itc"]) > 0


def test_false_images_of_the_data_set():
    model = small_unimo2()
    objective, batch = objective_of(model), pretrain_batch()
    false = inputs(2, seed=9)[0]
    shown = paddle.concat([batch.images, false])[paddle.to_tensor([0, 4, 3])]
    batch = dataclasses.replace(batch, false_pixels=false, itm_image_index=paddle.to_tensor([0, 4, 3]))
    with paddle.no_grad():
        losses, _ = objective.losses(model, batch)
        clean = model.encode_text(batch.input_ids, batch.attention_mask)
        pooled = model.fuse(clean, model.encode_image(shown)).pooled
        expected = F.cross_entropy(objective.itm_head(pooled), batch.itm_labels)
    assert float(losses["itm"]) == pytest.approx(float(expected), abs=1e-5)


def test_it_learns_a_batch_by_heart():
    paddle.seed(0)
    model = build_model(unimo2_config())
    model.train()
    objective, batch = Objective(model.config), unpaired_batch()
    optimizer = paddle.optimizer.AdamW(1e-2, parameters=[*model.parameters(), *objective.parameters()])
    curve = []
    for _ in range(20):
        losses = objective.losses(model, batch)[0]
        objective.total(losses).backward()
        optimizer.step()
        optimizer.clear_grad()
        curve.append({name: float(value) for name, value in losses.items()})
    assert np.isfinite([list(losses.values()) for losses in curve]).all()
    for name in ("mlm", "itm", "text_mlm", "vcl"):
        assert curve[-1][name] < 0.6 * curve[0][name], name
