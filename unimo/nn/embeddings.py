"""Inputs of the towers: embeddings of tokens, of patches, and of regions as a detector finds them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.nn.initializer import Normal

from unimo.errors import ConfigError
from unimo.nn.config import TextConfig
from unimo.nn.init import constant_attr, embedding, linear, normal_attr
from unimo.nn.kernels import LayerNorm, add_bias, dropout
from unimo.nn.position import token_positions
from unimo.nn.shapes import length


class TextEmbeddings(nn.Layer):
    """Word, position and token-type embeddings of RoBERTa: sum, LayerNorm, dropout (Eq. 3).

    Args:
        config: sizes, dropout and initial scale.
        token_type: keep RoBERTa's one token type, a constant that is added to every token.
    """

    def __init__(self, config: TextConfig, token_type: bool) -> None:
        super().__init__()
        width, std = config.hidden_size, config.init_std
        self.padding_id = config.padding_id
        self.dropout = config.dropout
        self.word = embedding(config.vocab_size, width, std)
        self.position = embedding(config.max_position, width, std)
        self.token_type = embedding(1, width, std) if token_type else None
        self.norm = LayerNorm(width, 1e-5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed ids [B, T] with mask [B, T] (1 = token) as states [B, T, W]."""
        return self.at(input_ids, token_positions(attention_mask, self.padding_id))

    def at(self, input_ids: Tensor, positions: Tensor, extra: Tensor | None = None) -> Tensor:
        """Embed ids [B, T] as states [B, T, W].

        Args:
            positions: rows [B, T] or [1, 1] of the position table.
            extra: [B, T, W], added before the norm.
        """
        states = self.word(input_ids) + self.position(positions)
        if extra is not None:
            states = states + extra
        if self.token_type is not None:
            states = add_bias(states, self.token_type.weight[0])
        return dropout(self.norm(states), self.dropout, self.training)


def cut_patches(pixels: Tensor, size: int) -> Tensor:
    """Cut images [B, 3, h * P, w * P] into patches [B, h * w, 3 * P * P], row by row; `size` is P."""
    height, width = (side // size for side in pixels.shape[2:])
    patches = pixels.reshape([0, 3, height, size, width, size]).transpose([0, 2, 4, 1, 3, 5])
    return patches.reshape([0, height * width, 3 * size * size])


class PatchEmbedding(nn.Layer):
    """Projection of square patches, as one matrix product (Eq. 1's W^p).

    `weight` has the convolution layout [W, 3, P, P] that all released ViT files use.

    Args:
        bias: add a vector [W] (ViT; CLIP has none).
        padding: zero padding of the convolution in pixels, less than half a patch. The number of patches
            stays, but they begin outside the image, whose last rows and columns are then not read.
    """

    def __init__(self, patch_size: int, width: int, std: float, bias: bool = False, padding: int = 0) -> None:
        super().__init__()
        self.patch_size, self.padding = patch_size, padding
        shape = [width, 3, patch_size, patch_size]
        self.weight = self.create_parameter(shape, attr=normal_attr(std))
        self.bias = self.create_parameter([width], attr=constant_attr(0.0)) if bias else None

    def forward(self, pixels: Tensor) -> Tensor:
        """Project pixels [B, 3, h * P, w * P] to patch states [B, h * w, W], row by row of the image."""
        size, padding = self.patch_size, self.padding
        if padding:
            kept = pixels[:, :, : pixels.shape[2] - padding, : pixels.shape[3] - padding]
            pixels = F.pad(kept, [padding, 0, padding, 0])
        patches = cut_patches(pixels, size)
        states = paddle.matmul(patches, self.weight.reshape([self.weight.shape[0], -1]), transpose_y=True)
        return states if self.bias is None else add_bias(states, self.bias)


WHOLE = (0.0, 0.0, 1.0, 1.0, 1.0)
"""Location of [IMG], the whole image: left, top, right, bottom and area as shares of the image's."""


def shown_features(regions: Mapping[str, Tensor], feature_size: int) -> tuple[Tensor, Tensor]:
    """Return the features [B, R, F] of regions as a model sees them, zeros for masked ones, and which regions
    it sees [B, R], 1 = shown.

    Args:
        regions: `features`, `mask` and, for masked region modelling, `masked`.
        feature_size: F of the model.

    Raises:
        ConfigError: features of another width.
    """
    features, shown = regions["features"], regions["mask"].astype("float32")
    if features.shape[2] != feature_size:
        raise ConfigError(
            f"region features have {features.shape[2]} numbers, the model reads {feature_size}; "
            "name the source that it was trained on with data.regions"
        )
    if "masked" in regions:
        shown = shown * (1.0 - regions["masked"].astype("float32"))
        features = features * shown.unsqueeze(2)
    return features, shown


class RegionEmbeddings(nn.Layer):
    """[IMG] v_1 .. v_t (UNIMO, section 2): feature and location of each region, projected, added, normalised.

    [IMG] is not learned: as in UNIMO's release it is the mean feature of all regions that are shown, at the
    location of the whole image. A masked region is shown as zeros (section 2.2) and takes no part in that
    mean, which would give it away. Both projections start at the scale `std`.
    """

    def __init__(self, feature_size: int, width: int, std: float, dropout: float) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.feature = linear(feature_size, width, std)
        self.location = linear(5, width, std)
        self.norm = LayerNorm(width, 1e-5)
        self.dropout = dropout

    def forward(self, regions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embed the regions of B images.

        Args:
            regions: `features` [B, R, F]; `locations` [B, R, 5]; `mask` [B, R], 1 = region, 0 = padding. For
                masked region modelling also `masked` [B, R], 1 = hidden; for adversarial training `delta`
                [B, 1 + R, F], added to the features, that of [IMG] first.

        Returns:
            States [B, 1 + R, W], [IMG] first, and their mask [B, 1 + R].

        Raises:
            ConfigError: features of another width than F.
        """
        mask = regions["mask"].astype("float32")
        features, shown = shown_features(regions, self.feature_size)
        whole = (features * shown.unsqueeze(2)).sum(1) / paddle.clip(shown.sum(1, keepdim=True), min=1.0)
        features = paddle.concat([whole.unsqueeze(1), features], axis=1)
        if "delta" in regions:
            features = features + regions["delta"]
        place = paddle.to_tensor(WHOLE).expand([length(features, 0), 1, 5])
        locations = paddle.concat([place, regions["locations"]], axis=1)
        states = self.norm(self.feature(features) + self.location(locations))
        there = paddle.concat([paddle.ones_like(mask[:, :1]), mask], axis=1)
        return dropout(states, self.dropout, self.training), there


class BertEmbeddings(nn.Layer):
    """Word, position and token-type embeddings of BERT: sum, LayerNorm, dropout.

    All tokens are of the first type; `of_type` completes rows of something else.

    Args:
        positions: add positions. Without them the table is there, because released files have it, and is
            frozen, because data parallelism waits for a gradient of whatever learns.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int,
        max_position: int,
        *,
        positions: bool = True,
        dropout: float = 0.1,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.word = embedding(vocab_size, width, std)
        self.position = embedding(max_position, width, std)
        self.token_type = embedding(2, width, std)
        self.norm = LayerNorm(width, 1e-12)
        self.dropout, self.has_positions = dropout, positions
        self.position.weight.stop_gradient = not positions

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed ids [B, T] as states [B, T, W].

        Raises:
            ConfigError: texts are longer than the position table.
        """
        length, longest = input_ids.shape[1], self.position.weight.shape[0]
        if length > longest:
            raise ConfigError(
                f"texts of {length} tokens are longer than the {longest} positions of the model; set "
                f"data.max_text_len={longest}, or text.max_position of the model to {length}"
            )
        states = self.word(input_ids)
        if self.has_positions:
            states = states + self.position.weight[:length]
        return self.of_type(states, 0)

    def of_type(self, states: Tensor, row: int) -> Tensor:
        """Complete rows [B, S, W], of which only the token type, norm and dropout are missing.

        Args:
            states: what stands for the sum of word and position embeddings.
            row: token type, 0 or 1.
        """
        states = add_bias(states, self.token_type.weight[row])
        return dropout(self.norm(states), self.dropout, self.training)


class _NormalWithCopies(Normal):
    """Normal distribution of rows 0 and 1; the others are copies of row 1."""

    def forward(self, var: Tensor, block: object = None) -> Tensor:
        super().forward(var, block)
        var.set_value(paddle.concat([var[:1], var[1:2].expand([var.shape[0] - 1, var.shape[1]])]))
        return var


class TypeEmbedding(nn.Embedding):
    """Table of types: row 0 of texts, row 1 of images, and for pairs of images row 2 of the second one.

    Row 2 starts as a copy of row 1, at random and from weights without it.
    """

    def __init__(self, image_types: int, width: int, std: float = 0.02) -> None:
        start = Normal(0.0, std) if image_types == 1 else _NormalWithCopies(0.0, std)
        super().__init__(1 + image_types, width, weight_attr=paddle.ParamAttr(initializer=start))

    def fit_table(self, name: str, table: np.ndarray) -> np.ndarray:
        """Add copies of row 1 to a stored table of texts and single images; others stay as they are."""
        missing = self.weight.shape[0] - len(table)
        if table.ndim != 2 or len(table) != 2 or missing <= 0:
            return table
        return np.concatenate([table, np.repeat(table[1:], missing, axis=0)])
