"""Names and shapes of released files of METER and BridgeTower, and of BridgeTower's port to Hugging Face."""

from __future__ import annotations

import numpy as np
from seeded_weights import seeded

Shapes = dict[str, tuple[int, ...]]


def _layer(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _bert(name: str, width: int, attentions: tuple[str, ...]) -> Shapes:
    shapes = _layer(f"{name}.intermediate.dense", 4 * width, width)
    shapes |= _layer(f"{name}.output.dense", width, 4 * width) | _norm(f"{name}.output.LayerNorm", width)
    for kind in attentions:
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _layer(f"{name}.{kind}.{part}", width, width)
        shapes |= _norm(f"{name}.{kind}.output.LayerNorm", width)
    return shapes


def _vision(name: str, blocks: int, width: int, grid: int, patch: int, is_hf: bool) -> Shapes:
    table, conv = ("positional_embedding", "conv1.weight")
    if is_hf:
        table, conv = "embeddings.position_embedding.weight", "embeddings.patch_embedding.weight"
    token = "embeddings.class_embedding" if is_hf else "class_embedding"
    shapes: Shapes = {f"{name}.{token}": (width,), f"{name}.{table}": (grid**2 + 1, width)}
    shapes[f"{name}.{conv}"] = (width, 3, patch, patch)
    shapes |= _norm(f"{name}.ln_pre", width) | _norm(f"{name}.ln_post", width)
    for i in range(blocks):
        block = f"{name}.transformer.resblocks.{i}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
        }
        shapes |= _layer(f"{block}.attn.out_proj", width, width)
        shapes |= _layer(f"{block}.mlp.c_fc", 4 * width, width)
        shapes |= _layer(f"{block}.mlp.c_proj", width, 4 * width)
        shapes |= _norm(f"{block}.ln_1", width) | _norm(f"{block}.ln_2", width)
    return shapes


def released_shapes(
    kind: str,
    width: int = 768,
    depth: int = 12,
    fusion: int = 6,
    grid: int = 18,
    *,
    patch: int = 16,
    words: int = 50265,
    types: int = 2,
    has_heads: bool = True,
) -> Shapes:
    """Names -> shapes, [out, in]; `kind` is `meter`, `bridgetower` or `hf-bridgetower`, `depth` of text."""
    is_hf, is_meter = kind == "hf-bridgetower", kind == "meter"
    text = "text_model" if is_hf else "text_transformer"
    words_of = f"{text}.embeddings"
    shapes: Shapes = {
        f"{words_of}.word_embeddings.weight": (words, width),
        f"{words_of}.position_embeddings.weight": (514, width),
        f"{words_of}.token_type_embeddings.weight": (1, width),
        "token_type_embeddings.weight": (types, width),
    }
    shapes |= _norm(f"{words_of}.LayerNorm", width) | _layer(f"{text}.pooler.dense", width, width)
    for i in range(depth):
        shapes |= _bert(f"{text}.encoder.layer.{i}", width, ("attention",))
    visual = "vision_model.visual" if is_hf else "vit_model.visual"
    shapes |= _vision(visual, depth - is_meter, width, grid, patch, is_hf)
    for stream in ("text", "image"):
        name = f"cross_modal_{stream}"
        shapes |= _layer(f"{name}_transform", width, width) | _layer(f"{name}_pooler.dense", width, width)
        for i in range(fusion):
            shapes |= _bert(f"{name}_layers.{i}", width, ("attention", "crossattention"))
        if not is_meter:
            shapes |= _norm(f"{name}_layernorm", width)
            for i in range(fusion - 1):
                shapes |= _norm(f"{name}_link_tower.{i}.LayerNorm", width)
    if has_heads:
        shapes |= _layer("mlm_score.transform.dense", width, width) | _layer("itm_score.fc", 2, 2 * width)
        shapes |= _norm("mlm_score.transform.LayerNorm", width)
        shapes |= {"mlm_score.decoder.weight": (words, width), "mlm_score.bias": (words,)}
    return shapes


def leftovers(kind: str) -> Shapes:
    """Names -> shapes of what files of the release have besides: ends of CLIP's text tower, a temperature."""
    shapes: Shapes = {"vit_model.positional_embedding": (77, 512)} | _norm("vit_model.ln_final", 512)
    return shapes | ({} if kind == "meter" else {"temperature": ()})


def contrast(kind: str, width: int, size: int) -> Shapes:
    """Names -> shapes of the heads of contrast, without a temperature."""
    shapes = _layer("itc_text_head.fc", size, width) | _layer("itc_image_head.fc", size, width)
    if kind == "hf-bridgetower":
        shapes |= {"logit_scale": ()} | _layer("itc_cross_modal_head.fc", size, 2 * width)
    return shapes


def ranking(width: int) -> Shapes:
    """Names -> shapes of the head of METER's retrieval."""
    return _layer("rank_output", 1, 2 * width)


def classifier(name: str, pooled: int, hidden: int, classes: int) -> Shapes:
    """Names -> shapes of the head of a fine-tuned file."""
    return (
        _layer(f"{name}.0", hidden, pooled)
        | _norm(f"{name}.1", hidden)
        | _layer(f"{name}.3", classes, hidden)
    )


def hf_bridgetower() -> dict[str, np.ndarray]:
    """A small port with all heads: 64 wide, 4 layers, of which 2 are linked, images of 4 x 4 patches of
    8 pixels; texts and fusion have 2 heads of attention."""
    sizes = {"width": 64, "depth": 4, "fusion": 2, "grid": 4, "patch": 8, "words": 60}
    tensors = seeded(released_shapes("hf-bridgetower", **sizes) | contrast("hf-bridgetower", 64, 24))
    return tensors | {"logit_scale": np.full((), 2.6592, np.float32)}
