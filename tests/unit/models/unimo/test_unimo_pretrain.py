"""UNIMO's objective: which losses a batch gives, what reaches the parameters, what CMCL compares."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from small_unimo import CLASSES, FEATURE, REGIONS, TEXT, VOCABULARY, regions, small_config, small_model, texts

from unimo.errors import ConfigError
from unimo.models.unimo.batches import ContrastBatch, LanguageBatch, UnifiedBatch, UnifiedPart, VisionBatch
from unimo.models.unimo.pretrain import Objective
from unimo.tasks.base import to_tensors


def language(seed=3, targets=True):
    given, rng = texts(seed=seed), np.random.default_rng(seed)
    is_target = np.zeros((3, TEXT), np.int64)
    is_target[1, 4:] = 1
    batch = {
        **{name: tensor.numpy() for name, tensor in given.items()},
        "positions": np.tile(np.arange(2, TEXT + 2), (3, 1)),
        "is_target": is_target,
        "mlm_positions": np.array([1, 2 * TEXT + 3]),
        "mlm_labels": rng.integers(4, VOCABULARY, 2),
        "seq2seq_positions": TEXT + np.array([4, 5, 6]),
        "seq2seq_labels": rng.integers(4, VOCABULARY, 3),
    }
    if not targets:
        del batch["is_target"]
        batch["seq2seq_positions"] = batch["seq2seq_labels"] = np.zeros(0, np.int64)
    return to_tensors(LanguageBatch(**batch))


def vision(seed=4):
    rng, shown = np.random.default_rng(seed), regions(seed=seed)
    masked = np.zeros((3, REGIONS), np.int64)
    masked[[0, 1, 1], [1, 0, 4]] = 1
    rows, columns = np.nonzero(masked)
    return to_tensors(
        VisionBatch(
            regions={**shown, "masked": masked},
            positions=rows * (1 + REGIONS) + 1 + columns,
            features=shown["features"].numpy()[rows, columns],
            class_probs=rng.random((3, CLASSES)).astype("float32"),
        )
    )


def contrast():
    """Three pairs of two pictures; pairs 0 and 1 share picture, related picture and related text."""
    integers = {
        "image_group": [11, 12, 13],
        "text_ids": [21, 22, 23, 24],
        "image_row": [0, 0, 1],
        "text_row": [0, 1, 2],
        "related_images": [[13], [13], [-1]],
        "related_texts": [[24], [24], [21]],
        "rewrite_pair": [0, 0, 2],
        "rewrite_row": [3, 4, 3],
        "rewrite_positive": [1, 0, 0],
    }
    captions = texts(batch=5, seed=6)
    arrays = {name: np.array(values, np.int64) for name, values in integers.items()}
    shown = {"regions": regions(seed=7), "captions": captions, "related": texts(batch=1, seed=8)}
    return to_tensors(ContrastBatch(**arrays, **shown))


def batch_of(**parts):
    return UnifiedBatch(**parts, sample_ids=["x"])


def whole_batch():
    pairs = UnifiedPart(
        language=language(),
        vision=vision(),
        contrast=contrast(),
        itm_image_index=paddle.to_tensor(np.array([2, 1, 0])),
        itm_labels=paddle.to_tensor(np.array([0, 1, 0])),
    )
    texts_alone, images_alone = UnifiedPart(language=language(9)), UnifiedPart(vision=vision(10))
    return batch_of(pairs=pairs, texts=texts_alone, images=images_alone)


def test_every_parameter_gets_a_gradient_from_every_kind_of_batch():
    whole = whole_batch()
    for names in (("pairs", "texts", "images"), ("pairs",), ("texts",), ("images",)):
        model, objective = small_model(), Objective(small_config())
        losses, _ = objective.losses(model, batch_of(**{name: getattr(whole, name) for name in names}))
        objective.total(losses).backward()
        for name, parameter in [*model.named_parameters(), *objective.named_parameters()]:
            assert parameter.grad is not None, (names, name)
        reached = {name for name, parameter in model.named_parameters() if parameter.grad.abs().max() > 0}
        assert ("match_head.weight" in reached) is ("pairs" in names)
        assert ("regions.feature.weight" in reached) is (names != ("texts",))


def test_the_total_is_what_algorithm_1_adds():
    model, objective = small_model(), Objective(small_config())
    losses, report = objective.losses(model, whole_batch())
    vision_losses = ("region", "region_class", "image_region", "image_region_class")
    language_losses = ("mlm", "seq2seq", "text_mlm", "text_seq2seq")
    assert set(losses) == {*vision_losses, *language_losses, "cmcl"}
    expected = sum(losses[name].item() for name in vision_losses) + losses["cmcl"].item()
    expected += sum(losses[name].item() for name in language_losses) / 2
    assert objective.total(losses).item() == pytest.approx(expected, rel=1e-6)
    assert {"mlm_accuracy", "region_accuracy", "cmcl_accuracy"} <= set(report)


def test_matching_takes_the_place_of_contrast():
    model = small_model()
    objective = Objective(small_config(objective={"contrast": "itm"}))
    losses, report = objective.losses(model, batch_of(pairs=whole_batch().pairs))
    assert "itm" in losses and "cmcl" not in losses and "itm_accuracy" in report
    batch = contrast()
    text = model.encode_text(**batch.captions).select(paddle.to_tensor([0, 1, 2]))
    image = model.encode_image(batch.regions).select(paddle.to_tensor([1, 0, 0]))  # pairs 2, 1, 0
    scores = model.match(model.fuse(text, image).pooled).numpy().astype("float64")
    signs = np.array([1, -1, 1])
    assert losses["itm"].item() == pytest.approx(np.log1p(np.exp(signs * scores)).mean(), rel=1e-5)


def test_cmcl_is_equation_6_of_scores_of_pairs_and_of_parts_encoded_alone():
    model, objective, batch = small_model(), Objective(small_config()), contrast()
    losses, _ = objective.losses(model, batch_of(pairs=whole_batch().pairs))
    image, captions = model.encode_image(batch.regions), model.encode_text(**batch.captions)
    related = model.encode_text(**batch.related)

    def pair(row, text):
        chosen = captions.select(paddle.to_tensor([text])), image.select(paddle.to_tensor([row]))
        return np.exp(model.match(model.fuse(*chosen).pooled).item())

    words = paddle.concat([model.text_vector(captions), model.text_vector(related)])
    alone = np.exp(model.match_all(model.image_vector(image), words).numpy().astype("float64"))
    # Columns of `alone`: captions 0 to 4, of which 3 and 4 are rewritten ones, and the related text 5.
    p0 = pair(0, 0) + pair(0, 3), pair(0, 4)  # X+, X-
    p1, p2 = (pair(0, 1), 0.0), (pair(1, 2), pair(1, 3))
    related_image = [alone[2, 0], alone[2, 1], 0.0]
    related_text = [alone[0, 5], alone[0, 5], alone[1, 0]]
    negative_images = [alone[1, 0], alone[1, 1], alone[0, 2] + alone[2, 2]]
    # Captions 0 and 1 are both of picture 0: neither is a negative of the other.
    negative_texts = [alone[0, 2], alone[0, 2], alone[1, 1] + alone[1, 5]]
    terms = []
    for row, (positive, hard) in enumerate((p0, p1, p2)):
        above = positive + related_image[row] + related_text[row]
        terms.append(-np.log(above / (above + hard + negative_images[row] + negative_texts[row])))
    assert losses["cmcl"].item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_related_images_and_texts_are_encoded_once_a_step():
    model, objective = small_model(), Objective(small_config())
    rows: dict[str, int] = {}
    for name in ("encode_image", "encode_text"):
        original = getattr(model, name)

        def counted(*args, name=name, original=original, **kwargs):
            encoded = original(*args, **kwargs)
            part = encoded.image if name == "encode_image" else encoded.text
            rows[name] = rows.get(name, 0) + part.shape[0]
            return encoded

        object.__setattr__(model, name, counted)
    losses: dict[str, paddle.Tensor] = {}
    vectors = objective.part_vectors(model, "cmcl", UnifiedPart(contrast=contrast()))
    losses["cmcl"], _ = objective.over_step("cmcl", vectors, model)
    assert rows == {"encode_image": 3, "encode_text": 5 + 1}


def test_without_detector_classes_only_features_are_regressed():
    objective = Objective(small_config(regions={"num_classes": 0}))
    batch = vision()
    batch.class_probs = None
    model = small_model(regions={"num_classes": 0})
    losses, report = objective.losses(model, batch_of(images=UnifiedPart(vision=batch)))
    assert set(losses) == {"image_region"} and not report
    assert objective.class_head is None and objective.region_head.weight.shape == [16, FEATURE]


def test_a_batch_without_fragments_has_a_loss_of_zero_for_them():
    losses, _ = Objective(small_config()).losses(
        small_model(), batch_of(texts=UnifiedPart(language=language(targets=False)))
    )
    assert losses["text_seq2seq"].item() == 0.0 and losses["text_mlm"].item() > 0


def test_sums_cannot_be_contrasted():
    with pytest.raises(ConfigError, match="pair_feature=product"):
        Objective(small_config(pair_feature="sum"))
