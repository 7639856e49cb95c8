"""What goes into the towers: token embeddings and patch embeddings."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from unimo.nn.init import embedding, normal_attr
from unimo.nn.kernels import LayerNorm, add_bias, dropout
from unimo.nn.position import token_positions


class TextEmbeddings(nn.Layer):
    """Word, position and token-type embeddings of RoBERTa: sum, LayerNorm, dropout (Eq. 3)."""

    def __init__(
        self,
        vocab_size: int,
        max_position: int,
        width: int,
        *,
        padding_id: int = 1,
        epsilon: float = 1e-5,
        dropout: float = 0.1,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.padding_id = padding_id
        self.dropout = dropout
        self.word = embedding(vocab_size, width, std)
        self.position = embedding(max_position, width, std)
        self.token_type = embedding(1, width, std)
        self.norm = LayerNorm(width, epsilon)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Ids and mask [B, T] to states [B, T, W]."""
        positions = token_positions(attention_mask, self.padding_id)
        states = self.word(input_ids) + self.position(positions)
        states = self.norm(add_bias(states, self.token_type.weight[0]))
        return dropout(states, self.dropout, self.training)


class PatchEmbedding(nn.Layer):
    """Projection of square patches without bias, as one matrix product (Eq. 1's W^p).

    `weight` has the convolution layout [W, 3, P, P] that all released ViT files use.
    """

    def __init__(self, patch_size: int, width: int, std: float) -> None:
        super().__init__()
        self.patch_size = patch_size
        shape = [width, 3, patch_size, patch_size]
        self.weight = self.create_parameter(shape, attr=normal_attr(std))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, g * P, g * P] to patch states [B, g * g, W], rows of the image first."""
        size, grid = self.patch_size, pixels.shape[-1] // self.patch_size
        patches = pixels.reshape([0, 3, grid, size, grid, size]).transpose([0, 2, 4, 1, 3, 5])
        patches = patches.reshape([0, grid * grid, 3 * size * size])
        return paddle.matmul(patches, self.weight.reshape([self.weight.shape[0], -1]), transpose_y=True)
