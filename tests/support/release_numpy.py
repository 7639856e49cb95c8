"""UNIMO-2 as its released code computes it, in NumPy, from the released names.

One pair at a time, float64, full matrices. A mask of -10000 is added in float32, whose steps are 0.001 there:
they show in rows that are masked everywhere.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray
erf = np.vectorize(math.erf, otypes=[float])


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


class Release:
    """The released network over a mapping of released names to arrays; options are off as in its scripts."""

    def __init__(
        self,
        tensors: dict[str, Array],
        num_tokens: int = 100,
        head_size: int = 64,
        project: bool = False,
        positions: bool = False,
    ) -> None:
        self.w = {name: value.astype("float64") for name, value in tensors.items()}
        self.num_tokens, self.head_size = num_tokens, head_size
        self.project, self.positions = project, positions

    def linear(self, x: Array, name: str) -> Array:
        return x @ self.w[f"{name}.w_0"] + self.w[f"{name}.b_0"]

    def norm(self, x: Array, name: str, epsilon: float) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return scaled * self.w[f"{name}_layer_norm_scale"] + self.w[f"{name}_layer_norm_bias"]

    def attention(self, x: Array, layer: str, visible: Array) -> Array:
        query, key, value = (
            self.linear(x, f"{layer}_multi_head_att_{p}_fc") for p in ("query", "key", "value")
        )
        mixed = []
        for begin in range(0, x.shape[1], self.head_size):
            part = slice(begin, begin + self.head_size)
            logits = (query[:, part] * self.head_size**-0.5) @ key[:, part].T
            masked = logits.astype("float32") + (10000.0 * (visible - 1)).astype("float32")
            mixed.append(softmax(masked.astype("float64")) @ value[:, part])
        return self.linear(np.concatenate(mixed, 1), f"{layer}_multi_head_att_output_fc")

    def feed_forward(self, x: Array, layer: str) -> Array:
        return self.linear(gelu(self.linear(x, f"{layer}_ffn_fc_0")), f"{layer}_ffn_fc_1")

    def post_norm_layer(self, x: Array, layer: str, visible: Array) -> Array:
        x = self.norm(x + self.attention(x, layer, visible), f"{layer}_post_att", 1e-5)
        return self.norm(x + self.feed_forward(x, layer), f"{layer}_post_ffn", 1e-5)

    def pre_norm_layer(self, x: Array, layer: str) -> Array:
        visible = np.ones((len(x), len(x)))
        x = x + self.attention(self.norm(x, f"{layer}_pre_att", 1e-12), layer, visible)
        return x + self.feed_forward(self.norm(x, f"{layer}_pre_ffn", 1e-12), layer)

    def depth(self, tower: str) -> int:
        return len([n for n in self.w if n.startswith(f"{tower}.encoder_layer_") and "ffn_fc_0.w_0" in n])

    def text(self, ids: Array, causal: bool = False, padding: int = 0) -> list[Array]:
        """States after the embeddings and after each layer; padding (id 1, position 1) comes last."""
        length = len(ids)
        real = np.repeat([1.0, 0.0], [length, padding])
        visible = np.tril(np.ones((length, length))) if causal else np.outer(real, real)
        tokens = (ids, 2 + np.arange(length))
        return self.tokens_read(*(np.pad(row, (0, padding), constant_values=1) for row in tokens), visible)

    def tokens_read(self, ids: Array, positions: Array, visible: Array) -> list[Array]:
        x = self.w["text.word_embedding"][ids] + self.w["text.pos_embedding"][positions]
        states = [self.norm(x, "text.pre_encoder", 1e-5)]
        for i in range(self.depth("text")):
            states.append(self.post_norm_layer(states[-1], f"text.encoder_layer_{i}", visible))
        return states

    def image(self, pixels: Array) -> list[Array]:
        """States after the embeddings and after each layer, then the last one after the final norm."""
        kernel = self.w["vit.patch_embeddings_projection_weight"]
        size, side = kernel.shape[-1], pixels.shape[-1]
        padding = (size - 1) // 2
        framed = np.zeros((3, side + 2 * padding, side + 2 * padding))
        framed[:, padding : padding + side, padding : padding + side] = pixels
        rows = [self.w["vit.cls_token_embeddings"][0, 0]]
        for top in range(0, side, size):
            for left in range(0, side, size):
                window = framed[:, top : top + size, left : left + size]
                projected = np.tensordot(kernel, window, axes=3)
                rows.append(projected + self.w["vit.patch_embeddings_projection_bias"])
        states = [np.stack(rows) + self.w["vit.position_embeddings"][0]]
        for i in range(self.depth("vit")):
            states.append(self.pre_norm_layer(states[-1], f"vit.encoder_layer_{i}"))
        return [*states, self.norm(states[-1], "vit.post_encoder", 1e-12)]

    def projected(self, x: Array, name: str) -> Array:
        x = np.maximum(self.linear(x, f"grounded.grounding_{name}_projection"), 0)
        return x / np.sqrt((x**2).sum(-1, keepdims=True))

    def ground(self, *parts: Array, kinds: tuple[str, ...] = ("patch", "token")) -> tuple[Array, Array]:
        """Numbers of the chosen rows, the best first, and all accumulated scores."""
        parts = tuple(part[1:] for part in parts)
        if self.project:
            parts = tuple(self.projected(part, kind) for part, kind in zip(parts, kinds, strict=True))
        features = np.concatenate(parts)
        temperature = np.clip(self.w["topk_temperature"], 1, 10000)
        scores = (1 / (1 + np.exp(-temperature * features @ self.w["vq_emb"].T))).sum(0)
        return np.argsort(-scores)[: self.num_tokens], scores

    def fuse(self, sequence: Array, visible: Array) -> list[Array]:
        states = [sequence]
        for i in range(self.depth("grounded")):
            states.append(self.post_norm_layer(states[-1], f"grounded.encoder_layer_{i}", visible))
        return states

    def tokens(self, ids: Array) -> Array:
        moved = self.w["text.pos_embedding"][2 : 2 + len(ids)] if self.positions else 0.0
        return self.norm(self.w["vq_emb"][ids] + moved, "grounded.pre_encoder", 1e-5)

    def pair(self, image: Array, text: Array, padding: int = 0) -> tuple[list[Array], Array]:
        """States [V; G; T] of the Grounded Transformer, and the product of the pooled parts.

        The last `padding` rows of the text are none, but count in the choice of grounded tokens.
        """
        ids, _ = self.ground(image, text)
        v, k, t = len(image), len(ids), len(text)
        real = np.repeat([1.0, 0.0], [v + k + t - padding, padding])
        visible = np.outer(real, real)
        visible[:v, v + k :] = visible[v + k :, :v] = 0
        states = self.fuse(np.concatenate([image, self.tokens(ids), text]), visible)
        pooled = np.maximum(self.linear(states[-1][v + k], "grounded.pooled_fc_text"), 0)
        return states, pooled * np.maximum(self.linear(states[-1][0], "grounded.pooled_fc_image"), 0)

    def retrieval(self, image: Array, text: Array) -> float:
        """Score of a pair: its matching logit, and 0.3 times the product of class tokens before fusion, of
        which that of the image alone is normalised."""
        logit = self.linear(self.pair(image, text)[1], "grounded.img_text_matching_fc")[1]
        return logit + 0.3 * text[0] @ (image[0] / np.sqrt((image[0] ** 2).sum()))

    def caption(self, image: Array, text: Array) -> Array:
        """Last states [T, H] of a caption of which each token reads the image and what came before."""
        ids, _ = self.ground(image)
        before, length = len(image) + len(ids), len(text)
        visible = np.ones((before + length, before + length))
        visible[:before, before:] = 0
        visible[before:, before:] = np.tril(np.ones((length, length)))
        return self.fuse(np.concatenate([image, self.tokens(ids), text]), visible)[-1][before:]

    def tagged_caption(self, image: Array, tags: Array, positions: Array, text: Array) -> Array:
        """Last states [T, H] of a caption behind object tags, which read each other and the image."""
        count, length = len(tags), len(text)
        own = np.tril(np.ones((count + length, count + length)))
        own[:count, :count] = 1
        places = np.concatenate([positions, 2 + np.arange(length)])
        words = self.tokens_read(np.concatenate([tags, text]), places, own)[-1]
        ids, _ = self.ground(image, kinds=("patch",))
        before = len(image) + len(ids)
        visible = np.ones((before + len(words), before + len(words)))
        visible[:before, before:] = 0
        visible[before:, before:] = own
        return self.fuse(np.concatenate([image, self.tokens(ids), words]), visible)[-1][before + count :]

    def words(self, states: Array) -> Array:
        """Logits of the language head."""
        x = self.norm(gelu(self.linear(states, "grounded.mask_lm_trans_fc")), "grounded.mask_lm_trans", 1e-5)
        return x @ self.w["text.word_embedding"].T + self.w["grounded.mask_lm_out_fc.b_0"]
