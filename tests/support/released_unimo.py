"""A small random UNIMO under the names of the release, from a list of its parameters.

Nothing here uses the library's own reader or name map.
"""

from __future__ import annotations

import numpy as np
from released_folder import norms_and_linears, random_values

WIDTH, INNER, POSITIONS, FEATURE, DEPTH, HIDDEN = 128, 512, 34, 12, 2, 96
HEADS = {
    "pooled_fc_text": (WIDTH, WIDTH),
    "pooled_fc_image": (WIDTH, WIDTH),
    "match_fc": (WIDTH, 1),
    "mask_lm_trans_fc": (WIDTH, WIDTH),
}


def shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes: the core, poolers, matching and language heads, classifiers, tables of dialogues."""
    w = WIDTH
    linears = {"image_emb": (FEATURE, w), "image_loc": (5, w), **HEADS}
    norms = ["pre_encoder", "v_pre_encoder", "mask_lm_trans"]
    for layer in (f"encoder_layer_{i}" for i in range(DEPTH)):
        norms += [f"{layer}_post_att", f"{layer}_post_ffn"]
        linears |= {
            f"{layer}_multi_head_att_{part}_fc": (w, w) for part in ("query", "key", "value", "output")
        }
        linears |= {f"{layer}_ffn_fc_0": (w, INNER), f"{layer}_ffn_fc_1": (INNER, w)}
    found: dict[str, tuple[int, ...]] = {
        "word_embedding": (vocabulary, w),
        "pos_embedding": (POSITIONS, w),
        "mask_lm_out_fc.b_0": (vocabulary,),
        "cls_out_w_0": (w, HIDDEN),
        "cls_out_b_0": (HIDDEN,),
        "cls_out_w_1": (HIDDEN, 3),
        "cls_out_b_1": (3,),
        "cls_out_2_w": (w, 2),
        "cls_out_2_b": (2,),
    }
    return found | norms_and_linears(norms, linears, w)


def random_release(vocabulary: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values."""
    return random_values(shapes(vocabulary), seed)
