"""UNIMO-3, and METER and BridgeTower as settings of it: towers, projections, fusion, poolers."""

from __future__ import annotations

from typing import ClassVar

import paddle
from paddle import Tensor

from unimo.models.base import Axes, Outputs
from unimo.models.two_towers import TwoTowers
from unimo.models.unimo3.config import Config
from unimo.models.unimo3.fusion import FusionEncoder, FusionState
from unimo.nn.embeddings import TypeEmbedding
from unimo.nn.heads import Pooler
from unimo.nn.init import linear
from unimo.nn.outputs import Encoded
from unimo.nn.towers import ClipVisionTower, RobertaTower

TEXT_TYPE, IMAGE_TYPE = 0, 1


class Unimo3(TwoTowers):
    """Two towers and a fusion encoder that reads their layers through gates.

    Parameters: `text.*`, `vision.*` (towers), `type_embedding` (T^type, V^type, with `vision.types` 2 a row
    of second pictures), `text_transform` (W^T), `image_transform` (W^V), all three of Eqs (6) and (7);
    `fusion.*`, `text_pooler`, `image_pooler`.
    """

    open_lengths: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        text, vision, fusion = config.text, config.vision, config.fusion
        self.text = RobertaTower(text, pooler=text.pooler)
        self.vision = ClipVisionTower(vision)
        self.type_embedding = TypeEmbedding(vision.types, fusion.hidden_size, fusion.init_std)
        self.text_transform = linear(text.hidden_size, fusion.hidden_size, fusion.init_std)
        self.image_transform = linear(vision.hidden_size, fusion.hidden_size, fusion.init_std)
        self.fusion = FusionEncoder(config)
        self.text_pooler = Pooler(fusion.hidden_size, fusion.init_std)
        self.image_pooler = Pooler(fusion.hidden_size, fusion.init_std)

    @property
    def hidden_size(self) -> int:
        return self.config.fusion.hidden_size

    @property
    def pooled_size(self) -> int:
        """2 D: pooled text and pooled image, concatenated."""
        return 2 * self.hidden_size

    @property
    def alone_sizes(self) -> tuple[int, int]:
        return self.config.text.hidden_size, self.config.vision.hidden_size

    @property
    def image_types(self) -> int:
        return self.config.vision.types

    @property
    def vector_sizes(self) -> tuple[int, int]:
        return self.config.vector_sizes

    @property
    def attention_axes(self) -> dict[str, Axes]:
        return super().attention_axes | {
            "fusion.text_self": Axes(("text",), ("text",)),
            "fusion.text_cross": Axes(("text",), ("image",)),
            "fusion.image_self": Axes(("image",), ("image",)),
            "fusion.image_cross": Axes(("image",), ("text",)),
        }

    def link_text(self, states: list[Tensor]) -> dict[str, Tensor]:
        """Return what fusion reads of the states T_0 .. T_n of the text tower: Eqs (6) and (8)."""
        row = self.type_embedding.weight[TEXT_TYPE]
        return self.fusion.text_links.read_tower(states, self.text_transform, row)

    def link_image(self, states: list[Tensor], second: bool = False) -> dict[str, Tensor]:
        """Return what fusion reads of the states V_0 .. V_n of the vision tower: Eqs (7) and (10)."""
        row = self.type_embedding.weight[min(IMAGE_TYPE + second, self.image_types)]
        return self.fusion.image_links.read_tower(states, self.image_transform, row, self.vision.ln_post)

    def image_vector(self, image: Encoded) -> Tensor:
        first = super().image_vector(image)
        if self.config.vision.vector == "tower":
            return first
        return self.image_transform(first) + self.type_embedding.weight[IMAGE_TYPE]

    def fuse(
        self, text: Encoded, image: Encoded, *, attentions: bool = False, outputs: Outputs = "all"
    ) -> Encoded:
        """Fuse texts and images of the same batch size.

        Args:
            text, image: results of `encode_text` and `encode_image`.
            attentions: also return the attentions of the fusion layers.
            outputs: what is read afterwards; the rest of the last layer is not computed. `all`; `text`:
                only `fused_text`; `pooled`: only `pooled`. The numbers are the same.

        Returns:
            `fused_text` [B, T, D], `fused_image` [B, V, D] and `pooled` [B, 2 D].
        """
        return self.read_out(
            self.interact(text, image, attentions=attentions), outputs, attentions=attentions
        )

    def interact(self, text: Encoded, image: Encoded, *, attentions: bool = False) -> FusionState:
        """Do the first part of `fuse`, everything before the last fusion layer.

        It is the same whatever is read afterwards, so that pairs of several objectives form one batch.
        """
        return self.fusion(text, image, attentions)

    def read_out(self, state: FusionState, outputs: Outputs = "all", *, attentions: bool = False) -> Encoded:
        """Do the second part of `fuse`: the last fusion layer and the poolers, concatenated (section 3.4)."""
        text, image, maps = self.fusion.last(state, outputs, attentions)
        if outputs == "text":
            return Encoded(fused_text=text, attentions=maps)
        pooled = paddle.concat([self.text_pooler(text), self.image_pooler(image)], axis=-1)
        if outputs == "pooled":
            return Encoded(pooled=pooled, attentions=maps)
        return Encoded(fused_text=text, fused_image=image, pooled=pooled, attentions=maps)

    def text_alone(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the last state of `<s>` in the text tower [B, D_t], which classifies GLUE (Table 3)."""
        return self.text(input_ids, attention_mask)[0][-1][:, 0]

    def image_alone(self, images: Tensor) -> Tensor:
        """Return the last state of the class token in the vision tower [B, D_v] (Table 4)."""
        return self.vision.ln_post(self.vision(images)[0][-1][:, 0])

    def is_used(self, parameter: str, *, text: bool, image: bool, pooled: bool = True) -> bool:
        if text and image:
            return True
        return parameter.startswith(("text.embeddings.", "text.layers.") if text else "vision.")

    def lr_group(self, parameter: str) -> str:
        """Return `towers` for towers and type embedding (as METER and BridgeTower), else `cross_modal`.

        Recipes let the latter learn at five times the rate of the towers (section 4.1).
        """
        return "towers" if parameter.startswith("type_embedding.") else super().lr_group(parameter)

    def depth(self, parameter: str) -> int | None:
        depth = super().depth(parameter)
        return depth - 1 if "_links.gates." in parameter else depth  # gates are counted from 1
