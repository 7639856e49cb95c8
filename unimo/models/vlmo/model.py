"""VLMo: images, texts and pairs through one Multiway Transformer (Fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import paddle
from paddle import Tensor, nn

from unimo.models.base import Axes, Model, Outputs, as_map
from unimo.models.vlmo.config import Config
from unimo.models.vlmo.multiway import EPSILON, MultiwayBlock, Parts
from unimo.nn.attention import additive_mask
from unimo.nn.block import run_block
from unimo.nn.embeddings import BertEmbeddings, PatchEmbedding, TypeEmbedding
from unimo.nn.heads import Pooler
from unimo.nn.init import normal_attr
from unimo.nn.kernels import LayerNorm, add_bias, add_mask
from unimo.nn.outputs import Encoded
from unimo.nn.position import resize_positions, table_grid
from unimo.nn.relative_position import RelativePositions
from unimo.nn.residual import drop_path_rates
from unimo.nn.shapes import length

TEXT, IMAGE, PAIR = "text", "image", "pair"


@dataclass(frozen=True)
class JoinedStates:
    """Rows that attend to each other: states, what each layer adds to the logits, and what the rows are."""

    states: Tensor
    """[B, S, D]."""
    masks: Sequence[Tensor | None]
    """Of each layer, [B or 1, 1 or H, S or 1, S]."""
    parts: Parts


class Vlmo(Model):
    """A dual encoder and a fusion encoder in the same weights.

    `encode_image` and `encode_text` only embed. `fuse` runs the Transformer over an image, a text, or both in
    one sequence, text first.

    Parameters: `text_embeddings` (T_pos among them), `patch_embedding` (V), `class_embedding` (v_[I_CLS]),
    `type_embedding` (rows T_type and V_type), `position_embedding` (V_pos) or `relative_positions`,
    `blocks`, `norm`, `pooler`.
    """

    head_epsilon: ClassVar[float] = 1e-12

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        text, vision, transformer = config.text, config.vision, config.transformer
        width, std = transformer.hidden_size, transformer.init_std
        is_absolute = transformer.positions == "absolute"
        self.text_embeddings = BertEmbeddings(
            text.vocab_size,
            width,
            text.max_position,
            positions=is_absolute,
            dropout=transformer.drop_path,
            std=std,
        )
        self.patch_embedding = PatchEmbedding(vision.patch_size, width, std, bias=True)
        self.class_embedding = self.create_parameter([width], attr=normal_attr(std))
        self.type_embedding = TypeEmbedding(vision.types, width, std)
        rates = drop_path_rates(transformer.drop_path, transformer.num_layers)
        first = transformer.first_pair_layer
        self.blocks = nn.LayerList(
            MultiwayBlock(transformer, number >= first, rate) for number, rate in enumerate(rates)
        )
        self.norm = LayerNorm(width, EPSILON)
        self.pooler = Pooler(width, std)
        self.position_embedding, self.relative_positions = None, None
        if is_absolute:
            shape = [1 + vision.num_patches, width]
            self.position_embedding = self.create_parameter(shape, attr=normal_attr(std))
        else:
            sizes = vision.grid, transformer.num_layers, transformer.num_heads
            self.relative_positions = RelativePositions(*sizes)

    @property
    def image_types(self) -> int:
        return self.config.vision.types

    @property
    def attention_axes(self) -> dict[str, Axes]:
        return {"fusion": Axes((TEXT, IMAGE), (TEXT, IMAGE))}

    @property
    def head_std(self) -> float:
        return self.config.transformer.init_std

    def encode_image(
        self, images: Tensor, *, layers: bool = False, attentions: bool = False, second: bool = False
    ) -> Encoded:
        """Embed images [B, 3, S, S] as H_0^v [B, 1 + N, D] (section 3.1).

        Args:
            layers: also return the embeddings as the states of a tower.
            attentions: there are none before fusion.
            second: these are second pictures of pairs of pictures (NLVR2), which have a type of their own.
        """
        return self.place(self.patch_embedding(images), layers=layers, second=second)

    def place(self, patches: Tensor, *, layers: bool = False, second: bool = False) -> Encoded:
        """Complete projected patches [B, N, D], some of which may be masked, to H_0^v (section 3.1).

        Args:
            layers, second: as for `encode_image`.
        """
        token = self.class_embedding.expand([length(patches, 0), 1, patches.shape[2]])
        states = paddle.concat([token, patches], axis=1)
        if self.position_embedding is not None:
            states = states + self.position_embedding
        states = add_bias(states, self.type_embedding.weight[min(1 + second, self.image_types)])
        return Encoded(image=states, image_layers=(states,) if layers else ())

    def encode_text(
        self, input_ids: Tensor, attention_mask: Tensor, *, layers: bool = False, attentions: bool = False
    ) -> Encoded:
        """Embed texts as H_0^w [B, T, D] (section 3.1).

        Raises:
            ConfigError: texts are longer than the position table.
        """
        states = add_bias(self.text_embeddings(input_ids), self.type_embedding.weight[0])
        return Encoded(text=states, text_mask=attention_mask, text_layers=(states,) if layers else ())

    def fuse(
        self,
        text: Encoded | None,
        image: Encoded | None,
        *,
        attentions: bool = False,
        outputs: Outputs = "all",
    ) -> Encoded:
        """Run the Transformer over pairs, texts (no image) or images (no text).

        Args:
            text, image: results of `encode_text` and `encode_image`; None for a modality that is absent.
            attentions: also return the attentions, `fusion.{layer}`.
            outputs: what is read afterwards. Where all rows of the last layer go through one expert, it
                computes only those; the numbers are the same.

        Returns:
            `fused_text` [B, T, D], `fused_image` [B, 1 + N, D], after the final norm, and `pooled` [B, D], of
            [T_CLS], or of [I_CLS] for images alone.
        """
        sequence = self.join(text, image)
        length = sequence.parts.get(TEXT, 0)
        wanted = {"pooled": 1, "text": length or None}.get(outputs)
        states, maps = self.run(sequence, attentions, wanted)
        states = self.norm(states)
        fused = {
            "fused_text": states[:, :length] if length and outputs != "pooled" else None,
            "fused_image": states[:, length:] if IMAGE in sequence.parts and outputs == "all" else None,
            "pooled": None if outputs == "text" else self.pooler(states),
        }
        masks = {"text_mask": None if text is None else text.text_mask}
        return Encoded(**fused, **masks, attentions=maps)

    def join(self, text: Encoded | None, image: Encoded | None) -> JoinedStates:
        """Return H_0 of texts, images, or pairs: the text first (section 3.1)."""
        parts: dict[str, int] = {}
        states, keys = [], []
        if text is not None:
            parts[TEXT] = text.text.shape[1]
            states.append(text.text)
            keys.append(text.text_mask.astype("float32"))
        if image is not None:
            parts[IMAGE] = image.image.shape[1]
            states.append(image.image)
            if text is not None:
                keys.append(paddle.ones([length(image.image, 0), image.image.shape[1]]))
        mask = additive_mask(paddle.concat(keys, axis=1)) if keys else None
        masks: Sequence[Tensor | None] = [mask] * len(self.blocks)
        if self.relative_positions is not None:
            biases = self.relative_positions(parts.get(TEXT, 0), IMAGE in parts)
            masks = biases
            if mask is not None:
                size = [length(mask, 0), *biases[0].shape[1:]]
                masks = [add_mask(mask.expand(size), bias) for bias in biases]
        return JoinedStates(paddle.concat(states, axis=1), masks, parts)

    def run(
        self,
        sequence: JoinedStates,
        need_weights: bool = False,
        num_queries: int | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the blocks `first` to `last`, without the final norm.

        Returns:
            States [B, S or num_queries, D], and on request the attentions.
        """
        states, maps = sequence.states, {}
        for number in range(first, len(self.blocks) if last is None else last):
            block, is_top = self.blocks[number], number == len(self.blocks) - 1
            some = num_queries if is_top and len(block.route(sequence.parts)) == 1 else None
            mask = sequence.masks[number]
            states, weights = run_block(block, states, mask, sequence.parts, need_weights, some)
            if need_weights:
                maps[f"fusion.{number + 1}"] = weights
        return states, maps

    def contrast_states(self, text: Encoded | None, image: Encoded | None) -> tuple[Tensor, Tensor | None]:
        """Compute the states [B, D] of [T_CLS] or [I_CLS] that image-text contrast compares (section 3.3).

        Args:
            text, image: one of the two; the other is None.

        Returns:
            Those of the dual encoder, and those in which the top layers used the experts for pairs (the
            release's second contrast), None if there are none.
        """
        sequence, first = self.join(text, image), self.config.transformer.first_pair_layer
        below, _ = self.run(sequence, last=first)
        entry = JoinedStates(below, sequence.masks, sequence.parts)
        own = self.norm(self.run(entry, num_queries=1, first=first)[0])[:, 0]
        if first == len(self.blocks):
            return own, None
        as_pair = JoinedStates(below, sequence.masks, {PAIR: below.shape[1]})
        return own, self.norm(self.run(as_pair, num_queries=1, first=first)[0])[:, 0]

    def text_vector(self, text: Encoded) -> Tensor:
        """Return the last states of [T_CLS] [B, D] of texts that are encoded alone."""
        return self._alone(text, None)

    def image_vector(self, image: Encoded) -> Tensor:
        """Return the last states of [I_CLS] [B, D] of images that are encoded alone."""
        return self._alone(None, image)

    def _alone(self, text: Encoded | None, image: Encoded | None) -> Tensor:
        return self.norm(self.run(self.join(text, image), num_queries=1)[0])[:, 0]

    @property
    def map_sizes(self) -> tuple[int, int]:
        return len(self.blocks), self.hidden_size

    def image_maps(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Compute maps of the states of images that go through the Transformer alone, without its norm."""
        sequence, first, maps = self.join(None, self.encode_image(images)), 0, []
        for layer in layers:
            states, _ = self.run(sequence, first=first, last=layer)
            sequence, first = JoinedStates(states, sequence.masks, sequence.parts), layer
            maps.append(as_map(states, images, self.patch_embedding.patch_size))
        return maps

    def is_mapped(self, parameter: str, last: int) -> bool:
        part, *rest = parameter.split(".")
        if part in ("norm", "pooler") or (part == "blocks" and int(rest[0]) >= last):
            return False
        return self.is_used(parameter, text=False, image=True, pooled=False)

    def fit_table(self, name: str, table: np.ndarray) -> np.ndarray:
        """Resize stored positions of patches of another model."""
        if name == "position_embedding" and table.ndim == 2 and table_grid(len(table)) is not None:
            return resize_positions(table, self.config.vision.grid)
        return table

    def is_used(self, parameter: str, *, text: bool, image: bool, pooled: bool = True) -> bool:
        part, *rest = parameter.split(".")
        if part == "pooler":
            return pooled
        if part == "text_embeddings":
            return text
        if part in ("patch_embedding", "class_embedding", "position_embedding"):
            return image
        if part == "blocks" and rest[1] == "experts":
            return self._expert_is_used(int(rest[0]), rest[2], text, image)
        return True

    def _expert_is_used(self, layer: int, name: str, text: bool, image: bool) -> bool:
        parts = {kind: 1 for kind, there in ((TEXT, text), (IMAGE, image)) if there}
        return name in self.blocks[layer].route(parts)

    def lr_group(self, parameter: str) -> str:
        """Return `towers`: all parameters but those of heads learn at one rate (section 4.1)."""
        return "towers"

    def depth(self, parameter: str) -> int | None:
        """Return how deep a parameter stands. Relative positions, one table for all layers, stand in none, as
        in BEiT's code."""
        part, *rest = parameter.split(".")
        if part == "blocks":
            return 1 + int(rest[0])
        return None if part in ("norm", "pooler", "relative_positions") else 0
