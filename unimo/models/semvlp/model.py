"""SemVLP: objects and tokens through one Transformer, in one sequence or in two (Fig. 2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import paddle
from paddle import Tensor, nn

from unimo.models.base import Axes, Model, Outputs, TowerSource
from unimo.models.semvlp.config import Config, Mode
from unimo.models.semvlp.dual_mode import DualModeEncoder
from unimo.nn.attention import additive_mask
from unimo.nn.embeddings import BertEmbeddings, shown_features
from unimo.nn.heads import Pooler
from unimo.nn.init import linear, normal_attr
from unimo.nn.outputs import Encoded
from unimo.nn.shapes import length


class ObjectEmbeddings(nn.Layer):
    """[IMG] o'_1 .. o'_n (section 3.1.1): feature and box of each object in one vector, projected.

    [IMG] is a learned vector of the width of the Transformer. The rows stand for the sum of word and position
    embeddings, so they get a token type, the second of BERT's, and BERT's norm (`BertEmbeddings.of_type`).
    """

    def __init__(self, feature_size: int, width: int, std: float) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.projection = linear(feature_size + 4, width, std)
        self.whole = self.create_parameter([width], attr=normal_attr(std))

    def forward(self, regions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Project the objects of B images.

        Args:
            regions: `features` [B, R, F]; `locations` [B, R, 5], of which the corners are read; `mask`
                [B, R], 1 = object. With `masked` [B, R], 1 = hidden, features there count as zeros; boxes
                stay.

        Returns:
            Rows [B, 1 + R, W], [IMG] first, and their mask [B, 1 + R].

        Raises:
            ConfigError: features of another width than F.
        """
        features, _ = shown_features(regions, self.feature_size)
        states = self.projection(paddle.concat([features, regions["locations"][:, :, :4]], axis=2))
        whole = self.whole.expand([length(states, 0), 1, states.shape[2]])
        mask = regions["mask"].astype("float32")
        there = paddle.concat([paddle.ones_like(mask[:, :1]), mask], axis=1)
        return paddle.concat([whole, states], axis=1), there


class SemVlp(Model):
    """A single-stream and a two-stream model in the same weights.

    In single-stream mode `encode_image` and `encode_text` only embed, and `fuse` runs the Transformer over
    both in one sequence. In two-stream mode `encode_text` runs it over the text, `encode_image` its lower
    layers over the image, and `fuse` the upper ones, in which the image reads the text. `pooled` is of [CLS],
    or in two-stream mode of [IMG] (section 3.3.3).

    Parameters: `embeddings`, `layers` and `pooler` as BERT's, `layers.{i}.cross_attention` and `cross_norm`,
    `objects.{projection, whole}`.

    Attributes:
        mode: the mode, which all methods read: what was encoded in one mode is fused in the same.
    """

    tower_kind: ClassVar[str] = "bert"
    """Kind of tower folder that it starts from."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        text, width = config.text, config.hidden_size
        self.mode: Mode = config.mode
        self.embeddings = BertEmbeddings(
            text.vocab_size, width, text.max_position, dropout=text.dropout, std=text.init_std
        )
        self.layers = DualModeEncoder(text, config.cross)
        self.pooler = Pooler(width, text.init_std)
        self.objects = ObjectEmbeddings(config.regions.feature_size, width, text.init_std)

    @contextlib.contextmanager
    def in_mode(self, mode: Mode) -> Iterator[None]:
        """Read pairs in another mode inside a `with` block."""
        before, self.mode = self.mode, mode
        try:
            yield
        finally:
            self.mode = before

    def parts_to_load(self) -> tuple[TowerSource, ...]:
        cross = (f"layers.{number}.cross_" for number in range(len(self.layers)))
        return (TowerSource(self, self.config.text.init, ignore=("objects.", *cross)),)

    @property
    def head_std(self) -> float:
        return self.config.text.init_std

    @property
    def attention_axes(self) -> dict[str, Axes]:
        """`fusion` of single-stream mode, the others of two-stream mode."""
        return {
            "fusion": Axes(("text", "image"), ("text", "image")),
            "text": Axes(("text",), ("text",)),
            "image": Axes(("image",), ("image",)),
            "cross": Axes(("image",), ("text",)),
        }

    def encode_image(
        self,
        images: Mapping[str, Tensor],
        *,
        layers: bool = False,
        attentions: bool = False,
        second: bool = False,
    ) -> Encoded:
        """Embed the objects of B images, and in two-stream mode run the layers up to L_s.

        Args:
            images: see `ObjectEmbeddings.forward`.
            layers, attentions: also return the states of these layers, and the attentions `image.{layer}`.
            second: second pictures of pairs are no different.

        Returns:
            `image` [B, 1 + R, H], [IMG] first, and `image_mask` [B, 1 + R].
        """
        rows, there = self.objects(images)
        states, maps = [self.embeddings.of_type(rows, 1)], {}
        if self.mode == "two":
            states, maps = self.layers.lower(states[0], additive_mask(there), attentions)
        return Encoded(
            image=states[-1],
            image_mask=there,
            image_layers=tuple(states) if layers else (),
            attentions=maps,
        )

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        layers: bool = False,
        attentions: bool = False,
    ) -> Encoded:
        """Embed texts, and in two-stream mode run all layers, which gives H^L.

        Args:
            input_ids, attention_mask: [B, T]; the mask has 1 = token, 0 = padding.
            layers, attentions: also return the states of these layers, and the attentions `text.{layer}`.

        Returns:
            `text` [B, T, H] and `text_mask`.

        Raises:
            ConfigError: texts are longer than the position table.
        """
        states, maps = [self.embeddings(input_ids)], {}
        if self.mode == "two":
            states, maps = self.layers.plain(states[0], additive_mask(attention_mask), "text", attentions)
        return Encoded(
            text=states[-1],
            text_mask=attention_mask,
            text_layers=tuple(states) if layers else (),
            attentions=maps,
        )

    def fuse(
        self, text: Encoded, image: Encoded, *, attentions: bool = False, outputs: Outputs = "all"
    ) -> Encoded:
        """Run the layers that both are read by, in the mode in which they were encoded.

        Args:
            text, image: results of `encode_text` and `encode_image`.
            attentions: also return the attentions: `fusion.{layer}` of [text; image], or in two-stream mode
                `image.{layer}` and `cross.{layer}` above L_s.
            outputs: what is read afterwards; the last layer computes only that. In two-stream mode the text
                is there already, and with `text` the image is left as it is.

        Returns:
            `fused_text` H^L [B, T, H], `fused_image` O^L [B, 1 + R, H], and `pooled` [B, H].
        """
        if self.mode == "two":
            return self._fuse_streams(text, image, attentions, outputs)
        length = text.text.shape[1]
        mask = paddle.concat([text.text_mask.astype("float32"), image.image_mask], axis=1)
        rows = {"pooled": 1, "text": length}.get(outputs)
        joined = paddle.concat([text.text, image.image], axis=1)
        layers, maps = self.layers.plain(joined, additive_mask(mask), "fusion", attentions, rows)
        states = layers[-1]
        return Encoded(
            fused_text=None if outputs == "pooled" else states[:, :length],
            fused_image=states[:, length:] if outputs == "all" else None,
            text_mask=text.text_mask,
            image_mask=image.image_mask,
            attentions=maps,
            pooled=None if outputs == "text" else self.pooler(states),
        )

    def _fuse_streams(self, text: Encoded, image: Encoded, attentions: bool, outputs: Outputs) -> Encoded:
        masks = {"text_mask": text.text_mask, "image_mask": image.image_mask}
        if outputs == "text":
            return Encoded(fused_text=text.text, **masks)
        layers, maps = self.layers.upper(
            image.image,
            additive_mask(image.image_mask),
            text.text,
            additive_mask(text.text_mask),
            attentions,
            1 if outputs == "pooled" else None,
        )
        return Encoded(
            fused_text=text.text if outputs == "all" else None,
            fused_image=layers[-1] if outputs == "all" else None,
            **masks,
            attentions=maps,
            pooled=self.pooler(layers[-1]),
        )

    def is_used(self, parameter: str, *, text: bool, image: bool, pooled: bool = True) -> bool:
        part, *rest = parameter.split(".")
        if part == "pooler":
            return pooled
        if part == "objects":
            return image
        if part == "layers" and rest[1].startswith("cross_"):
            return self.mode == "two" and int(rest[0]) >= self.layers.start
        if rest and rest[0] in ("word", "position"):
            # [IMG] of two streams that never meet knows nothing of the text.
            return text and not (self.mode == "two" and self.layers.start == len(self.layers))
        return True

    def lr_group(self, parameter: str) -> str:
        """Return `towers` for what BERT has, else `cross_modal`."""
        return "cross_modal" if parameter.startswith("objects.") or ".cross_" in parameter else "towers"

    def depth(self, parameter: str) -> int | None:
        part, *rest = parameter.split(".")
        if part == "layers":
            return 1 + int(rest[0])
        return None if part == "pooler" else 0
