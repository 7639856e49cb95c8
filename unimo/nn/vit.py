"""The vision tower of CLIP (Radford et al., 2021): pre-norm ViT with QuickGELU (Eqs 1 and 2)."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from unimo.nn.block import Block, run_block
from unimo.nn.embeddings import PatchEmbedding
from unimo.nn.init import normal_attr
from unimo.nn.kernels import LayerNorm


class ClipVisionTower(nn.Layer):
    """CLIP-ViT: patches, class token, `ln_pre`, blocks, and `ln_post` for whoever reads a layer.

    Names: `class_embedding` [W], `position_embedding` [1 + g * g, W], `patch_embedding.weight`
    [W, 3, P, P], `ln_pre`, `layers.{i}.{attention.qkv, attention.out, attention_norm, mlp.fc1,
    mlp.fc2, mlp_norm}`, `ln_post`. `attention_norm` is CLIP's ln_1, `mlp_norm` its ln_2.

    Args:
        num_layers: blocks to build (METER leaves CLIP's last one out).
        position_std: initial scale of the position embeddings; None means width ** -0.5.
        init_layers: depth that the initial scale is computed for; the whole CLIP has as many blocks.
    """

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
        super().__init__()
        self.patch_size, self.image_size = patch_size, image_size
        self.grid = image_size // patch_size
        base = width**-0.5
        out_std = base * (2 * (init_layers or num_layers)) ** -0.5
        self.class_embedding = self.create_parameter([width], attr=normal_attr(base))
        self.position_embedding = self.create_parameter(
            [1 + self.grid**2, width], attr=normal_attr(base if position_std is None else position_std)
        )
        self.patch_embedding = PatchEmbedding(patch_size, width, (3 * patch_size**2) ** -0.5)
        self.ln_pre = LayerNorm(width, 1e-5)
        self.layers = nn.LayerList(
            Block(
                width,
                num_heads,
                inner,
                norm_first=True,
                activation="quick_gelu",
                dropout=dropout,
                std=base,
                out_std=out_std,
                inner_std=(2 * width) ** -0.5,
            )
            for _ in range(num_layers)
        )
        self.ln_post = LayerNorm(width, 1e-5)

    def embed(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] to V_0 [B, 1 + g * g, W], class token first (Eq. 1, then `ln_pre`)."""
        patches = self.patch_embedding(pixels)
        token = self.class_embedding.expand([patches.shape[0], 1, patches.shape[2]])
        return self.ln_pre(paddle.concat([token, patches], axis=1) + self.position_embedding)

    def forward(self, pixels: Tensor, need_weights: bool = False) -> tuple[list[Tensor], dict[str, Tensor]]:
        """All states V_0 .. V_L (Eq. 2; raw, before `ln_post`), and attentions on request."""
        states, attentions = [self.embed(pixels)], {}
        for number, layer in enumerate(self.layers, start=1):
            new, weights = run_block(layer, states[-1], None, need_weights)
            states.append(new)
            if need_weights:
                attentions[f"image.{number}"] = weights
        return states, attentions
