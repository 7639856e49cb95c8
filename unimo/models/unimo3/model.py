"""UNIMO-3, and METER and BridgeTower as settings of it: towers, projections, fusion, poolers."""

from __future__ import annotations

from typing import ClassVar

import paddle
from paddle import Tensor, nn

from unimo.models.base import Model, Outputs, TowerSource
from unimo.models.unimo3.config import CAPABILITIES, Config
from unimo.models.unimo3.cross_layer import CrossLayerLinks
from unimo.models.unimo3.fusion import FusionEncoder, FusionState
from unimo.nn.block import set_recompute
from unimo.nn.heads import Pooler
from unimo.nn.init import embedding, linear
from unimo.nn.kernels import add_bias
from unimo.nn.outputs import Encoded
from unimo.nn.text_encoder import RobertaTower
from unimo.nn.vit import ClipVisionTower

TEXT_TYPE, IMAGE_TYPE = 0, 1


class Unimo3(Model):
    """Two towers and a fusion encoder that reads their layers through gates.

    Parameters: `text.*`, `vision.*` (towers), `type_embedding`, `text_transform`, `image_transform`
    (Eqs 6, 7), `fusion.*`, `text_pooler`, `image_pooler`.
    """

    capabilities: ClassVar[frozenset[str]] = CAPABILITIES

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        text, vision, fusion = config.text, config.vision, config.fusion
        self.text = RobertaTower.from_config(text, pooler=text.pooler)
        self.vision = ClipVisionTower(
            vision.hidden_size,
            vision.used_layers,
            vision.num_heads,
            vision.intermediate_size,
            patch_size=vision.patch_size,
            image_size=vision.image_size,
            dropout=vision.dropout,
            position_std=vision.position_init_std,
            init_layers=vision.num_layers,
        )
        self.type_embedding = embedding(2, fusion.hidden_size, fusion.init_std)
        self.text_transform = linear(text.hidden_size, fusion.hidden_size, fusion.init_std)
        self.image_transform = linear(vision.hidden_size, fusion.hidden_size, fusion.init_std)
        self.fusion = FusionEncoder(config)
        self.text_pooler = Pooler(fusion.hidden_size, fusion.init_std)
        self.image_pooler = Pooler(fusion.hidden_size, fusion.init_std)

    def parts_to_load(self) -> tuple[TowerSource, ...]:
        """Both towers."""
        text, vision = self.config.text, self.config.vision
        return (
            TowerSource(self.text, text.init),
            TowerSource(self.vision, vision.init, vision.remove_last),
        )

    @property
    def hidden_size(self) -> int:
        """Width D of the fused states."""
        return self.config.fusion.hidden_size

    @property
    def pooled_size(self) -> int:
        """2 D: pooled text and pooled image, concatenated."""
        return 2 * self.hidden_size

    def encode_image(self, pixels: Tensor, *, layers: bool = False, attentions: bool = False) -> Encoded:
        """Images [B, 3, S, S] to `image` (after `ln_post`) and the links that `fuse` reads."""
        states, maps = self.vision(pixels, attentions)
        return Encoded(
            image=self.vision.ln_post(states[-1]),
            image_layers=tuple(states) if layers else (),
            attentions=maps,
            links=self.link_image(states),
        )

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        layers: bool = False,
        attentions: bool = False,
    ) -> Encoded:
        """Ids and mask [B, T] to `text` and the links that `fuse` reads."""
        states, maps = self.text(input_ids, attention_mask, attentions)
        return Encoded(
            text=states[-1],
            text_mask=attention_mask,
            text_layers=tuple(states) if layers else (),
            attentions=maps,
            links=self.link_text(states),
        )

    def link_text(self, states: list[Tensor]) -> dict[str, Tensor]:
        """What fusion reads from the text tower's states T_0 .. T_n; see `_link`."""
        type_row = self.type_embedding.weight[TEXT_TYPE]
        return self._link(states, self.fusion.text_links, nn.Identity(), self.text_transform, type_row)

    def link_image(self, states: list[Tensor]) -> dict[str, Tensor]:
        """What fusion reads from the vision tower's states V_0 .. V_n; see `_link`."""
        type_row = self.type_embedding.weight[IMAGE_TYPE]
        return self._link(
            states, self.fusion.image_links, self.vision.ln_post, self.image_transform, type_row
        )

    def _link(
        self,
        tower: list[Tensor],
        links: CrossLayerLinks,
        norm: nn.Layer,
        transform: nn.Linear,
        type_row: Tensor,
    ) -> dict[str, Tensor]:
        """Features of linked tower layers and the start state.

        Returns:
            `start`: Z_0 = W T_{S-1} + type, [B, S, D] (Eqs 6, 7). With links also `state.{k}` [B, S, D],
            W T_k + type (or as `link_feature` says), and what `CrossLayerLinks.gate_logits` returns.
        """
        feature = self.config.fusion.link_feature

        bias = transform.bias + type_row

        def project(state: Tensor) -> Tensor:
            return add_bias(paddle.matmul(norm(state), transform.weight), bias)

        if feature == "projected":
            states = {k: project(tower[k]) for k in links.used}
        else:
            states = {k: norm(tower[k]) if feature == "raw_ln" else tower[k] for k in links.used}
        before_start = links.start - 1
        read = feature == "projected" and before_start in states
        start = states[before_start] if read else project(tower[before_start])
        named = {f"state.{k}": state for k, state in states.items()}
        return {"start": start, **named, **links.gate_logits(states)}

    def fuse(
        self, text: Encoded, image: Encoded, *, attentions: bool = False, outputs: Outputs = "all"
    ) -> Encoded:
        """Text and image of the same batch size to fused states and the pooled pair vector.

        Args:
            attentions: also return the attentions of the fusion layers.
            outputs: what is read afterwards; the rest of the last layer is not computed. `all`; `text`:
                only `fused_text`; `pooled`: only `pooled`. The numbers are the same.
        """
        return self.read_out(
            self.interact(text, image, attentions=attentions), outputs, attentions=attentions
        )

    def interact(self, text: Encoded, image: Encoded, *, attentions: bool = False) -> FusionState:
        """The first part of `fuse`: everything before the last fusion layer."""
        return self.fusion(text, image, attentions)

    def read_out(self, state: FusionState, outputs: Outputs = "all", *, attentions: bool = False) -> Encoded:
        """The second part of `fuse`: the last fusion layer and the poolers."""
        text, image, maps = self.fusion.last(state, outputs, attentions)
        if outputs == "text":
            return Encoded(fused_text=text, attentions=maps)
        pooled = paddle.concat([self.text_pooler(text), self.image_pooler(image)], axis=-1)
        if outputs == "pooled":
            return Encoded(pooled=pooled, attentions=maps)
        return Encoded(fused_text=text, fused_image=image, pooled=pooled, attentions=maps)

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """Encode and fuse a batch of pairs."""
        return self.fuse(self.encode_text(input_ids, attention_mask), self.encode_image(pixels))

    def set_recompute(self, on: bool) -> None:
        """Recompute the activations of every transformer block in the backward pass."""
        set_recompute(self, on)

    def lr_group(self, parameter: str) -> str:
        """`towers` for the towers and the type embedding (as METER and BridgeTower), else `cross_modal`."""
        part = parameter.partition(".")[0]
        return "towers" if part in ("text", "vision", "type_embedding") else "cross_modal"
