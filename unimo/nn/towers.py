"""Towers: RoBERTa's for texts (Liu et al., 2019), the plain ViT (Dosovitskiy et al., 2021) and that of CLIP
(Radford et al., 2021) for images.

RoBERTa is post-norm, the vision towers are pre-norm; equation numbers are those of the UNIMO-3 paper, which
writes them out.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import paddle
from paddle import Tensor, nn

from unimo.nn.attention import additive_mask, causal_mask, outer_mask
from unimo.nn.block import Block, Mlp, run_blocks
from unimo.nn.config import ClipVisionConfig, TextConfig, VisionConfig, VitConfig
from unimo.nn.embeddings import PatchEmbedding, TextEmbeddings
from unimo.nn.init import linear, normal_attr
from unimo.nn.kernels import LayerNorm, dropout
from unimo.nn.position import interpolate_positions, resize_positions, table_grid
from unimo.nn.shapes import length


class RobertaTower(nn.Layer):
    """RoBERTa without its language-model head, with random weights (Eqs 3 and 4).

    Names: `embeddings.{word, position, token_type}.weight`, `embeddings.norm`, `layers.{i}.{attention.qkv,
    attention.out, attention_norm, mlp.fc1, mlp.fc2, mlp_norm}`, `pooler`.

    Args:
        pooler: keep RoBERTa's own pooler, which METER and BridgeTower carry but never use. It is
            frozen (`stop_gradient`), because data parallelism waits for gradients that never come.
        token_type: keep the one token-type row; `load_tower` adds it to the positions otherwise.
        outer: rows of padding read as in UNIMO's releases (`outer_mask`), not only tokens. It matters where
            something reads the states of padding, and not in causal passes, in which nothing can.
    """

    tower_kind: ClassVar[str] = "roberta"
    """Kind of tower folder that `unimo.weights.layers.load_tower` reads into it."""

    def __init__(
        self, config: TextConfig, *, pooler: bool = True, token_type: bool = True, outer: bool = False
    ) -> None:
        super().__init__()
        self.outer = outer
        width, std = config.hidden_size, config.init_std
        self.embeddings = TextEmbeddings(config, token_type)
        self.layers = nn.LayerList(
            Block(
                width,
                config.num_heads,
                partial(Mlp, width, config.intermediate_size, "gelu", std),
                norm_first=False,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                std=std,
            )
            for _ in range(config.num_layers)
        )
        self.pooler = linear(width, width, std) if pooler else None
        for parameter in self.pooler.parameters() if pooler else ():
            parameter.stop_gradient = True

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        need_weights: bool = False,
        causal: bool = False,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Run the tower.

        Args:
            input_ids, attention_mask: [B, T]; the mask has 1 = token, 0 = padding.
            need_weights: also return the attentions.
            causal: no token reads a later one.

        Returns:
            All states T_0 .. T_L (Eq. 4), L + 1 tensors [B, T, W]; on request attentions [B, H, T, T] by
            `text.{layer}`.
        """
        mask = outer_mask(attention_mask) if self.outer and not causal else additive_mask(attention_mask)
        if causal:
            mask = mask + causal_mask(input_ids.shape[1])
        return run_blocks(self.layers, self.embeddings(input_ids, attention_mask), mask, need_weights, "text")


class VisionTower(nn.Layer):
    """Patches, class token, positions, blocks, and `ln_post`, the norm for whoever reads a layer.

    Names: `class_embedding` [W], `position_embedding` [1 + g * g, W], `patch_embedding.weight`
    [W, 3, P, P], `layers.{i}.{attention.qkv, attention.out, attention_norm, mlp.fc1, mlp.fc2,
    mlp_norm}`, `ln_post`. `attention_norm` is the norm before attention, `mlp_norm` before the MLP.

    Args:
        std: initial scale of the class token, and of positions where the config has none.
    """

    tower_kind: ClassVar[str]
    """Kind of tower folder that `unimo.weights.layers.load_tower` reads into it."""

    def __init__(self, config: VisionConfig, std: float) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        width, self.grid = config.hidden_size, config.image_size // config.patch_size
        position_std = std if config.position_init_std is None else config.position_init_std
        self.class_embedding = self.create_parameter([width], attr=normal_attr(std))
        self.position_embedding = self.create_parameter(
            [1 + self.grid**2, width], attr=normal_attr(position_std)
        )

    def fit_table(self, name: str, table: np.ndarray) -> np.ndarray:
        """Resize a stored position table of another image size to the grid of this tower.

        `unimo.weights.layers.load_into` asks for it; anything else is returned as it is.
        """
        is_grid = name == "position_embedding" and table.ndim == 2 and table_grid(len(table)) is not None
        return resize_positions(table, self.grid) if is_grid else table

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed pixels [B, 3, h * P, w * P] as [B, 1 + h * w, W], class token first (Eq. 1).

        The position table is resized for images of another size or no square.
        """
        patches = self.patch_embedding(pixels)
        token = self.class_embedding.expand([length(patches, 0), 1, patches.shape[2]])
        positions, sides = self.position_embedding, [side // self.patch_size for side in pixels.shape[2:]]
        if sides != [self.grid, self.grid]:
            positions = interpolate_positions(positions, self.grid, *sides)
        return paddle.concat([token, patches], axis=1) + positions

    def forward(
        self, pixels: Tensor, need_weights: bool = False, last: int | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Run the tower, or its layers up to `last`.

        Returns:
            All states V_0 .. V_L (Eq. 2), L + 1 tensors [B, 1 + h * w, W], raw, that is before `ln_post`; on
            request attentions [B, H, 1 + h * w, 1 + h * w] by `image.{layer}`.
        """
        return run_blocks(self.layers[:last], self.embed(pixels), None, need_weights, "image")


class ClipVisionTower(VisionTower):
    """CLIP-ViT: QuickGELU, no patch bias, and a norm `ln_pre` before the first block.

    Initial scales are those of the whole CLIP, also when its last blocks are not built (METER).
    """

    tower_kind = "clip_vit"

    def __init__(self, config: ClipVisionConfig) -> None:
        width, patch_size = config.hidden_size, config.patch_size
        std = width**-0.5
        super().__init__(config, std)
        out_std = std * (2 * config.num_layers) ** -0.5
        self.patch_embedding = PatchEmbedding(patch_size, width, (3 * patch_size**2) ** -0.5)
        self.ln_pre = LayerNorm(width, 1e-5)
        mlp = partial(Mlp, width, config.intermediate_size, "quick_gelu", (2 * width) ** -0.5, out_std)
        self.layers = nn.LayerList(
            Block(
                width,
                config.num_heads,
                mlp,
                norm_first=True,
                dropout=config.dropout,
                std=std,
                out_std=out_std,
            )
            for _ in range(config.used_layers)
        )
        self.ln_post = LayerNorm(width, 1e-5)

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed pixels as V_0 [B, 1 + h * w, W], class token first (Eq. 1, then `ln_pre`)."""
        return self.ln_pre(super().embed(pixels))


class VitTower(VisionTower):
    """ViT: exact GELU, norms with epsilon 1e-12, and a bias of the patch projection.

    Patches start at a scale that keeps the variance of pixels.
    """

    tower_kind = "vit"

    def __init__(self, config: VitConfig) -> None:
        width, patch_size, std = config.hidden_size, config.patch_size, config.init_std
        super().__init__(config, std)
        self.dropout = config.dropout
        scale = (3 * patch_size**2) ** -0.5
        self.patch_embedding = PatchEmbedding(
            patch_size, width, scale, bias=True, padding=config.patch_padding
        )
        mlp = partial(Mlp, width, config.intermediate_size, "gelu", std)
        self.layers = nn.LayerList(
            Block(
                width, config.num_heads, mlp, norm_first=True, dropout=config.dropout, epsilon=1e-12, std=std
            )
            for _ in range(config.num_layers)
        )
        self.ln_post = LayerNorm(width, 1e-12)

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed pixels as V_0 [B, 1 + h * w, W], class token first, dropout after positions."""
        return dropout(super().embed(pixels), self.dropout, self.training)
