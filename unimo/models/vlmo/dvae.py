"""Encoder of the discrete VAE of DALL-E (Ramesh et al., 2021), whose codes BEiT predicts.

Layers and parameters have the names and shapes of OpenAI's release (`dall_e.Encoder`): a convolution, four
groups of two residual blocks, the first three of which halve the image, and the logits of the codes.
"""

from __future__ import annotations

from pathlib import Path

import paddle.nn.functional as F
from paddle import Tensor, nn

from unimo.errors import CheckpointError
from unimo.nn.init import constant_attr, normal_attr
from unimo.weights.files import read_safetensors
from unimo.weights.layers import load_into

GROUPS, BLOCKS = 4, 2
"""Groups, and blocks in each."""
LAPLACE_EPSILON = 0.1
"""Pixels of 0 to 1 are mapped to 0.1 to 0.9, the range of the logit-Laplace distribution (DALL-E, A.3)."""


class Convolution(nn.Layer):
    """Convolution with stride 1 that keeps the size; `w` [out, in, k, k] and `b` [out]."""

    def __init__(self, in_size: int, out_size: int, kernel: int) -> None:
        super().__init__()
        shape = [out_size, in_size, kernel, kernel]
        self.w = self.create_parameter(shape, attr=normal_attr((in_size * kernel**2) ** -0.5))
        self.b = self.create_parameter([out_size], attr=constant_attr(0.0))

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, in, S, S] to [B, out, S, S]."""
        return F.conv2d(images, self.w, self.b, padding=self.w.shape[-1] // 2)


class EncoderBlock(nn.Layer):
    """Residual block: what four convolutions find, divided by the square of the number of blocks."""

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__()
        inner = out_size // 4
        self.gain = (GROUPS * BLOCKS) ** -2
        self.id_path = nn.Identity() if in_size == out_size else Convolution(in_size, out_size, 1)
        self.res_path = nn.Sequential(
            ("relu_1", nn.ReLU()),
            ("conv_1", Convolution(in_size, inner, 3)),
            ("relu_2", nn.ReLU()),
            ("conv_2", Convolution(inner, inner, 3)),
            ("relu_3", nn.ReLU()),
            ("conv_3", Convolution(inner, inner, 3)),
            ("relu_4", nn.ReLU()),
            ("conv_4", Convolution(inner, out_size, 1)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, in, S, S] to [B, out, S, S]."""
        return self.id_path(images) + self.gain * self.res_path(images)


class DvaeEncoder(nn.Layer):
    """Codes of an image, one for each 8 x 8 pixels.

    Args:
        hidden: channels of the first group; each further one has twice as many. The release has 256.
        codes: size of the vocabulary; the release has 8,192.
    """

    def __init__(self, hidden: int = 256, codes: int = 8192) -> None:
        super().__init__()
        self.codes = codes
        layers: list[tuple[str, nn.Layer]] = [("input", Convolution(3, hidden, 7))]
        size = hidden
        for group in range(GROUPS):
            wider = hidden * 2**group
            blocks: list[tuple[str, nn.Layer]] = []
            for block in range(BLOCKS):
                blocks.append((f"block_{block + 1}", EncoderBlock(size, wider)))
                size = wider
            if group < GROUPS - 1:
                blocks.append(("pool", nn.MaxPool2D(2)))
            layers.append((f"group_{group + 1}", nn.Sequential(*blocks)))
        output = nn.Sequential(("relu", nn.ReLU()), ("conv", Convolution(size, codes, 1)))
        self.blocks = nn.Sequential(*layers, ("output", output))

    def forward(self, images: Tensor) -> Tensor:
        """Return the most probable codes [B, g * g], row by row, of images [B, 3, 8 g, 8 g] of 0 to 1."""
        return self.logits(images).argmax(axis=1).flatten(1)

    def logits(self, images: Tensor) -> Tensor:
        """Compute the logits of the codes [B, codes, g, g]."""
        return self.blocks((1 - 2 * LAPLACE_EPSILON) * images + LAPLACE_EPSILON)


def load_encoder(path: str | Path) -> DvaeEncoder:
    """Load an encoder, whose sizes are those of the file, to be used and not to learn.

    Raises:
        CheckpointError: the file cannot be read, or does not hold such an encoder.
    """
    tensors = read_safetensors(path)
    first, last = (tensors.get(f"blocks.{name}.w") for name in ("input", "output.conv"))
    if first is None or last is None or first.ndim != 4 or last.ndim != 4 or len(first) % 4:
        raise CheckpointError(
            f"{path} does not hold the encoder of a discrete VAE: expected OpenAI's names, blocks.input.w "
            f"[256, 3, 7, 7] to blocks.output.conv.w [8192, 2048, 1, 1]; found {', '.join(list(tensors)[:3])}"
        )
    encoder = DvaeEncoder(len(first), len(last))
    load_into(encoder, tensors, str(path))
    encoder.eval()
    for parameter in encoder.parameters():
        parameter.stop_gradient = True
    return encoder
