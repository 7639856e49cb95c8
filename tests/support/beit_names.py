"""Names and shapes of BEiT's released files, in both namings, and small files in them."""

from __future__ import annotations

import numpy as np
from seeded_weights import seeded
from vlmo_names import Shapes, random_file


def unilm_shapes(width: int, depth: int, heads: int, window: int = 14, *, shared: bool = False) -> Shapes:
    """Names -> shapes, [out, in], of a classifier of unilm; with `shared` of a pre-trained model."""
    row, inner, rows = (width,), 4 * width, (2 * window - 1) ** 2 + 3
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": row,
    }
    for i in range(depth):
        block = f"blocks.{i}."
        for name in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias", "attn.proj.bias", "mlp.fc2.bias"):
            shapes[block + name] = row
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}{norm}.weight": row, f"{block}{norm}.bias": row}
        shapes |= {
            f"{block}attn.qkv.weight": (3 * width, width),
            f"{block}attn.proj.weight": (width, width),
            f"{block}mlp.fc1.weight": (inner, width),
            f"{block}mlp.fc1.bias": (inner,),
            f"{block}mlp.fc2.weight": (width, inner),
        }
        if not shared:
            shapes[f"{block}attn.relative_position_bias_table"] = (rows, heads)
    if shared:
        shapes |= {"rel_pos_bias.relative_position_bias_table": (rows, heads), "mask_token": (1, 1, width)}
        shapes |= {"norm.weight": row, "norm.bias": row, "lm_head.weight": (8192, width)}
    else:
        shapes |= {"fc_norm.weight": row, "fc_norm.bias": row, "head.weight": (10, width), "head.bias": (10,)}
    return shapes


def random_beit(*, shared: bool = False) -> dict[str, np.ndarray]:
    """Random tensors of 2 layers of width 16 with 2 heads, for images of 3 x 3 patches, in unilm's names."""
    shapes = unilm_shapes(16, 2, 2, 3, shared=shared)
    return {name: array for name, array in random_file(shapes).items() if name in shapes}


_HF = {
    "cls_token": "beit.embeddings.cls_token",
    "mask_token": "beit.embeddings.mask_token",
    "patch_embed.proj": "beit.embeddings.patch_embeddings.projection",
    "blocks.": "beit.encoder.layer.",
    "rel_pos_bias.": "beit.encoder.relative_position_bias.",
    "gamma_": "lambda_",
    "attn.proj": "attention.output.dense",
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
    "attn.relative": "attention.attention.relative_position_bias.relative",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "fc_norm": "beit.pooler.layernorm",
}
"""Part of a name of unilm -> that of Hugging Face."""


def to_hugging_face(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename a file of unilm, and split queries, keys and values."""
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        for part, other in _HF.items():
            name = name.replace(part, other)
        name = {"head.weight": "classifier.weight", "head.bias": "classifier.bias"}.get(name, name)
        name = f"layernorm.{name[5:]}" if name.startswith("norm.") else name
        if "attn.qkv" not in name:
            found[name] = tensor
            continue
        for part, rows in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
            found[name.replace("attn.qkv", f"attention.attention.{part}")] = rows
    return found


def hf_beit(*, shared: bool) -> dict[str, np.ndarray]:
    """A small BEiT in Hugging Face's names, with 3 layers, 32 wide with 4 heads, images of 3 x 3 patches."""
    return to_hugging_face(seeded(unilm_shapes(32, 3, 4, 3, shared=shared)))
