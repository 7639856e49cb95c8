"""A converted VLMo computes what the paper and the release say: every layer, every head, padded texts."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from parity_pairs import Pairs
from seeded_weights import seeded
from vlmo_names import released_shapes, task_shapes
from vlmo_numpy import VlmoRelease

from unimo import registry
from unimo.config import merge_into
from unimo.models.vlmo.convert import from_release
from unimo.weights.layers import load_into

HEADS, DEPTH, WORDS = 4, 3, 50
PAIRS = Pairs((1, WORDS), padding=0)
close, each = PAIRS.close, PAIRS.each


def opened(relative: bool, task: str = "pretrain"):
    """A reading and our task, of the same tensors."""
    shapes = released_shapes(32, DEPTH, HEADS, 2, relative=relative, words=WORDS, patch=8, side=3)
    tensors = seeded(
        shapes if task == "pretrain" else task_shapes(task, shapes, 3, 7 if task == "vqa" else 2)
    )
    found = from_release(tensors, "the file", task, {"transformer": {"num_heads": HEADS}})
    options = merge_into(registry.task_config(task, "vlmo_base"), found.task, "task")
    made = registry.task_class(task).create(
        registry.build_model(found.config), options, {"answers": list("abcdefg")}
    )
    load_into(made, found.tensors, "the file")
    made.eval()
    return VlmoRelease(tensors, HEADS), made


@pytest.mark.parametrize("relative", [True, False])
def test_every_layer_of_texts_images_and_pairs(relative: bool) -> None:
    reading, task = opened(relative)
    model = task.model
    with paddle.no_grad():
        text, image = PAIRS.encoded(model)
        for has_text, has_image in ((True, False), (False, True), (True, True)):
            sequence = model.join(text if has_text else None, image if has_image else None)
            texts = PAIRS.ids if has_text else [None] * len(PAIRS.ids)
            images = PAIRS.pixels if has_image else [None] * len(PAIRS.ids)
            layers = zip(*map(reading.run, texts, images), strict=True)
            for depth, expected in enumerate(layers):
                close(model.run(sequence, last=depth)[0], list(expected))
        assert depth == DEPTH


@pytest.mark.parametrize("relative", [True, False])
def test_heads_of_pretraining(relative: bool) -> None:
    reading, task = opened(relative)
    model, heads = task.model, task.objective
    with paddle.no_grad():
        text, image = PAIRS.encoded(model)
        fused = model.fuse(text, image)
        words, matching = heads.mlm_head(fused.fused_text), heads.itm_head(fused.pooled)
        of_text, pair_text = model.contrast_states(text, None)
        of_image, pair_image = model.contrast_states(None, image)
        vectors = {
            "text": heads.itc_text_head(of_text),
            "image": heads.itc_image_head(of_image),
            "vl_text": heads.itc_pair_text_head(pair_text),
            "vl_image": heads.itc_pair_image_head(pair_image),
        }
    close(fused.pooled, reading.pooled)
    close(words, lambda ids, pixels: reading.words(reading.last(ids, pixels)[: len(ids)]))
    close(matching, lambda *pair: reading.linear(reading.pooled(*pair), "itm_score.fc"))
    for name, vector in vectors.items():
        is_text = name.endswith("text")

        def expected(ids: np.ndarray, pixels: np.ndarray, name: str = name, is_text: bool = is_text):
            pair = (ids, None) if is_text else (None, pixels)
            return reading.vector(name, *pair, as_pair=name.startswith("vl"))

        close(vector, expected)


def test_logits_of_answers_and_of_two_pictures() -> None:
    reading, made = opened(True, "vqa")
    with paddle.no_grad():
        logits = made.classifier(made.model.fuse(*PAIRS.encoded(made.model)).pooled)
    close(logits, lambda *pair: reading.classify(reading.pooled(*pair), "vqa_classifier"))
    reading, made = opened(True, "nlvr2")
    PAIRS.close_of_two_pictures(reading, made)


def test_vectors_and_scale_of_retrieval() -> None:
    reading, made = opened(True, "retrieval")
    with paddle.no_grad():
        text, image = PAIRS.encoded(made.model)
        vectors = made.text_vectors(text), made.image_vectors(image)
    close(vectors[0], lambda ids, _: reading.vector("text", ids, None))
    close(vectors[1], lambda _, pixels: reading.vector("image", None, pixels))
    np.testing.assert_allclose(float(made.sigma()), np.exp(-reading.w["logit_scale"]), rtol=1e-6)
