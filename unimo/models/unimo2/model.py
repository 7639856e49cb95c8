"""UNIMO-2: two encoders, the grounded dictionary, and the Grounded Transformer over all three (Fig. 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from unimo.models.base import Axes, Outputs, Part, TowerSource
from unimo.models.two_towers import TwoTowers
from unimo.models.unimo2.config import Config
from unimo.models.unimo2.grounded_attention import (
    GroundedTransformer,
    Layout,
    caption_views,
    let_padding_read,
    tag_mask,
    understanding_views,
)
from unimo.models.unimo2.grounding import GroundedDictionary, Grounding
from unimo.nn.attention import additive_mask, causal_mask, outer_mask
from unimo.nn.block import run_blocks
from unimo.nn.decoding import DecodingState, advance, next_position, read_prefix
from unimo.nn.heads import Pooler
from unimo.nn.init import linear
from unimo.nn.kernels import dropout
from unimo.nn.outputs import Encoded
from unimo.nn.shapes import length
from unimo.nn.towers import RobertaTower, VitTower


class Unimo2(TwoTowers):
    """Two encoders, a grounded dictionary and a fusion encoder for pairs, images alone and texts alone.

    Parameters: `text.*`, `vision.*`, `grounding.{dictionary, temperature}`, `fusion.*`, `text_pooler`,
    `image_pooler`, and with `grounding.project` also `text_projection`, `image_projection`.
    """

    head_epsilon: ClassVar[float] = 1e-5

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        text, vision, fusion, width = config.text, config.vision, config.fusion, config.hidden_size
        counts_padding = not config.grounding.mask_padding
        self.text = RobertaTower(text, pooler=False, token_type=False, outer=counts_padding)
        self.vision = VitTower(vision)
        self.grounding = GroundedDictionary(width, config.grounding) if config.grounding.is_active else None
        projects = config.grounding.is_active and config.grounding.project
        self.text_projection = linear(width, width, fusion.init_std) if projects else None
        self.image_projection = linear(width, width, fusion.init_std) if projects else None
        self.fusion = GroundedTransformer(config)
        self.text_pooler, self.image_pooler = (
            None if fusion.pooler == "none" else Pooler(width, fusion.init_std, fusion.pooler)
            for _ in range(2)
        )

    def parts_to_load(self) -> tuple[TowerSource, ...]:
        """Return both encoders, and the Grounded Transformer, whose layers can be those of RoBERTa."""
        ignore = ("embeddings.", "grounded_norm.")
        return *super().parts_to_load(), TowerSource(self.fusion, self.config.fusion.init, ignore=ignore)

    @property
    def pooled_size(self) -> int:
        """Width of a pair's `pooled`: 2 H for `concat`, else H. A single text or image has H always."""
        return 2 * self.hidden_size if self.config.fusion.itm_feature == "concat" else self.hidden_size

    @property
    def attention_axes(self) -> dict[str, Axes]:
        """The views of `understanding_views`, as `let_padding_read` changes them."""
        every: tuple[Part, ...] = ("image", "grounded", "text")
        return super().attention_axes | {
            "fusion.joint": Axes(every, every),
            "fusion.image": Axes(("image",), ("image", "grounded")),
            "fusion.grounded": Axes(("grounded",), every),
            "fusion.text": Axes(("text",), every[1:] if self.config.grounding.mask_padding else every),
        }

    def ground(self, text: Encoded | None, image: Encoded | None) -> Grounding | None:
        """Choose the grounded tokens of pairs, texts or images (section 3.1).

        Class tokens take part with `grounding.class_tokens` only, padding where `grounding.mask_padding` is
        false.

        Args:
            text, image: results of `encode_text` and `encode_image`; None for a modality that is absent.

        Returns:
            The input of `fuse` and of `self.grounding.loss`, Eq. (3); None without a dictionary.
        """
        if self.grounding is None:
            return None
        parts, first = [], 0 if self.config.grounding.class_tokens else 1
        if image is not None:
            patches = image.image[:, first:]
            shown = paddle.ones([length(patches, 0), patches.shape[1]])
            parts.append((_project(patches, self.image_projection), shown))
        if text is not None:
            words = _project(text.text[:, first:], self.text_projection)
            parts.append((words, text.text_mask[:, first:].astype("float32")))
        features, mask = (paddle.concat(kind, axis=1) for kind in zip(*parts, strict=True))
        masked = text is not None and self.config.grounding.mask_padding
        return self.grounding(features, mask if masked else None)

    def count_positions(self, images: int, text_mask: np.ndarray | None) -> int:
        """Count the positions that `ground` compares of so many images and of texts with a mask [B, T]."""
        first = 0 if self.config.grounding.class_tokens else 1
        positions = images * (self.config.vision.num_patches + 1 - first)
        if text_mask is None:
            return positions
        words = text_mask[:, first:]
        return positions + (int(words.sum()) if self.config.grounding.mask_padding else words.size)

    def fuse(
        self,
        text: Encoded | None,
        image: Encoded | None,
        *,
        grounding: Grounding | None = None,
        attentions: bool = False,
        outputs: Outputs = "all",
    ) -> Encoded:
        """Fuse pairs, texts (no image) or images (no text) by the Grounded Transformer.

        Args:
            text, image: results of `encode_text` and `encode_image`; None for a modality that is absent.
            grounding: result of `ground` for the same rows; None chooses the tokens here, unless
                `grounding.enabled_at_inference` is false.
            attentions: also return the attentions of the fusion layers, `fusion.{view}.{layer}`.
            outputs: what is read afterwards: `all`; `text`: only `fused_text`; `pooled`: only `pooled`. The
                last layer computes no more than that; the numbers are the same.

        Returns:
            `fused_text` [B, T, H], `fused_image` [B, V, H], `grounded` [B, K, H], `grounded_ids` [B, K], and
            `pooled` [B, pooled_size], which for a text or an image alone is its part [B, H].
        """
        grounding = self._choose(text, image) if grounding is None else grounding
        text, image = text or Encoded(), image or Encoded()
        layout, states = self._join(text, image, grounding, self.config.grounding.positions)
        views = understanding_views(layout, self.config.fusion.visibility, length(states, 0))
        if not self.config.grounding.mask_padding:
            views = let_padding_read(views, layout)
        rows, firsts = layout.rows, layout.firsts()
        # Attentions are those of all rows, so then all rows are computed.
        wanted = {"all": None, "text": [rows["text"]], "pooled": firsts}[outputs]
        states, maps = self.fusion(states, views, None if attentions else wanted, attentions)
        if attentions and wanted is not None:
            states = paddle.concat([states[:, part] for part in wanted], axis=1)
        ids = None if grounding is None else grounding.ids
        if outputs == "text":
            return Encoded(fused_text=states, grounded_ids=ids, attentions=maps)
        if outputs == "pooled":
            return Encoded(pooled=self._pool(states, text, image), grounded_ids=ids, attentions=maps)
        first = paddle.concat([states[:, where] for where in firsts], axis=1)
        return Encoded(
            fused_text=None if text.text is None else states[:, rows["text"]],
            fused_image=None if image.image is None else states[:, rows["image"]],
            text_mask=text.text_mask,
            grounded=None if grounding is None else states[:, rows["grounded"]],
            grounded_ids=ids,
            pooled=self._pool(first, text, image),
            attentions=maps,
        )

    def _choose(self, text: Encoded | None, image: Encoded | None) -> Grounding | None:
        """Choose the grounded tokens outside pre-training, unless the model is to have none there."""
        return self.ground(text, image) if self.config.grounding.enabled_at_inference else None

    def _join(
        self, text: Encoded, image: Encoded, grounding: Grounding | None, positions: bool = False
    ) -> tuple[Layout, Tensor]:
        """Return the sequence [image; grounded; text] of those there are, and where in it they are.

        With `positions` the grounded tokens get those of a text.
        Choosing has no gradient; where no grounding loss is computed, data parallelism would wait for the
        gradients of temperature and projections, so these come in with a factor of 0.
        """
        tokens = ids = mask = None
        if grounding is not None:
            choosers = [] if self.grounding.temperature is None else [self.grounding.temperature]
            for projection in (self.text_projection, self.image_projection):
                choosers += [] if projection is None else projection.parameters()
            tokens = grounding.tokens + 0.0 * sum(parameter.sum() for parameter in choosers)
            ids, mask = grounding.ids, grounding.token_mask
            if positions:
                first = self.text.embeddings.padding_id + 1
                tokens = tokens + self.text.embeddings.position.weight[first : first + ids.shape[1]]
        layout = Layout(
            *(0 if rows is None else rows.shape[1] for rows in (image.image, ids, text.text)),
            grounded_mask=mask,
            text_mask=text.text_mask,
        )
        return layout, self.fusion.join(image.image, tokens, text.text)

    def _pool(self, firsts: Tensor, text: Encoded, image: Encoded) -> Tensor:
        """Pool first states [B, 1 or 2, H], image before text, into one vector for each row."""
        parts = []
        for modality, pooler, first in (
            (text.text, self.text_pooler, firsts[:, -1:]),
            (image.image, self.image_pooler, firsts[:, :1]),
        ):
            if modality is not None:
                parts.append(first[:, 0] if pooler is None else pooler(first))
        if len(parts) == 1:
            return parts[0]
        feature = self.config.fusion.itm_feature
        if feature == "concat":
            pair = paddle.concat(parts, axis=-1)
        else:
            pair = parts[0] * parts[1] if feature == "product" else parts[0] + parts[1]
        return dropout(pair, self.config.fusion.itm_dropout, self.training)

    def contrastive_scores(self, text: Encoded, image: Encoded) -> Tensor | None:
        """Compute the release's contrastive scores [N], times their weight; None with a weight of 0.

        The class token of the text encoder is taken as it is, that of the ViT has unit length: the release
        normalises texts in their projection only, which all of its scripts leave out.
        """
        weight = self.config.fusion.contrastive_weight
        if not weight:
            return None
        seen = F.normalize(self.image_vector(image).astype("float32"), axis=-1)
        return weight * (self.text_vector(text).astype("float32") * seen).sum(axis=-1)

    @property
    def _caption_sees_image(self) -> bool:
        fusion = self.config.fusion
        return fusion.caption_sees_image or fusion.visibility == "full"

    def add_tags(self, image: Encoded, ids: Tensor, mask: Tensor, positions: Tensor) -> Encoded:
        """Add object tags [B, O] to an image, see `Model.add_tags`: `text_layers` has their embeddings."""
        return replace(image, text_layers=(self.text.embeddings.at(ids, positions),), text_mask=mask)

    def decode(self, source: Encoded, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute the states [B, T, H] from which the next tokens are predicted (teacher forcing).

        Grounded tokens come from the image alone; they and the image read no text. A text row reads
        grounded tokens, the text up to itself and, with `fusion.caption_sees_image`, the image. Object tags
        in the source are read by all of the text; they read what it does, and no caption.
        """
        tags = 0
        if source.text_layers:
            tags = source.text_mask.shape[1]
            text = self._encode_behind_tags(source, input_ids, attention_mask)
        else:
            text = self.encode_text(input_ids, attention_mask, causal=True)
        layout, states = self._join(text, source, self._choose(None, source))
        views = caption_views(layout, self._caption_sees_image, length(states, 0), tags)
        rows = layout.rows["text"]
        return self.fusion(states, views, [slice(rows.start + tags, rows.stop)])[0]

    def _encode_behind_tags(self, source: Encoded, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """Encode [tags; caption] [B, O + T]; the positions of the caption begin anew."""
        caption = self.text.embeddings(input_ids, attention_mask)
        embedded = paddle.concat([source.text_layers[0], caption], axis=1)
        masks = (mask.astype("int64") for mask in (source.text_mask, attention_mask))
        real = paddle.concat(list(masks), axis=1)
        visible = additive_mask(real) + causal_mask(real.shape[1], source.text_mask.shape[1])
        return Encoded(text=run_blocks(self.text.layers, embedded, visible)[0][-1], text_mask=real)

    def start_decoding(self, source: Encoded) -> DecodingState:
        """Return the state of a decoding of B images, with or without tags, before its first token.

        `step` gives the numbers of `decode`. Image, grounded rows and tags read no caption, so they pass
        both encoders once. With `grounding.mask_padding=false` every token reads the padding of tags, as in
        the release, where `decode` does not.
        """
        grounding, depth = self._choose(None, source), len(self.text.layers)
        sees = self._caption_sees_image
        kept = 0 if sees else source.image.shape[1]
        if not source.text_layers:
            _, states = self._join(Encoded(), source, grounding)
            prefix = (None,) * depth + read_prefix(self.fusion.layers, states, kept=kept)
            return DecodingState((None,) * len(prefix), prefix, np.arange(states.shape[0]))
        counts_padding = not self.config.grounding.mask_padding
        keys = additive_mask(source.text_mask)
        mask = outer_mask(source.text_mask) if counts_padding else keys
        tags, _ = run_blocks(self.text.layers, source.text_layers[0], mask)
        pairs = zip(self.text.layers, tags, strict=False)  # all states but the last are the input of a layer
        prefix = tuple(tuple(layer.attention.project(states, True)[1:]) for layer, states in pairs)
        layout, states = self._join(Encoded(text=tags[-1], text_mask=source.text_mask), source, grounding)
        prefix += read_prefix(self.fusion.layers, states, tag_mask(layout, sees, counts_padding), kept)
        read = None if counts_padding else layout.key_mask(slice(kept, states.shape[1]), length(states, 0))
        masks = (keys,) * depth + (read,) * len(self.fusion.layers)
        return DecodingState((None,) * len(prefix), prefix, np.arange(states.shape[0]), masks)

    def step(self, state: DecodingState, ids: Tensor) -> tuple[Tensor, DecodingState]:
        """Append one token [B] to each text, see `Model.step`.

        Raises:
            ConfigError: the text is longer than the position table.
        """
        embeddings = self.text.embeddings
        states = embeddings.at(ids.unsqueeze(1), next_position(embeddings, state))
        return advance([*self.text.layers, *self.fusion.layers], state, states)

    def is_used(self, parameter: str, *, text: bool, image: bool, pooled: bool = True) -> bool:
        part, grounding = parameter.partition(".")[0], self.config.grounding
        if part.endswith("_pooler") and not pooled:
            return False
        if part == "grounding":
            return grounding.enabled_at_inference
        if parameter == "text.embeddings.position.weight" and grounding.positions:
            return text or (grounding.is_active and grounding.enabled_at_inference)
        if part.startswith("text"):
            return text
        return image if part in ("vision", "image_pooler", "image_projection") else True


def _project(states: Tensor, projection: nn.Linear | None) -> Tensor:
    return states if projection is None else F.normalize(F.relu(projection(states)), axis=-1)
