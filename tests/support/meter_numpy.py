"""METER and BridgeTower as their papers and released names say, in NumPy.

One pair at a time, in float64, without padding: what is padded must give the same. Sections are those of the
METER paper (3.1, 3.2) and of BridgeTower (3.2).
"""

from __future__ import annotations

import numpy as np
from release_numpy import Array, gelu, softmax


class Named:
    """Layers and heads over tensors by the names that ViLT's code and what followed it give them."""

    w: dict[str, Array]

    def linear(self, x: Array, name: str) -> Array:
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0.0)

    def norm(self, x: Array, name: str, epsilon: float) -> Array:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def words(self, states: Array) -> Array:
        """Logits of the MLM head."""
        x = gelu(self.linear(states, "mlm_score.transform.dense"))
        x = self.norm(x, "mlm_score.transform.LayerNorm", 1e-12)
        return x @ self.w["mlm_score.decoder.weight"].T + self.w["mlm_score.bias"]

    def classify(self, pooled: Array, head: str) -> Array:
        """Logits of a fine-tuned head."""
        inner = gelu(self.norm(self.linear(pooled, f"{head}.0"), f"{head}.1", 1e-5))
        return self.linear(inner, f"{head}.3")


class Meter(Named):
    """A network over the tensors of a released file; BridgeTower if the file has bridge layers.

    Args:
        tensors: released name -> array.
        text_heads, vision_heads, fusion_heads: attention heads of each part.
    """

    def __init__(
        self, tensors: dict[str, Array], text_heads: int = 1, vision_heads: int = 1, fusion_heads: int = 1
    ) -> None:
        self.w = {name: value.astype("float64") for name, value in tensors.items()}
        self.heads = {"text": text_heads, "vision": vision_heads, "fusion": fusion_heads}
        self.bridges = "cross_modal_text_layernorm.weight" in self.w

    def depth(self, prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in self.w if name.startswith(prefix)})

    @staticmethod
    def attend(query: Array, key: Array, value: Array, heads: int) -> Array:
        mixed = []
        for q, k, v in zip(*(np.split(part, heads, axis=1) for part in (query, key, value)), strict=True):
            mixed.append(softmax(q @ k.T / np.sqrt(q.shape[1])) @ v)
        return np.concatenate(mixed, axis=1)

    def bert_attention(self, x: Array, other: Array, name: str, heads: int, epsilon: float) -> Array:
        """Attention of BERT: x reads `other`, residual, norm."""
        query = self.linear(x, f"{name}.self.query")
        key, value = (self.linear(other, f"{name}.self.{part}") for part in ("key", "value"))
        mixed = self.linear(self.attend(query, key, value, heads), f"{name}.output.dense")
        return self.norm(mixed + x, f"{name}.output.LayerNorm", epsilon)

    def feed_forward(self, x: Array, name: str, epsilon: float) -> Array:
        inner = gelu(self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(self.linear(inner, f"{name}.output.dense") + x, f"{name}.output.LayerNorm", epsilon)

    def text(self, ids: Array) -> list[Array]:
        """States after RoBERTa's embeddings and after each of its layers [T, H]."""
        words = "text_transformer.embeddings."
        x = self.w[f"{words}word_embeddings.weight"][ids]
        x = x + self.w[f"{words}position_embeddings.weight"][2 : 2 + len(ids)]
        x = x + self.w[f"{words}token_type_embeddings.weight"][0]
        states = [self.norm(x, f"{words}LayerNorm", 1e-5)]
        for i in range(self.depth("text_transformer.encoder.layer.")):
            layer, x = f"text_transformer.encoder.layer.{i}", states[-1]
            x = self.bert_attention(x, x, f"{layer}.attention", self.heads["text"], 1e-5)
            states.append(self.feed_forward(x, layer, 1e-5))
        return states

    def image(self, pixels: Array) -> list[Array]:
        """States of CLIP after `ln_pre` and after each block [V, H], before `ln_post`."""
        visual = "vit_model.visual."
        kernel = self.w[f"{visual}conv1.weight"]
        size, side = kernel.shape[-1], pixels.shape[-1]
        corners = [(top, left) for top in range(0, side, size) for left in range(0, side, size)]
        patches = [np.tensordot(kernel, pixels[:, y : y + size, x : x + size], 3) for y, x in corners]
        x = np.stack([self.w[f"{visual}class_embedding"], *patches])
        x = x + self.w[f"{visual}positional_embedding"]
        states = [self.norm(x, f"{visual}ln_pre", 1e-5)]
        for i in range(self.depth(f"{visual}transformer.resblocks.")):
            block, x = f"{visual}transformer.resblocks.{i}.", states[-1]
            joined = self.norm(x, f"{block}ln_1", 1e-5) @ self.w[f"{block}attn.in_proj_weight"].T
            parts = np.split(joined + self.w[f"{block}attn.in_proj_bias"], 3, axis=1)
            x = x + self.linear(self.attend(*parts, self.heads["vision"]), f"{block}attn.out_proj")
            inner = self.linear(self.norm(x, f"{block}ln_2", 1e-5), f"{block}mlp.c_fc")
            states.append(x + self.linear(inner / (1 + np.exp(-1.702 * inner)), f"{block}mlp.c_proj"))
        return states

    def projected(self, state: Array, stream: str, kind: int) -> Array:
        """State of a tower in the width of fusion, with its type."""
        if stream == "image":
            state = self.norm(state, "vit_model.visual.ln_post", 1e-5)
        mapped = self.linear(state, f"cross_modal_{stream}_transform")
        return mapped + self.w["token_type_embeddings.weight"][kind]

    def fuse(self, ids: Array, pixels: Array, kind: int = 1) -> list[tuple[Array, Array]]:
        """States of both streams after each co-attention layer; `kind` is the type of the image."""
        text, image = self.text(ids), self.image(pixels)
        depth = self.depth("cross_modal_text_layers.")
        first = len(text) - depth if self.bridges else len(text) - 1
        x = self.projected(text[first], "text", 0)
        y = self.projected(image[first if self.bridges else -1], "image", kind)
        if self.bridges:
            x = self.norm(x, "cross_modal_text_layernorm", 1e-5)
            y = self.norm(y, "cross_modal_image_layernorm", 1e-5)
        states: list[tuple[Array, Array]] = []
        for i in range(depth):
            if self.bridges and i:
                x = x + self.projected(text[first + i], "text", 0)
                y = y + self.projected(image[first + i], "image", kind)
                x = self.norm(x, f"cross_modal_text_link_tower.{i - 1}.LayerNorm", 1e-5)
                y = self.norm(y, f"cross_modal_image_link_tower.{i - 1}.LayerNorm", 1e-5)
            x, y = self.co_attention(x, y, "text", i), self.co_attention(y, x, "image", i)
            states.append((x, y))
        return states

    def co_attention(self, x: Array, other: Array, stream: str, number: int) -> Array:
        """One stream of a layer: x reads itself, then what the other stream was before the layer."""
        layer, heads = f"cross_modal_{stream}_layers.{number}", self.heads["fusion"]
        x = self.bert_attention(x, x, f"{layer}.attention", heads, 1e-12)
        x = self.bert_attention(x, other, f"{layer}.crossattention", heads, 1e-12)
        return self.feed_forward(x, layer, 1e-12)

    def pooled(self, ids: Array, pixels: Array, kind: int = 1) -> Array:
        """Both poolers, side by side."""
        last = self.fuse(ids, pixels, kind)[-1]
        parts = zip(("text", "image"), last, strict=True)
        return np.concatenate(
            [np.tanh(self.linear(x[0], f"cross_modal_{name}_pooler.dense")) for name, x in parts]
        )

    def contrast(self, ids: Array, pixels: Array) -> tuple[Array, Array]:
        """Unit vectors of BridgeTower's heads of contrast (its retrieval)."""
        image = self.norm(self.image(pixels)[-1], "vit_model.visual.ln_post", 1e-5)
        pair = zip(("text", "image"), (self.text(ids)[-1][0], image[0]), strict=True)
        found = [self.linear(state, f"itc_{name}_head.fc") for name, state in pair]
        return tuple(vector / np.sqrt((vector**2).sum()) for vector in found)
