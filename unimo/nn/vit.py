"""Vision towers: the plain ViT (Dosovitskiy et al., 2021) and that of CLIP (Radford et al., 2021).

Both are pre-norm; equation numbers are those of the UNIMO-3 paper, which writes them out.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import paddle
from paddle import Tensor, nn

from unimo.nn.block import Block, Mlp, run_block
from unimo.nn.config import ClipVisionConfig, VitConfig
from unimo.nn.embeddings import PatchEmbedding
from unimo.nn.init import normal_attr
from unimo.nn.kernels import LayerNorm, dropout
from unimo.nn.position import resize_positions, table_grid


class VisionTower(nn.Layer):
    """Patches, class token, positions, blocks, and `ln_post`, the norm for whoever reads a layer.

    Names: `class_embedding` [W], `position_embedding` [1 + g * g, W], `patch_embedding.weight`
    [W, 3, P, P], `layers.{i}.{attention.qkv, attention.out, attention_norm, mlp.fc1, mlp.fc2,
    mlp_norm}`, `ln_post`. `attention_norm` is the norm before attention, `mlp_norm` before the MLP.
    """

    def __init__(
        self, width: int, patch_size: int, image_size: int, class_std: float, position_std: float
    ) -> None:
        super().__init__()
        self.patch_size, self.image_size = patch_size, image_size
        self.grid = image_size // patch_size
        self.class_embedding = self.create_parameter([width], attr=normal_attr(class_std))
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
        """Embed pixels [B, 3, S, S] as [B, 1 + g * g, W], class token first (Eq. 1)."""
        patches = self.patch_embedding(pixels)
        token = self.class_embedding.expand([patches.shape[0], 1, patches.shape[2]])
        return paddle.concat([token, patches], axis=1) + self.position_embedding

    def forward(self, pixels: Tensor, need_weights: bool = False) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Run the tower.

        Returns:
            All states V_0 .. V_L (Eq. 2), L + 1 tensors [B, 1 + g * g, W], raw, that is before `ln_post`; on
            request attentions [B, H, 1 + g * g, 1 + g * g] by `image.{layer}`.
        """
        states, attentions = [self.embed(pixels)], {}
        for number, layer in enumerate(self.layers, start=1):
            new, weights = run_block(layer, states[-1], None, need_weights)
            states.append(new)
            if need_weights:
                attentions[f"image.{number}"] = weights
        return states, attentions


class ClipVisionTower(VisionTower):
    """CLIP-ViT: QuickGELU, no patch bias, and a norm `ln_pre` before the first block.

    Args:
        num_layers: blocks to build (METER leaves CLIP's last one out).
        position_std: initial scale of the position embeddings; None means width ** -0.5.
        init_layers: depth that the initial scale is computed for; the whole CLIP has as many blocks.
    """

    tower_kind: ClassVar[str] = "clip_vit"
    """Kind of tower folder that `unimo.weights.towers.load_tower` reads into it."""

    def __init__(
        self,
        width: int,
        num_layers: int,
        num_heads: int,
        inner: int,
        *,
        patch_size: int,
        image_size: int,
        dropout: float = 0.0,
        position_std: float | None = None,
        init_layers: int | None = None,
    ) -> None:
        base = width**-0.5
        super().__init__(width, patch_size, image_size, base, base if position_std is None else position_std)
        out_std = base * (2 * (init_layers or num_layers)) ** -0.5
        self.patch_embedding = PatchEmbedding(patch_size, width, (3 * patch_size**2) ** -0.5)
        self.ln_pre = LayerNorm(width, 1e-5)
        mlp = partial(Mlp, width, inner, "quick_gelu", (2 * width) ** -0.5, out_std)
        self.layers = nn.LayerList(
            Block(width, num_heads, mlp, norm_first=True, dropout=dropout, std=base, out_std=out_std)
            for _ in range(num_layers)
        )
        self.ln_post = LayerNorm(width, 1e-5)

    @classmethod
    def from_config(cls, config: ClipVisionConfig) -> ClipVisionTower:
        """Build a tower of the given sizes, with random weights."""
        return cls(
            config.hidden_size,
            config.used_layers,
            config.num_heads,
            config.intermediate_size,
            patch_size=config.patch_size,
            image_size=config.image_size,
            dropout=config.dropout,
            position_std=config.position_init_std,
            init_layers=config.num_layers,
        )

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed pixels [B, 3, S, S] as V_0 [B, 1 + g * g, W], class token first (Eq. 1, then `ln_pre`)."""
        return self.ln_pre(super().embed(pixels))


class VitTower(VisionTower):
    """ViT: exact GELU, norms with epsilon 1e-12, and a bias of the patch projection.

    Args:
        patch_padding: zero padding of the patch convolution (see `PatchEmbedding`); UNIMO-2's release has 7.
        position_std: initial scale of the position embeddings; None means `std`.
        std: initial scale of the blocks. Patches start at a scale that keeps the variance of pixels.
    """

    tower_kind: ClassVar[str] = "vit"
    """Kind of tower folder that `unimo.weights.towers.load_tower` reads into it."""

    def __init__(
        self,
        width: int,
        num_layers: int,
        num_heads: int,
        inner: int,
        *,
        patch_size: int,
        image_size: int,
        patch_padding: int = 0,
        dropout: float = 0.0,
        position_std: float | None = None,
        std: float = 0.02,
    ) -> None:
        super().__init__(width, patch_size, image_size, std, std if position_std is None else position_std)
        self.dropout = dropout
        scale = (3 * patch_size**2) ** -0.5
        self.patch_embedding = PatchEmbedding(patch_size, width, scale, bias=True, padding=patch_padding)
        mlp = partial(Mlp, width, inner, "gelu", std)
        self.layers = nn.LayerList(
            Block(width, num_heads, mlp, norm_first=True, dropout=dropout, epsilon=1e-12, std=std)
            for _ in range(num_layers)
        )
        self.ln_post = LayerNorm(width, 1e-12)

    @classmethod
    def from_config(cls, config: VitConfig) -> VitTower:
        """Build a tower of the given sizes, with random weights."""
        return cls(
            config.hidden_size,
            config.num_layers,
            config.num_heads,
            config.intermediate_size,
            patch_size=config.patch_size,
            image_size=config.image_size,
            patch_padding=config.patch_padding,
            dropout=config.dropout,
            position_std=config.position_init_std,
            std=config.init_std,
        )

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed pixels [B, 3, S, S] as V_0 [B, 1 + g * g, W], class token first, dropout after positions."""
        return dropout(super().embed(pixels), self.dropout, self.training)
