"""FLOPs of the matrix products of one pre-training step, counted from a config. Imports no Paddle.

A product of [m, k] and [k, n] is 2 m k n. Everything else (norms, softmax, activations, sigmoids of gates,
AdamW) is ignored. Training is three times the forward pass: each product has a gradient for either factor.
(The patch projection needs no gradient for pixels; these 0.1% are not subtracted.)
"""

from __future__ import annotations

from typing import Any

from unimo.models.semvlp.config import Config as SemVlpConfig
from unimo.models.semvlp.config import Mode
from unimo.models.unimo3.config import Config, FusionConfig, linked_layers
from unimo.models.vlmo.config import Config as VlmoConfig

Parts = dict[str, int]
TRAIN = 3
"""Work of a training step in units of its forward pass."""
REGIONS = 100
"""Objects of an image (SemVLP, section 4.1)."""


def product(rows: int, inner: int, out: int) -> int:
    """Count [rows, inner] times [inner, out]."""
    return 2 * rows * inner * out


def attention(queries: int, keys: int, width: int) -> int:
    """Count logits and weighted sums of all heads."""
    return 4 * queries * keys * width


def block(tokens: int, width: int, inner: int, queries: int | None = None) -> int:
    """Count the forward pass of a tower block: self-attention and feed-forward.

    Args:
        tokens: length of the sequence.
        queries: number of rows that are read afterwards; all when None. Keys, values and queries are one
            product, computed for all tokens.
    """
    queries = tokens if queries is None else queries
    projections = product(tokens, width, 3 * width) + product(queries, width, width)
    return projections + attention(queries, tokens, width) + 2 * product(queries, width, inner)


def cross_block(tokens: int, other: int, width: int, inner: int, queries: int | None = None) -> int:
    """Count the forward pass of one stream of a fusion layer.

    Args:
        tokens, other: lengths of this and the other stream.
        queries: number of rows that are read afterwards; all when None. Keys and values of self-attention,
            and queries, which are part of the same product, are computed for all tokens.
    """
    queries = tokens if queries is None else queries
    own = product(tokens, width, 3 * width) + attention(queries, tokens, width)
    cross = product(other, width, 2 * width) + attention(queries, other, width)
    return own + cross + 3 * product(queries, width, width) + 2 * product(queries, width, inner)


def image_tokens(config: Any) -> int:
    """Return V, the number of patches and the class token, or of objects and [IMG]."""
    return 1 + (config.vision.num_patches if hasattr(config, "vision") else REGIONS)


def own_step(config: Config, batch_size: int, text_len: int, targets: int) -> Parts:
    """Count our pre-training step: one pass over images, two over texts, the last layer as far as it is read.

    Args:
        config: config of a model of the UNIMO-3 family.
        batch_size: number of pairs.
        text_len: number of tokens of each text, without padding.
        targets: number of MLM targets in the whole batch.

    Returns:
        FLOPs by part, forward and backward.
    """
    text, vision, fusion = config.text, config.vision, config.fusion
    v, t, pairs = image_tokens(config), text_len, 2 * batch_size
    width, inner = fusion.hidden_size, fusion.intermediate_size
    layers = fusion.num_layers - 1
    pair = cross_block(t, v, width, inner) + cross_block(v, t, width, inner)
    last_mlm = cross_block(t, v, width, inner)
    last_itm = cross_block(t, v, width, inner, 1) + cross_block(v, t, width, inner, 1)
    image_links = _links(fusion, v, vision.hidden_size, vision.used_layers, fusion.image_start)
    text_links = _links(fusion, t, text.hidden_size, text.num_layers, fusion.text_start)
    forward = {
        "image_tower": batch_size * _image_tower(config, vision.used_layers),
        "text_tower": pairs * text.num_layers * block(t, text.hidden_size, text.intermediate_size),
        "projections": batch_size * image_links[0] + pairs * text_links[0],
        "gates": batch_size * image_links[1] + pairs * text_links[1],
        "fusion": pairs * layers * pair + batch_size * (last_mlm + last_itm),
        "heads": _heads(config, targets, batch_size),
    }
    return {part: TRAIN * count for part, count in forward.items()}


def vlmo_step(config: VlmoConfig, batch_size: int, text_len: int, targets: int) -> Parts:
    """Count MLM and ITM of a VLMo without ITC: two passes, the last layer as far as it is read.

    Args: see `own_step`.
    """
    transformer, queries = config.transformer, (text_len, 1)
    if not transformer.has_pair_experts:  # rows of the last layer go through several experts
        queries = (text_len + image_tokens(config),) * 2
    return _one_stream(config, batch_size, text_len, queries, targets)


def vilt_step(config: VlmoConfig, batch_size: int, text_len: int) -> Parts:
    """Count a step of Hugging Face's ViLT: two full passes, vocabulary logits at all positions."""
    rows = text_len + image_tokens(config)
    return _one_stream(config, batch_size, text_len, (rows, rows), batch_size * text_len)


def _one_stream(
    config: VlmoConfig, batch_size: int, text_len: int, queries: tuple[int, int], mlm_tokens: int
) -> Parts:
    """Count a pass for MLM and one for ITM, whose last layers compute `queries` rows of each pair."""
    width, inner = config.transformer.hidden_size, config.transformer.intermediate_size
    rows, layers = text_len + image_tokens(config), config.transformer.num_layers - 1
    patches = product(config.vision.num_patches, 3 * config.vision.patch_size**2, width)
    last = sum(block(rows, width, inner, count) for count in queries)
    forward = {
        "patches": 2 * batch_size * patches,
        "blocks": batch_size * (2 * layers * block(rows, width, inner) + last),
        "heads": _pooled_heads(width, config.text.vocab_size, mlm_tokens, batch_size),
    }
    return {part: TRAIN * count for part, count in forward.items()}


def semvlp_step(config: SemVlpConfig, mode: Mode, batch_size: int, text_len: int, targets: int) -> Parts:
    """Count MLM and ITM of SemVLP in a mode: one pass for both, all rows of the last layer.

    Args: see `own_step`.
    """
    text, width, inner = config.text, config.hidden_size, config.text.intermediate_size
    t, v, start = text_len, image_tokens(config), config.cross.start
    if mode == "single":
        blocks = text.num_layers * block(t + v, width, inner)
    else:
        upper = (text.num_layers - start) * cross_block(v, t, width, inner)
        blocks = text.num_layers * block(t, width, inner) + start * block(v, width, inner) + upper
    return _region_step(config, batch_size, blocks, config.regions.feature_size + 4, targets)


def visualbert_step(config: SemVlpConfig, batch_size: int, text_len: int) -> Parts:
    """Count a step of Hugging Face's VisualBERT, which has no [IMG]: one full pass, vocabulary logits at all
    positions, those of regions included."""
    text, rows = config.text, text_len + REGIONS
    blocks = text.num_layers * block(rows, config.hidden_size, text.intermediate_size)
    return _region_step(config, batch_size, blocks, config.regions.feature_size, batch_size * rows)


def _region_step(config: SemVlpConfig, batch_size: int, blocks: int, inputs: int, mlm_tokens: int) -> Parts:
    """Count a pass of `blocks` FLOPs a pair over regions of `inputs` numbers each."""
    width = config.hidden_size
    forward = {
        "regions": batch_size * product(REGIONS, inputs, width),
        "blocks": batch_size * blocks,
        "heads": _pooled_heads(width, config.text.vocab_size, mlm_tokens, batch_size),
    }
    return {part: TRAIN * count for part, count in forward.items()}


def bridgetower_step(config: Config, batch_size: int, text_len: int) -> Parts:
    """Count a step of Hugging Face's BridgeTower: two full passes, vocabulary logits at all positions.

    The MLM pass does not read the image stream of the last fusion layer, so there is no backward pass
    through it.
    """
    text, vision, fusion = config.text, config.vision, config.fusion
    v, t, pairs = image_tokens(config), text_len, 2 * batch_size
    width, inner = fusion.hidden_size, fusion.intermediate_size
    pair = cross_block(t, v, width, inner) + cross_block(v, t, width, inner)
    linked = product(v, vision.hidden_size, width) + product(t, text.hidden_size, width)
    forward = {
        "image_tower": pairs * _image_tower(config, vision.num_layers),
        "text_tower": pairs * text.num_layers * block(t, text.hidden_size, text.intermediate_size),
        "projections": pairs * fusion.num_layers * linked,
        "gates": 0,
        "fusion": pairs * fusion.num_layers * pair,
        "heads": _heads(config, batch_size * t, batch_size),
    }
    parts = {part: TRAIN * count for part, count in forward.items()}
    parts["fusion"] -= (TRAIN - 1) * batch_size * cross_block(v, t, width, inner)
    return parts


def _image_tower(config: Config, layers: int) -> int:
    vision, v = config.vision, image_tokens(config)
    patches = product(v - 1, 3 * vision.patch_size**2, vision.hidden_size)
    return patches + layers * block(v, vision.hidden_size, vision.intermediate_size)


def _links(
    fusion: FusionConfig, tokens: int, tower_width: int, tower_layers: int, start: int
) -> tuple[int, int]:
    """Count the links of one modality for one sequence: projections, and products W T_k of gates."""
    table = linked_layers(fusion, tower_layers, start)
    projected = {layer for layers in table for layer in layers} | {fusion.start(tower_layers, start) - 1}
    links = 0 if fusion.gate_dim == "none" else sum(len(layers) for layers in table)
    width = fusion.hidden_size
    return len(projected) * product(tokens, tower_width, width), links * product(tokens, width, width)


def _pooled_heads(width: int, vocabulary: int, mlm_tokens: int, pairs: int) -> int:
    """Count the head of MLM, and that of ITM on one pooled state."""
    matching = product(1, width, width) + product(1, width, 2)
    return _mlm_head(width, vocabulary, mlm_tokens) + pairs * matching


def _heads(config: Config, mlm_tokens: int, pairs: int) -> int:
    width = config.fusion.hidden_size
    matching = 2 * product(1, width, width) + product(1, 2 * width, 2)
    return _mlm_head(width, config.text.vocab_size, mlm_tokens) + pairs * matching


def _mlm_head(width: int, vocabulary: int, tokens: int) -> int:
    return product(tokens, width, width) + product(tokens, width, vocabulary)
