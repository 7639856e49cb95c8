"""Names and shapes of VLMo's released files, and small files in that naming."""

from __future__ import annotations

import numpy as np

Shapes = dict[str, tuple[int, ...]]


def released_shapes(
    width: int,
    depth: int,
    heads: int,
    first: int,
    *,
    relative: bool,
    words: int = 30522,
    patch: int = 16,
    side: int = 14,
) -> Shapes:
    """Names -> shapes, [out, in], of a file of the vision-language stage.

    Args:
        first: first block, from 0, with an expert for pairs.
        relative: relative positions and layer scale (base and large), or neither (base_plus).
        side: patches along a side of the images.
    """
    square, row, inner = (width, width), (width,), 4 * width
    shapes: Shapes = {
        "logit_scale": (),
        "logit_vl_scale": (),
        "transformer.cls_token": (1, 1, width),
        "transformer.patch_embed.proj.weight": (width, 3, patch, patch),
        "transformer.patch_embed.proj.bias": row,
        "text_embeddings.word_embeddings.weight": (words, width),
        "text_embeddings.position_embeddings.weight": (40, width),
        "text_embeddings.token_type_embeddings.weight": (2, width),
        "token_type_embeddings.weight": (2, width),
        "mlm_score.decoder.weight": (words, width),
        "mlm_score.bias": (words,),
        "itm_score.fc.weight": (2, width),
        "itm_score.fc.bias": (2,),
    }
    if relative:
        shapes["relative_position_bias_table"] = ((2 * side - 1) ** 2 + 397, heads * depth)
    else:
        shapes["transformer.pos_embed"] = (1, side**2 + 1, width)
    for kind in ("text", "image", "vl_text", "vl_image"):
        shapes[f"itc_{kind}_proj.fc.weight"] = square
    for name in ("pooler.dense", "mlm_score.transform.dense"):
        shapes |= {f"{name}.weight": square, f"{name}.bias": row}
    for name in ("transformer.norm", "text_embeddings.LayerNorm", "mlm_score.transform.LayerNorm"):
        shapes |= {f"{name}.weight": row, f"{name}.bias": row}
    for number in range(depth):
        block = f"transformer.blocks.{number}."
        own: Shapes = {"gamma_1": row, "gamma_2": row} if relative else {}
        own |= {"norm1.weight": row, "norm1.bias": row, "attn.q_bias": row, "attn.v_bias": row}
        own |= {"attn.qkv.weight": (3 * width, width), "attn.proj.weight": square, "attn.proj.bias": row}
        for kind in ("text", "imag", *(["vl"] if number >= first else [])):
            own |= {f"norm2_{kind}.weight": row, f"norm2_{kind}.bias": row}
            own |= {f"mlp_{kind}.fc1.weight": (inner, width), f"mlp_{kind}.fc1.bias": (inner,)}
            own |= {f"mlp_{kind}.fc2.weight": (width, inner), f"mlp_{kind}.fc2.bias": row}
        shapes |= {block + name: shape for name, shape in own.items()}
    return shapes


UNREAD = {
    "stage2": ("mlp_vl", "norm2_vl", "itm_", "itc_", "logit_"),
    "vqa": ("mlm_", "itm_", "itc_", "logit_"),
    "nlvr2": ("mlm_", "itm_", "itc_", "logit_"),
    "retrieval": ("mlm_", "itm_", "itc_vl", "logit_vl"),
}
"""Kind of file -> parts of the names above that it lacks."""


def task_shapes(kind: str, shapes: Shapes, side: int = 14, classes: int = 2) -> Shapes:
    """Names -> shapes of a file of the language stage or of a fine-tuned one.

    Args:
        kind: a key of `UNREAD`.
        shapes: those of `released_shapes`, with relative positions.
        side: patches along a side of the images.
        classes: outputs of the classifier, if there is one.
    """
    found = {name: shape for name, shape in shapes.items() if not any(one in name for one in UNREAD[kind])}
    columns = shapes["relative_position_bias_table"][1]
    found["relative_position_bias_table"] = ((2 * side - 1) ** 2 + 397, columns)
    width = shapes["transformer.norm.bias"][0]
    if kind == "stage2":
        found["text_embeddings.position_embeddings.weight"] = (196, width)
    if kind in ("vqa", "nlvr2"):
        pooled = width if kind == "vqa" else 2 * width
        for part, shape in (("0", (2 * width, pooled)), ("1", (2 * width,)), ("3", (classes, 2 * width))):
            found |= {f"{kind}_classifier.{part}.weight": shape, f"{kind}_classifier.{part}.bias": shape[:1]}
    if kind == "nlvr2":
        found["token_type_embeddings.weight"] = (3, width)
    return found


def random_file(shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors of these shapes, N(0, 0.2), and the index tables that files have besides."""
    rng = np.random.default_rng(seed)
    tensors = {name: np.asarray(rng.normal(0, 0.2, shape), np.float32) for name, shape in shapes.items()}
    index = {
        "text_embeddings.position_ids": np.arange(40)[None],
        "relative_position_index": np.zeros((197, 197), np.int64),
        "text_relative_position_index": np.zeros((40, 40), np.int64),
        "text_imag_relative_position_index": np.zeros((40, 197), np.int64),
    }
    return tensors | index
