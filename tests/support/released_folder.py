"""A small random UNIMO-2 in the file format and under the names of the release, from a parameter list.

Nothing here uses the library's own reader or name map.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

Shapes = dict[str, tuple[int, ...]]
CODES = {"float32": 5, "float64": 6, "float16": 4, "int64": 3, "int32": 2}
WIDTH, INNER, POSITIONS, ROWS, PATCH, GRID = 128, 512, 34, 160, 16, 3
DEPTHS = {"vit": 3, "text": 2, "grounded": 2}


def varint(value: int) -> bytes:
    value %= 1 << 64
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def encode(
    array: np.ndarray,
    *,
    code: int | None = None,
    dims: list[int] | None = None,
    levels: tuple[bytes, ...] = (),
    packed: bool = False,
    versions: tuple[int, int] = (0, 0),
) -> bytes:
    """A tensor in the released format; keyword arguments say something else than the array is."""
    code = CODES[str(array.dtype)] if code is None else code
    sizes = [varint(dim) for dim in (array.shape if dims is None else dims)]
    joined = b"".join(sizes)
    described = (
        b"\x12" + varint(len(joined)) + joined if packed else b"".join(b"\x10" + size for size in sizes)
    )
    message = b"\x08" + varint(code) + described
    level_of_detail = b"".join(struct.pack("<Q", len(level)) + level for level in levels)
    head = struct.pack("<IQ", versions[0], len(levels)) + level_of_detail
    return head + struct.pack("<Ii", versions[1], len(message)) + message + array.tobytes()


def shapes(vocabulary: int, inner: int = INNER) -> Shapes:
    """Return names and shapes of the release, with small sizes: encoders, poolers, matching and language
    heads, and parameters that have no counterpart in the library."""
    w = WIDTH
    found: dict[str, tuple[int, ...]] = {
        "vq_emb": (ROWS, w),
        "topk_temperature": (1,),
        "cmcl_temperature": (1,),
        "vit.patch_embeddings_projection_weight": (w, 3, PATCH, PATCH),
        "vit.patch_embeddings_projection_bias": (w,),
        "vit.cls_token_embeddings": (1, 1, w),
        "vit.position_embeddings": (1, 1 + GRID**2, w),
        "text.word_embedding": (vocabulary, w),
        "text.pos_embedding": (POSITIONS, w),
        "grounded.img_text_matching_fc.w_0": (w, 2),
        "grounded.img_text_matching_fc.b_0": (2,),
        "grounded.mask_lm_out_fc.b_0": (vocabulary,),
        "grounded.mask_g_out_fc.b_0": (ROWS,),
    }
    norms = ["vit.post_encoder", "text.pre_encoder", "grounded.pre_encoder"]
    norms += ["grounded.mask_lm_trans", "grounded.mask_g_trans"]
    linears = {name: (w, w) for name in ("pooled_fc_text", "pooled_fc_image", "mask_lm_trans_fc")}
    linears = {f"grounded.{name}": shape for name, shape in linears.items()}
    linears["grounded.mask_g_trans_fc"] = (w, w)
    for tower, depth in DEPTHS.items():
        side = "pre" if tower == "vit" else "post"
        for layer in (f"{tower}.encoder_layer_{i}" for i in range(depth)):
            norms += [f"{layer}_{side}_att", f"{layer}_{side}_ffn"]
            for part in ("query", "key", "value", "output"):
                linears[f"{layer}_multi_head_att_{part}_fc"] = (w, w)
            linears[f"{layer}_ffn_fc_0"], linears[f"{layer}_ffn_fc_1"] = (w, inner), (inner, w)
    return found | norms_and_linears(norms, linears, w)


def norms_and_linears(norms: list[str], linears: dict[str, tuple[int, int]], width: int) -> Shapes:
    """The two tensors of each norm and linear layer, as the release names them."""
    found: Shapes = {}
    for name in norms:
        found |= {f"{name}_layer_norm_scale": (width,), f"{name}_layer_norm_bias": (width,)}
    for name, shape in linears.items():
        found |= {f"{name}.w_0": shape, f"{name}.b_0": shape[1:]}
    return found


def random_values(shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
    """Values in which every part matters."""
    rng, tensors = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        value = rng.normal(0.0, 0.07, shape) + name.endswith("_scale")
        tensors[name] = value.astype("float32")
    return tensors


def random_release(vocabulary: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values; the temperature is low, so that similarities do not saturate."""
    tensors = random_values(shapes(vocabulary), seed)
    tensors["topk_temperature"][:] = 1.5
    return tensors


def projections(seed: int = 1) -> dict[str, np.ndarray]:
    """The projections before grounding, an option of the release."""
    names = {f"grounded.grounding_{part}_projection": (WIDTH, WIDTH) for part in ("token", "patch")}
    return random_values(norms_and_linears([], names, WIDTH), seed)


def listed_names(shared: Path, release: str, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """All names of a release and its options with their shapes, as arrays without memory."""
    listed = json.loads((shared / "reference" / "unimo_official_params.json").read_text())[release]
    found = {name: eval(shape, {"__builtins__": {}}, sizes) for name, shape, _ in listed}
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in found.items()}


def write_folder(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """One file for each tensor, beside what training leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in tensors.items():
        (folder / name).write_bytes(encode(value))
    for name in ("vq_emb_moment1_0", "vq_emb_beta1_pow_acc_0", "learning_rate_0", "@LR_DECAY_COUNTER@"):
        (folder / name).write_bytes(encode(np.zeros(1, "float32")))
    return folder
