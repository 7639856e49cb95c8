"""The fusion encoder (Eq. 5): text and image layers that update each other, fed through the links."""

from __future__ import annotations

from dataclasses import dataclass, field

from paddle import Tensor, nn

from unimo.models.base import Outputs
from unimo.models.unimo3.config import Config
from unimo.models.unimo3.cross_layer import CrossLayerLinks
from unimo.nn.block import CrossBlock, run_block
from unimo.nn.masks import additive_mask
from unimo.nn.outputs import Encoded


@dataclass(frozen=True)
class FusionState:
    """What stands before the last fusion layer: its inputs (Z tilde) and the masks of both streams."""

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
        """The pairs start .. stop - 1 of the batch, without attentions."""
        parts = (self.text, self.image, self.text_mask, self.image_mask)
        return FusionState(*(None if part is None else part[start:stop] for part in parts))


class FusionEncoder(nn.Layer):
    """L_F pairs of co-attention layers; the first m read the towers through `CrossLayerLinks`."""

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
                    std=fusion.init_std,
                )
                for _ in range(fusion.num_layers)
            )

        self.num_layers, self.num_internal = fusion.num_layers, fusion.internal_layers
        self.text_layers, self.image_layers = layers(), layers()
        self.text_links = CrossLayerLinks(fusion, config.text.num_layers, fusion.text_start)
        self.image_links = CrossLayerLinks(fusion, config.vision.used_layers, fusion.image_start)

    def forward(self, text: Encoded, image: Encoded, need_weights: bool = False) -> FusionState:
        """Run all layers but the last, up to the last one's inputs.

        Args:
            text, image: towers' outputs with `links` from `Unimo3.encode_text` and `encode_image`.
        """
        x, y = text.links["start"], image.links["start"]
        x_mask, y_mask = additive_mask(text.text_mask), additive_mask(image.image_mask)
        attentions: dict[str, Tensor] = {}
        for layer in range(1, self.num_layers + 1):
            if layer <= self.num_internal:
                x = self.text_links(layer, x, text.links)
                y = self.image_links(layer, y, image.links)
            if layer < self.num_layers:
                new_x = self._layer(layer, "text", x, y, x_mask, y_mask, None, need_weights, attentions)
                y = self._layer(layer, "image", y, x, y_mask, x_mask, None, need_weights, attentions)
                x = new_x
        return FusionState(x, y, x_mask, y_mask, attentions)

    def last(
        self, state: FusionState, outputs: Outputs, need_weights: bool = False
    ) -> tuple[Tensor | None, Tensor | None, dict[str, Tensor]]:
        """The last layer, only as far as it is read.

        Args:
            outputs: `all` both streams; `text` the text stream alone; `pooled` token 0 of each stream.

        Returns:
            Text [B, T or 1, D], image [B, V or 1, D] (None for `text`), and attentions by name.
        """
        queries = 1 if outputs == "pooled" else None
        attentions = dict(state.attentions)
        x, y, x_mask, y_mask = state.text, state.image, state.text_mask, state.image_mask
        last = self.num_layers
        text = self._layer(last, "text", x, y, x_mask, y_mask, queries, need_weights, attentions)
        if outputs == "text":
            return text, None, attentions
        image = self._layer(last, "image", y, x, y_mask, x_mask, queries, need_weights, attentions)
        return text, image, attentions

    def _layer(
        self,
        number: int,
        stream: str,
        own: Tensor,
        other: Tensor,
        own_mask: Tensor | None,
        other_mask: Tensor | None,
        queries: int | None,
        need_weights: bool,
        attentions: dict[str, Tensor],
    ) -> Tensor:
        block = (self.text_layers if stream == "text" else self.image_layers)[number - 1]
        new, weights, cross = run_block(block, own, other, own_mask, other_mask, queries, need_weights)
        if need_weights:
            attentions[f"fusion.{stream}_self.{number}"] = weights
            attentions[f"fusion.{stream}_cross.{number}"] = cross
        return new
