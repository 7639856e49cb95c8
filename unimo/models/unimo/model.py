"""UNIMO: regions and tokens in one sequence through one Transformer (section 2, Fig. 2)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import paddle
from paddle import Tensor

from unimo.models.base import Axes, Images, Model, Outputs, TowerSource
from unimo.models.unimo.config import Config
from unimo.models.unimo.visibility import visibility
from unimo.nn.block import run_blocks
from unimo.nn.decoding import DecodingState, advance, next_position, read_prefix
from unimo.nn.embeddings import RegionEmbeddings
from unimo.nn.heads import Pooler
from unimo.nn.init import embedding, linear
from unimo.nn.kernels import dropout
from unimo.nn.outputs import Encoded
from unimo.nn.position import token_positions
from unimo.nn.towers import RobertaTower

TARGET = "is_target"


class Unimo(Model):
    """One Transformer for pairs, images alone and texts alone.

    `encode_image` and `encode_text` only embed; `fuse` runs the Transformer over image, text, or both in one
    sequence. (For an image or a text alone appendix A adds a pseudo sequence of the other kind and masks it
    out; here it is left out.)

    Parameters: `transformer.{embeddings, layers}` as RoBERTa's, `regions.*`, `text_pooler`, `image_pooler`,
    `match_head`, and for dialogues `roles`, `turns`.
    """

    head_epsilon: ClassVar[float] = 1e-5
    has_match: ClassVar[bool] = True
    optional: ClassVar[tuple[str, ...]] = ("roles.", "turns.")
    open_lengths: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        text, width, std = config.text, config.hidden_size, config.text.init_std
        self.transformer = RobertaTower(text, pooler=False, token_type=False)
        self.regions = RegionEmbeddings(config.regions.feature_size, width, std, text.dropout)
        self.text_pooler = Pooler(width, std, "relu")
        self.image_pooler = Pooler(width, std, "relu")
        self.match_head = linear(width, 1, std)
        self.roles = embedding(config.role_types, width, std) if config.role_types else None
        self.turns = embedding(config.turn_types, width, std) if config.turn_types else None

    def parts_to_load(self) -> tuple[TowerSource, ...]:
        return (TowerSource(self.transformer, self.config.text.init),)

    @property
    def attention_axes(self) -> dict[str, Axes]:
        return {"fusion": Axes(("image", "text"), ("image", "text"))}

    @property
    def head_std(self) -> float:
        return self.config.text.init_std

    def encode_image(
        self, images: Images, *, layers: bool = False, attentions: bool = False, second: bool = False
    ) -> Encoded:
        """Embed the regions of B images.

        Args:
            images: see `RegionEmbeddings.forward`.
            layers: also return the embeddings as the states of a tower.
            attentions: there are none before fusion.
            second: second pictures of pairs are no different.

        Returns:
            `image` [B, 1 + R, H], [IMG] first, and `image_mask` [B, 1 + R].
        """
        states, mask = self.regions(images)
        return Encoded(image=states, image_mask=mask, image_layers=(states,) if layers else ())

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        layers: bool = False,
        attentions: bool = False,
        positions: Tensor | None = None,
        is_target: Tensor | None = None,
        roles: Tensor | None = None,
        turns: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> Encoded:
        """Embed texts as `text` [B, T, H].

        Args:
            input_ids, attention_mask: [B, T]; the mask has 1 = token, 0 = padding.
            layers: also return the embeddings as the states of a tower.
            attentions: there are none before fusion.
            positions: rows [B, T] of the position table; None counts tokens.
            is_target: [B, T] 1 = to be generated: in `fuse` only later tokens of the target read it.
            roles, turns: [B, T] of a dialogue, for models that have such embeddings; None means 0.
            delta: [B, T, H] perturbation, added before the norm (adversarial training).
        """
        embeddings = self.transformer.embeddings
        positions = token_positions(attention_mask, embeddings.padding_id) if positions is None else positions
        extra = delta
        for table, ids in ((self.roles, roles), (self.turns, turns)):
            if table is not None:
                rows = table(paddle.zeros_like(input_ids) if ids is None else ids)
                extra = rows if extra is None else extra + rows
        states = embeddings.at(input_ids, positions, extra)
        links = {} if is_target is None else {TARGET: is_target}
        return Encoded(
            text=states, text_mask=attention_mask, text_layers=(states,) if layers else (), links=links
        )

    def add_tags(self, image: Encoded, ids: Tensor, mask: Tensor, positions: Tensor) -> Encoded:
        tags = self.encode_text(ids, mask, positions=positions)
        return replace(image, text=tags.text, text_mask=mask)

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
            outputs: what is read afterwards. With `pooled` the last layer computes only [IMG] and [CLS]; the
                numbers are the same.

        Returns:
            `fused_image` [B, 1 + R, H], `fused_text` [B, T, H], and `pooled` [B, H]: for a pair the product
            or sum of pooled image and pooled text, otherwise the one of the two that exists.
        """
        text, image = text or Encoded(), image or Encoded()
        if outputs == "pooled" and not attentions:
            return Encoded(pooled=self._pool(*self._firsts(text, image)))
        states, mask = self._sequence(text, image)
        layers, maps = run_blocks(self.transformer.layers, states, mask, attentions, "fusion")
        rows = 0 if image.image is None else image.image.shape[1]
        fused_image = None if image.image is None else layers[-1][:, :rows]
        fused_text = None if text.text is None else layers[-1][:, rows:]
        return Encoded(
            fused_image=fused_image,
            fused_text=fused_text,
            image_mask=image.image_mask,
            text_mask=text.text_mask,
            attentions=maps,
            pooled=None if outputs == "text" else self._pool(fused_text, fused_image),
        )

    @staticmethod
    def _sequence(text: Encoded, image: Encoded) -> tuple[Tensor, Tensor]:
        """Join image and text, of those there are: states [B, S, H], and the mask that is added to logits."""
        states, real = zip(*_present(text, image), strict=True)
        target = text.links.get(TARGET)
        if target is not None and image.image is not None:
            target = paddle.concat([paddle.zeros_like(image.image_mask), target.astype("float32")], axis=1)
        return paddle.concat(states, axis=1), visibility(paddle.concat(real, axis=1), target)

    def _firsts(self, text: Encoded, image: Encoded) -> tuple[Tensor | None, Tensor | None]:
        """Compute the last states [B, 1, H] of [CLS] and [IMG] alone.

        Both are put in front, so that the last layer updates the first rows. The order of rows that read each
        other changes nothing: positions are in the embeddings.
        """
        parts = _present(text, image)
        states, real = (
            paddle.concat([part[:, :1] for part in kind] + [part[:, 1:] for part in kind], axis=1)
            for kind in zip(*parts, strict=True)
        )
        mask = visibility(real, None)
        layers, _ = run_blocks(self.transformer.layers, states, mask, num_queries=len(parts))
        first, last = layers[-1][:, :1], layers[-1][:, len(parts) - 1 :]
        return None if text.text is None else last, None if image.image is None else first

    def _pool(self, text: Tensor | None, image: Tensor | None) -> Tensor:
        """Pool states [B, S, H] that begin with [CLS] and [IMG] into one vector [B, H]."""
        if text is None:
            return self.image_pooler(image)
        if image is None:
            return self.text_pooler(text)
        words, seen = self.text_pooler(text), self.image_pooler(image)
        return words * seen if self.config.pair_feature == "product" else words + seen

    def text_vector(self, text: Encoded) -> Tensor:
        """Return pooled h_[CLS] [B, H] of texts that are encoded alone."""
        return self.fuse(text, None, outputs="pooled").pooled

    def image_vector(self, image: Encoded) -> Tensor:
        """Return pooled h_[IMG] [B, H] of images that are encoded alone."""
        return self.fuse(None, image, outputs="pooled").pooled

    def score(self, pooled: Tensor) -> Tensor:
        """Compute d(V, W) [N] from the pooled products [N, H] of N pairs, by the release's matching head."""
        return self.match_head(pooled).squeeze(1)

    def match(self, pooled: Tensor) -> Tensor:
        """Compute `score` after dropout, as the release fine-tunes it.

        CMCL calls `score` without dropout: only pairs that are encoded together could have it, and it would
        set them apart from images and texts that are encoded alone.
        """
        return self.score(dropout(pooled, self.config.text.attention_dropout, self.training))

    def match_all(self, image_vectors: Tensor, text_vectors: Tensor) -> Tensor:
        """Compute d [A, B] of every image [A, H] with every text [B, H], given as vectors of `*_vector`.

        The numbers are those of `score` of all products: w^T (v * t) + b = (w * v)^T t + b, where the right
        side is one matrix product for all pairs.
        """
        weighted = image_vectors * self.match_head.weight[:, 0]
        return paddle.matmul(weighted, text_vectors, transpose_y=True) + self.match_head.bias

    def decode(
        self, source: Encoded, input_ids: Tensor, attention_mask: Tensor, *, delta: Tensor | None = None
    ) -> Tensor:
        """Compute the states [B, T, H] from which the next tokens are predicted (teacher forcing).

        Args:
            source: an image, a text, or both (their parts in one `Encoded`), which read no target.
            input_ids, attention_mask: the targets [B, T]; their positions begin anew.
            delta: perturbation of the targets, as for `encode_text`.
        """
        is_target = paddle.ones_like(input_ids)
        target = self.encode_text(input_ids, attention_mask, is_target=is_target, delta=delta)
        if source.text is not None:
            mask = source.text_mask.astype("int64")
            target = Encoded(
                text=paddle.concat([source.text, target.text], axis=1),
                text_mask=paddle.concat([mask, attention_mask.astype("int64")], axis=1),
                links={TARGET: paddle.concat([paddle.zeros_like(mask), is_target], axis=1)},
            )
        states = self.fuse(target, source, outputs="text").fused_text
        return states[:, -input_ids.shape[1] :]

    def start_decoding(self, source: Encoded) -> DecodingState:
        """Return the state of a decoding before its first token; `step` gives the numbers of `decode`."""
        states, mask = self._sequence(source, source)
        prefix = read_prefix(self.transformer.layers, states, mask)
        masks = (mask,) * len(prefix)
        return DecodingState((None,) * len(prefix), prefix, np.arange(states.shape[0]), masks)

    def step(self, state: DecodingState, ids: Tensor) -> tuple[Tensor, DecodingState]:
        """Append one token [B] to each text, see `Model.step`.

        Raises:
            ConfigError: the text is longer than the position table.
        """
        position = next_position(self.transformer.embeddings, state)
        token = self.encode_text(ids.unsqueeze(1), paddle.ones([1, 1]), positions=position)
        return advance(self.transformer.layers, state, token.text)

    def is_used(self, parameter: str, *, text: bool, image: bool, pooled: bool = True) -> bool:
        part = parameter.partition(".")[0]
        if part == "match_head":
            return False
        if part in ("text_pooler", "image_pooler"):
            return pooled and (text if part == "text_pooler" else image)
        if part in ("roles", "turns") or parameter.startswith("transformer.embeddings"):
            return text
        return image if part == "regions" else True

    def lr_group(self, parameter: str) -> str:
        """Return `towers` for the Transformer, else `cross_modal`."""
        return "towers" if parameter.startswith("transformer.") else "cross_modal"

    def depth(self, parameter: str) -> int | None:
        part, *rest = parameter.split(".")
        if part == "transformer" and rest[0] == "layers":
            return 1 + int(rest[1])
        return 0 if part in ("transformer", "regions") else None


def _present(text: Encoded, image: Encoded) -> list[tuple[Tensor, Tensor]]:
    """Return states [B, S, H] and mask [B, S] of image and text, of those there are, in this order."""
    parts = [] if image.image is None else [(image.image, image.image_mask)]
    return parts if text.text is None else [*parts, (text.text, text.text_mask.astype("float32"))]
