"""Rows and columns of attentions: every model says truly what they are, whatever it registers."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest

from unimo.analysis.attention import MASKED
from unimo.models.base import Axes
from unimo.registry import create_model, list_models, model_config

TOKENS, SHORT, REGIONS = 7, 5, 4
"""Tokens of the longer text and of the shorter one; regions of the image that has more."""
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in list_models() if name.endswith("_tiny")),
    ("unimo2_tiny", {"fusion": {"visibility": "full"}}),
    ("unimo2_tiny", {"grounding": {"mask_padding": False}}),
    ("unimo2_tiny", {"grounding": {"enabled": False}}),
    ("semvlp_tiny", {"mode": "two"}),
]


def test_a_cut_has_the_rows_and_columns_of_its_parts() -> None:
    axes = Axes(("text", "image"), ("image", "grounded", "text"))
    table = np.arange(2 * 1 * 5 * 9).reshape(2, 1, 5, 9)
    sizes = {"text": 2, "image": 3, "grounded": 4}
    np.testing.assert_array_equal(axes.cut(table, sizes, "image", "grounded"), table[:, :, 2:, 3:7])
    np.testing.assert_array_equal(axes.cut(table, sizes, "text", "text"), table[:, :, :2, 7:])
    without = {"text": 2, "image": 3}
    np.testing.assert_array_equal(axes.cut(table, without, "text", "text"), table[:, :, :2, 3:5])
    assert axes.cut(table, sizes, "grounded", "text") is None


@pytest.mark.parametrize(("name", "changes"), SETTINGS, ids=str)
def test_rows_sum_to_one_and_padding_is_where_the_axes_say(name: str, changes: dict[str, Any]) -> None:
    paddle.seed(0)
    model = create_model(name, **{key: value for key, value in changes.items() if key != "mode"})
    model.mode = changes.get("mode", "single")
    model.eval()
    rng = np.random.default_rng(0)
    ids = paddle.to_tensor(rng.integers(5, 40, (2, TOKENS)))
    mask = paddle.to_tensor(np.arange(TOKENS) < np.array([[SHORT], [TOKENS]])).astype("int64")
    config, real = model_config(name), {"text": SHORT}
    if hasattr(config, "regions"):
        features = rng.normal(size=(2, REGIONS, config.regions.feature_size)).astype("float32")
        locations = rng.random((2, REGIONS, 5)).astype("float32")
        real["image"] = REGIONS  # [IMG] and all regions of the first image but one
        region_mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
        arrays = {"features": features, "locations": locations, "mask": region_mask}
        images = {key: paddle.to_tensor(value) for key, value in arrays.items()}
    else:
        side = config.vision.image_size
        images = paddle.to_tensor(rng.normal(size=(2, 3, side, side)).astype("float32"))
    with paddle.no_grad():
        text = model.encode_text(ids, mask, attentions=True)
        image = model.encode_image(images, attentions=True)
        fused = model.fuse(text, image, attentions=True)
    sizes = {"text": TOKENS, "image": image.image.shape[1]}
    if fused.grounded_ids is not None:
        sizes["grounded"] = fused.grounded_ids.shape[1]
    between = set()
    maps = {**text.attentions, **image.attentions, **fused.attentions}
    for full_name, weights in maps.items():
        kind, _, layer = full_name.rpartition(".")
        axes = model.attention_axes[kind]
        assert int(layer) >= 1 and weights.shape[0] == 2
        lengths = [sum(sizes.get(part, 0) for part in parts) for parts in (axes.queries, axes.keys)]
        assert weights.shape[2:] == lengths, full_name
        for query in axes.queries:
            blocks = {key: axes.cut(weights, sizes, query, key).numpy()[0] for key in axes.keys}
            rows = slice(real.get(query))
            total = sum(block[:, rows].sum(axis=-1) for block in blocks.values())
            np.testing.assert_allclose(total, 1.0, atol=1e-5, err_msg=full_name)
            for key, block in blocks.items():
                shown = block[:, rows]
                padding = shown[:, :, real[key] :] if key in real else shown[:, :, :0]
                assert padding.max(initial=0) < MASKED, full_name
                if shown.max(initial=0) > MASKED:
                    assert (shown[:, :, : real.get(key)] > MASKED).all(), full_name
                    between.add((query, key))
    assert {pair for pair in between if len(set(pair)) > 1} == expected_between(name, changes)


def expected_between(name: str, changes: dict[str, Any]) -> set[tuple[str, str]]:
    """Return which parts read which other ones, from the papers."""
    image_reads, text_reads = {("image", "text")}, {("text", "image")}
    if changes.get("mode") == "two":  # SemVLP, section 3.2.2: only the image has the cross-attention
        return image_reads
    if not name.startswith("unimo2"):
        return image_reads | text_reads
    if changes.get("grounding") == {"enabled": False}:  # nothing is left to meet in
        return set()
    over = {(a, b) for a in ("image", "text", "grounded") for b in ("image", "text", "grounded") if a != b}
    return over if "fusion" in changes else over - image_reads - text_reads
