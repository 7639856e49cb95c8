"""Converted files of METER and BridgeTower compute what their papers say: every layer, every head, padded."""

from __future__ import annotations

import paddle
import pytest
from bridgetower_names import classifier, contrast, ranking, released_shapes
from meter_numpy import Meter
from parity_pairs import Pairs
from seeded_weights import seeded

from unimo.config import merge_into
from unimo.models.unimo3 import PAPER
from unimo.registry import build_model, task_class, task_config
from unimo.weights.layers import load_into

WIDTH, WORDS = 32, 60
GIVEN = {part: {"num_heads": 4} for part in ("text", "vision", "fusion")}
PAIRS = Pairs((5, WORDS), padding=1)
close, each = PAIRS.close, PAIRS.each


def opened(kind: str, task: str = "pretrain", types: int = 2, **heads: tuple[int, ...]):
    """A reading and our task, of the same tensors."""
    shapes = released_shapes(kind, WIDTH, 4, 2, 3, patch=8, words=WORDS, types=types) | heads
    if task == "retrieval":
        shapes |= {"temperature": ()} if kind == "bridgetower" else {}
    tensors = seeded(shapes)
    found = PAPER.converters[kind](tensors, "the file", task, GIVEN)
    options = merge_into(task_config(task, found.config.name), found.task, "task")
    made = task_class(task).create(build_model(found.config), options, {"answers": list("abcdefg")})
    load_into(made, found.tensors, "the file")
    made.eval()
    return Meter(tensors, 4, 4, 4), made


@pytest.mark.parametrize("kind", ["meter", "bridgetower"])
def test_every_layer_and_the_heads_of_pretraining(kind: str) -> None:
    reading, task = opened(kind)
    model, fusion = task.model, {}
    for stream in ("text", "image"):
        for number, layer in enumerate(getattr(model.fusion, f"{stream}_layers")):
            key = stream, number
            layer.register_forward_post_hook(lambda _, __, out, key=key: fusion.__setitem__(key, out[0]))
    with paddle.no_grad():
        text, image = PAIRS.encoded(model, layers=True)
        fused = model.fuse(text, image)
        words, matching = task.objective.mlm_head(fused.fused_text), task.objective.itm_head(fused.pooled)
    assert len(text.text_layers) == 5 and len(image.image_layers) == (4 if kind == "meter" else 5)
    for layer, states in zip(text.text_layers, zip(*map(reading.text, PAIRS.ids), strict=True), strict=True):
        close(layer, list(states))
    for layer, states in zip(
        image.image_layers, zip(*map(reading.image, PAIRS.pixels), strict=True), strict=True
    ):
        close(layer, list(states))
    assert len(fusion) == 4
    pairs = each(reading.fuse)
    for (stream, number), layer in fusion.items():
        close(layer, [states[number][stream == "image"] for states in pairs])
    close(fused.pooled, reading.pooled)
    close(words, [reading.words(states[-1][0]) for states in pairs])
    close(matching, lambda *pair: reading.linear(reading.pooled(*pair), "itm_score.fc"))


@pytest.mark.parametrize("kind", ["meter", "bridgetower"])
def test_logits_of_classifiers(kind: str) -> None:
    for task, head, classes in (("vqa", "vqa_classifier", 7), ("entailment", "snli_classifier", 3)):
        reading, made = opened(kind, task, **classifier(head, 2 * WIDTH, 48, classes))
        with paddle.no_grad():
            logits = made.classifier(made.model.fuse(*PAIRS.encoded(made.model, layers=True)).pooled)
        close(logits, lambda *pair, head=head, reading=reading: reading.classify(reading.pooled(*pair), head))


def test_logits_of_two_pictures() -> None:
    reading, made = opened("bridgetower", "nlvr2", 3, **classifier("nlvr2_classifier", 4 * WIDTH, 48, 2))
    PAIRS.close_of_two_pictures(reading, made)


def test_scores_of_retrieval() -> None:
    """METER ranks by one output; here it is the difference of two, of which the first is 0."""
    reading, made = opened("meter", "retrieval", **ranking(WIDTH))
    with paddle.no_grad():
        scores = made.match_scores(*PAIRS.encoded(made.model, layers=True))
    close(scores.unsqueeze(1), lambda *pair: reading.linear(reading.pooled(*pair), "rank_output"))
    reading, made = opened("bridgetower", "retrieval", **contrast("bridgetower", WIDTH, 16))
    with paddle.no_grad():
        text, image = PAIRS.encoded(made.model, layers=True)
        vectors, logits = (made.text_vectors(text), made.image_vectors(image)), made.match_logits(text, image)
    for side in (0, 1):
        close(vectors[side], lambda *pair, side=side: reading.contrast(*pair)[side])
    close(logits, lambda *pair: reading.linear(reading.pooled(*pair), "itm_score.fc"))
