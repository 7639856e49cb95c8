"""The fusion encoder (Eq. 5): text and image layers that read each other and, through links, the towers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from paddle import Tensor, nn

from unimo.models.base import Outputs
from unimo.models.unimo3.config import Config
from unimo.models.unimo3.cross_layer import CrossLayerLinks
from unimo.nn.attention import additive_mask
from unimo.nn.block import CrossBlock, run_block
from unimo.nn.outputs import Encoded


@dataclass(frozen=True)
class FusionState:
    """Both streams between two layers, and their masks."""

    text: Tensor
    """[B, T, D]"""
    image: Tensor
    """[B, V, D]"""
    text_mask: Tensor | None
    """Additive, [B, 1, 1, T]."""
    image_mask: Tensor | None
    """Additive, [B, 1, 1, V]."""
    attentions: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, start: int, stop: int) -> FusionState:
        """Return the pairs start .. stop - 1 of the batch, without attentions."""
        parts = (self.text, self.image, self.text_mask, self.image_mask)
        return FusionState(*(None if part is None else part[start:stop] for part in parts))


class FusionEncoder(nn.Layer):
    """L_F pairs of co-attention layers, of which the first m read the towers through `CrossLayerLinks`.

    Z_l^T, Z_l^V = Encoder_l(Z~_{l-1}^T, Z~_{l-1}^V)  (Eq. 5): both streams of a layer read the other stream's
    input, not its new state, so neither comes first.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        fusion = config.fusion

        def layers() -> nn.LayerList:
            return nn.LayerList(
                CrossBlock(
                    fusion.hidden_size,
                    fusion.num_heads,
                    fusion.intermediate_size,
                    dropout=fusion.dropout,
                    attention_dropout=fusion.attention_dropout,
                    epsilon=fusion.epsilon,
                    std=fusion.init_std,
                )
                for _ in range(fusion.num_layers)
            )

        self.num_layers, self.num_internal = fusion.num_layers, fusion.internal_layers
        self.text_layers, self.image_layers = layers(), layers()
        self.text_links = CrossLayerLinks(fusion, config.text.num_layers, fusion.text_start)
        self.image_links = CrossLayerLinks(fusion, config.vision.used_layers, fusion.image_start)

    def forward(self, text: Encoded, image: Encoded, need_weights: bool = False) -> FusionState:
        """Run all layers but the last, and compute the last one's inputs.

        Args:
            text, image: results of `Unimo3.encode_text` and `encode_image`; only their `links` are read.
            need_weights: also keep attentions.
        """
        state = FusionState(
            text.links["start"],
            image.links["start"],
            additive_mask(text.text_mask),
            additive_mask(image.image_mask),
        )
        for layer in range(1, self.num_layers + 1):
            if layer <= self.num_internal:
                x = self.text_links(layer, state.text, text.links)
                y = self.image_links(layer, state.image, image.links)
                state = replace(state, text=x, image=y)
            if layer < self.num_layers:
                x = self._layer(layer, "text", state, need_weights=need_weights)
                y = self._layer(layer, "image", state, need_weights=need_weights)
                state = replace(state, text=x, image=y)
        return state

    def last(
        self, state: FusionState, outputs: Outputs, need_weights: bool = False
    ) -> tuple[Tensor | None, Tensor | None, dict[str, Tensor]]:
        """Run the last layer, only as far as it is read.

        Args:
            state: result of `forward`.
            outputs: `all` both streams; `text` the text stream alone; `pooled` token 0 of each stream.
            need_weights: also return attentions.

        Returns:
            Z_{L_F}: text [B, T or 1, D], image [B, V or 1, D] (None for `text`); and attentions of all layers
            by `fusion.{text,image}_{self,cross}.{layer}`.
        """
        state = replace(state, attentions=dict(state.attentions))
        queries = 1 if outputs == "pooled" else None
        text = self._layer(self.num_layers, "text", state, queries, need_weights)
        if outputs == "text":
            return text, None, state.attentions
        image = self._layer(self.num_layers, "image", state, queries, need_weights)
        return text, image, state.attentions

    def _layer(
        self,
        number: int,
        stream: Literal["text", "image"],
        state: FusionState,
        queries: int | None = None,
        need_weights: bool = False,
    ) -> Tensor:
        """Run one stream of a layer, and put its attentions into `state`, if they are wanted."""
        if stream == "text":
            block, own, other = self.text_layers[number - 1], state.text, state.image
            own_mask, other_mask = state.text_mask, state.image_mask
        else:
            block, own, other = self.image_layers[number - 1], state.image, state.text
            own_mask, other_mask = state.image_mask, state.text_mask
        new, weights, cross = run_block(block, own, other, own_mask, other_mask, queries, need_weights)
        if need_weights:
            state.attentions[f"fusion.{stream}_self.{number}"] = weights
            state.attentions[f"fusion.{stream}_cross.{number}"] = cross
        return new
