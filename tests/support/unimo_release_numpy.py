"""UNIMO as its released code computes it, in NumPy, from the released names.

One sample without padding at a time, float64, full matrices, a mask of -10000.
"""

from __future__ import annotations

import numpy as np
from release_numpy import Array, Release, gelu


class UnimoRelease(Release):
    """The released network over a mapping of released names to arrays; layers are those of UNIMO-2."""

    def text(self, ids: Array, positions: Array | None = None) -> Array:
        """Embeddings of one text, or of object tags with positions of their own."""
        positions = 2 + np.arange(len(ids)) if positions is None else positions
        x = self.w["word_embedding"][ids] + self.w["pos_embedding"][positions]
        return self.norm(x, "pre_encoder", 1e-5)

    def image(self, features: Array, boxes: Array, width: int, height: int) -> Array:
        """Embeddings of [IMG] and the regions of one picture, boxes in pixels."""
        x1, y1, x2, y2 = boxes.astype("float64").T
        area = (y2 - y1) * (x2 - x1) / (width * height)
        places = np.stack([x1 / width, y1 / height, x2 / width, y2 / height, area], axis=1)
        features = np.concatenate([features.mean(0, keepdims=True, dtype="float64"), features])
        places = np.concatenate([[[0.0, 0.0, 1.0, 1.0, 1.0]], places])
        x = self.linear(features, "image_emb") + self.linear(places, "image_loc")
        return self.norm(x, "v_pre_encoder", 1e-5)

    def encode(self, rows: Array, visible: Array | None = None) -> Array:
        """Last states of a sequence, in which everything is visible unless told."""
        visible = np.ones((len(rows), len(rows))) if visible is None else visible
        depth = len([name for name in self.w if name.endswith("_ffn_fc_0.w_0")])
        for i in range(depth):
            rows = self.post_norm_layer(rows, f"encoder_layer_{i}", visible)
        return rows

    def pooled(self, states: Array, part: str) -> Array:
        """Pooled first state, of `text` or `image`."""
        return np.maximum(self.linear(states[0], f"pooled_fc_{part}"), 0)

    def pair(self, image: Array, text: Array) -> tuple[Array, Array, Array]:
        """States of the pair, image first, and both pooled vectors."""
        states = self.encode(np.concatenate([image, text]))
        return states, self.pooled(states, "image"), self.pooled(states[len(image) :], "text")

    def score(self, image: Array, text: Array) -> float:
        """Of retrieval."""
        _, of_image, of_text = self.pair(image, text)
        return float(self.linear(of_image * of_text, "match_fc")[0])

    def entailment(self, image: Array, text: Array) -> Array:
        """Logits of SNLI-VE."""
        _, of_image, of_text = self.pair(image, text)
        hidden = (of_image + of_text) @ self.w["cls_out_w_0"] + self.w["cls_out_b_0"]
        return hidden @ self.w["cls_out_w_1"] + self.w["cls_out_b_1"]

    def classes(self, text: Array) -> Array:
        """Logits of two classes of a text alone."""
        pooled = self.pooled(self.encode(text), "text")
        return pooled @ self.w["cls_out_2_w"] + self.w["cls_out_2_b"]

    def target(self, source: Array, text: Array) -> Array:
        """States [T, H] of a text to be generated: each token reads the source and what came before."""
        before, length = len(source), len(text)
        visible = np.ones((before + length, before + length))
        visible[:before, before:] = 0
        visible[before:, before:] = np.tril(np.ones((length, length)))
        return self.encode(np.concatenate([source, text]), visible)[before:]

    def words(self, states: Array) -> Array:
        """Logits of the language head."""
        x = self.norm(gelu(self.linear(states, "mask_lm_trans_fc")), "mask_lm_trans", 1e-5)
        return x @ self.w["word_embedding"].T + self.w["mask_lm_out_fc.b_0"]
