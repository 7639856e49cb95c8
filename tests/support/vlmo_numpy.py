"""VLMo as its paper and released names say, in NumPy.

One text, image or pair at a time, in float64; texts are padded to 40 tokens, as in the release. Sections and
equations are those of the paper.
"""

from __future__ import annotations

import numpy as np
from meter_numpy import Named
from release_numpy import Array, gelu, softmax

LONGEST = 40
"""Tokens of a padded text."""
TABLE_TEXT = 196
"""Tokens of the longest text for which the table of relative positions has rows."""


class VlmoRelease(Named):
    """The network over the tensors of a released file, with its `heads` of attention."""

    def __init__(self, tensors: dict[str, Array], heads: int) -> None:
        self.w = {name: value.astype("float64") for name, value in tensors.items()}
        self.heads = heads
        blocks = [name.split(".")[2] for name in self.w if name.startswith("transformer.blocks.")]
        self.depth = 1 + max(map(int, blocks))

    def embed_text(self, ids: Array) -> Array:
        """H_0^w [40, D]: BERT's embeddings, with positions where the file has none that are relative."""
        words = "text_embeddings."
        x = self.w[f"{words}word_embeddings.weight"][np.pad(ids, (0, LONGEST - len(ids)))]
        x = x + self.w[f"{words}token_type_embeddings.weight"][0]
        if "transformer.pos_embed" in self.w:
            x = x + self.w[f"{words}position_embeddings.weight"][:LONGEST]
        return self.norm(x, f"{words}LayerNorm", 1e-12) + self.w["token_type_embeddings.weight"][0]

    def embed_image(self, pixels: Array, kind: int = 1) -> Array:
        """H_0^v [1 + N, D]; `kind` is the type of the image."""
        kernel, bias = (self.w[f"transformer.patch_embed.proj.{part}"] for part in ("weight", "bias"))
        size, side = kernel.shape[-1], pixels.shape[-1]
        corners = [(top, left) for top in range(0, side, size) for left in range(0, side, size)]
        patches = [np.tensordot(kernel, pixels[:, y : y + size, x : x + size], 3) + bias for y, x in corners]
        x = np.stack([self.w["transformer.cls_token"][0, 0], *patches])
        if "transformer.pos_embed" in self.w:
            x = x + self.w["transformer.pos_embed"][0]
        return x + self.w["token_type_embeddings.weight"][kind]

    def relative_row(self, query: tuple[str, int], key: tuple[str, int], side: int) -> int:
        """Row of the table for a part (`text` or `image`, place in it) that reads another."""
        image_rows = (2 * side - 1) ** 2 + 3
        (kind, i), (other, j) = query, key
        if kind != other:
            return image_rows if kind == "text" else image_rows + 1
        last = image_rows if kind == "image" else image_rows + 2 + 2 * TABLE_TEXT
        if 0 in (i, j):  # the class token: to a part, from a part, to itself
            return last - (1 if i == j else 3 if i == 0 else 2)
        if kind == "text":
            return image_rows + 2 + (j - i) + TABLE_TEXT - 2
        (top, left), (other_top, other_left) = divmod(i - 1, side), divmod(j - 1, side)
        return (top - other_top + side - 1) * (2 * side - 1) + left - other_left + side - 1

    def biases(self, places: list[tuple[str, int]]) -> Array:
        """Return the position bias of the logits of each layer [layers, heads, S, S]."""
        table = self.w.get("relative_position_bias_table")
        if table is None:
            return np.zeros((self.depth, self.heads, 1, 1))
        rows = len(table) - 2 * TABLE_TEXT - 2
        side = (round((rows - 3) ** 0.5) + 1) // 2
        index = [[self.relative_row(one, other, side) for other in places] for one in places]
        gathered = table[np.array(index)].transpose(2, 0, 1)
        return gathered.reshape(self.depth, self.heads, len(places), len(places))

    def attention(self, x: Array, block: str, bias: Array, seen: Array) -> Array:
        joined = x @ self.w[f"{block}attn.qkv.weight"].T
        q_bias, v_bias = (self.w[f"{block}attn.{part}_bias"] for part in ("q", "v"))
        joined = joined + np.concatenate([q_bias, np.zeros_like(q_bias), v_bias])
        query, key, value = (np.split(part, self.heads, axis=1) for part in np.split(joined, 3, axis=1))
        mixed = []
        for head in range(self.heads):
            logits = query[head] @ key[head].T / np.sqrt(query[head].shape[1])
            logits = np.where(seen, logits + bias[head], -np.inf)
            mixed.append(softmax(logits) @ value[head])
        return self.linear(np.concatenate(mixed, axis=1), f"{block}attn.proj")

    def block(self, number: int, x: Array, bias: Array, seen: Array, experts: dict[str, int]) -> Array:
        """Eqs (1) and (2); `experts` says how many rows go through which, in order."""
        name = f"transformer.blocks.{number}."
        first, second = (self.w.get(f"{name}gamma_{i}", 1.0) for i in (1, 2))
        x = x + first * self.attention(self.norm(x, f"{name}norm1", 1e-6), name, bias, seen)
        updates, start = [], 0
        for expert, rows in experts.items():
            part = self.norm(x[start : start + rows], f"{name}norm2_{expert}", 1e-6)
            inner = gelu(self.linear(part, f"{name}mlp_{expert}.fc1"))
            updates.append(self.linear(inner, f"{name}mlp_{expert}.fc2"))
            start += rows
        return x + second * np.concatenate(updates)

    def run(
        self,
        ids: Array | None,
        pixels: Array | None,
        kind: int = 1,
        as_pair: bool = False,
    ) -> list[Array]:
        """Embeddings and states after each block, of a text, an image or a pair, without rows of padding.

        With `as_pair` a text or image alone goes through the experts for pairs in the top blocks.
        """
        states, places, seen, experts = [], [], [], {}
        if ids is not None:
            states.append(self.embed_text(ids))
            places += [("text", place) for place in range(LONGEST)]
            seen += [place < len(ids) for place in range(LONGEST)]
            experts["text"] = LONGEST
        if pixels is not None:
            states.append(self.embed_image(pixels, kind))
            experts["imag"] = len(states[-1])
            places += [("image", place) for place in range(experts["imag"])]
            seen += [True] * experts["imag"]
        outputs, biases = [np.concatenate(states)], self.biases(places)
        for number in range(self.depth):
            has_pair = f"transformer.blocks.{number}.mlp_vl.fc1.weight" in self.w
            joint = has_pair and (as_pair or len(experts) == 2)
            route = {"vl": len(places)} if joint else experts
            outputs.append(self.block(number, outputs[-1], biases[number], np.array(seen), route))
        return [state[np.array(seen)] for state in outputs]

    def last(self, *given: object, **options: object) -> Array:
        """States after the final norm."""
        return self.norm(self.run(*given, **options)[-1], "transformer.norm", 1e-6)

    def pooled(self, ids: Array, pixels: Array, kind: int = 1) -> Array:
        """Vector of a pair."""
        return np.tanh(self.linear(self.last(ids, pixels, kind)[0], "pooler.dense"))

    def vector(self, name: str, *given: object, as_pair: bool = False) -> Array:
        """Unit vector of a text or an image, by one of the heads of contrast (section 3.3)."""
        found = self.linear(self.last(*given, as_pair=as_pair)[0], f"itc_{name}_proj.fc")
        return found / np.sqrt((found**2).sum())
