"""The idea of UNIMO-2: patches and tokens are grounded in one dictionary (section 3.1, arXiv 2203.09067).

With patches v_1 .. v_M of an image, tokens t_1 .. t_N of a text, and the rows g_1 .. g_C of the dictionary:

    x_ij = sigmoid(eta v_i^T g_j)          similarity of patch i and row j      Eq. (1)    similarities
    s_j  = sum_i x_ij + sum_k y_kj         y_kj the same of token k             Eq. (2)    accumulate
    g_1 .. g_K = the K rows with the largest s_j, the grounded tokens                      GroundedDictionary
    L_GD = sum_i |sg(v_i) - sum_j x_ij / (sum_k x_ik) g_j|^2
           + beta sum_j |sg(g_j) - sum_i x_ij / s_j v_i|^2                      Eq. (3)    topk_terms

The first term of the loss moves the chosen rows towards the patches and tokens that are like them. The
second, the commitment, keeps patches and tokens near the rows; sg stops the gradient. An image or a text
alone is grounded by its own part of s_j; the intent is that both come to share rows without ever having been
a pair (docs/results/scenes.md says how far they do).

Patches and tokens are treated alike, so the code has one matrix of features for both, patches first, and one
name, x, for both similarities. Class tokens take no part, unless the config says so. The 1-to-1 map, with
which the paper compares, is vector quantization (Oord et al., 2017): each position is mapped to its nearest
row.

Gradients: choosing has none. The losses behind the Transformer reach the dictionary's rows through the
grounded tokens, but no encoder; the encoders and eta learn from the grounding loss, there through the
targets and through the similarities, which are not detached (nor are they in the release).

Shapes: B batch, S = M + N positions, D width, C rows of the dictionary, K chosen rows. A mask has 1 where a
position takes part.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.nn.initializer import Constant, Uniform

from unimo.losses.reduce import global_mean
from unimo.models.unimo2.config import GroundingConfig

TEMPERATURE_RANGE = (1.0, 1e4)
"""Where eta is kept, as in the release."""
EPSILON = 1e-18
"""Added to sums of similarities that are divided by."""


@dataclass(frozen=True)
class Grounding:
    """Grounded tokens of a batch, and all that the grounding loss needs."""

    tokens: Tensor
    """[B, K, D] the chosen rows g_1 .. g_K, the best first; of the 1-to-1 map [B, S, D]."""
    ids: Tensor
    """[B, K] row numbers of the tokens in the dictionary; of the 1-to-1 map [B, S]."""
    scores: Tensor
    """[B, C] accumulated scores s_j of Eq. (2), detached; of the 1-to-1 map the number of positions at j."""
    similarity: Tensor | None
    """[B, S, K] x_ij of Eq. (1) for the chosen rows, 0 at positions left out; the 1-to-1 map has none."""
    features: Tensor
    """[B, S, D] the grounded patches and tokens, v_1 .. v_M, t_1 .. t_N."""
    mask: Tensor | None
    """[B, S] positions that take part; None means all."""
    token_mask: Tensor | None = None
    """[B, K] grounded tokens that exist; None means all. Only the 1-to-1 map has absent ones."""


def similarities(features: Tensor, rows: Tensor, temperature: Tensor) -> Tensor:
    """Compute Eq. (1), x_ij = sigmoid(eta v_i^T g_j).

    Args:
        features: v_i, [B, S, D].
        rows: g_j, [C, D] or [B, K, D].
        temperature: eta.

    Returns:
        [B, S, C] or [B, S, K].
    """
    return F.sigmoid(temperature * paddle.matmul(features, rows, transpose_y=True))


def accumulate(similarity: Tensor, mask: Tensor | None) -> Tensor:
    """Compute Eq. (2), s_j [B, C]: similarities [B, S, C] summed over the positions that take part."""
    return _leave_out(similarity, mask).sum(axis=1)


def topk_terms(grounding: Grounding) -> tuple[Tensor, Tensor]:
    """Compute the squared errors of Eq. (3) before they are summed; j and k run over the chosen rows.

    Returns:
        First term [B, S, D], 0 at positions that take no part, and second term [B, K, D].
    """
    x, tokens, features = grounding.similarity, grounding.tokens, grounding.features
    # Each position as a mean of the chosen rows: x_ij / sum_k x_ik.
    by_row = x / (x.sum(axis=2, keepdim=True) + EPSILON)
    first = (features.detach() - paddle.matmul(by_row, tokens)).square()
    # Each chosen row as a mean of the positions: x_ij / s_j, where s_j is the sum over i.
    by_column = x / (x.sum(axis=1, keepdim=True) + EPSILON)
    second = (tokens.detach() - paddle.matmul(by_column, features, transpose_x=True)).square()
    return _leave_out(first, grounding.mask), second


def one_to_one_terms(grounding: Grounding) -> tuple[Tensor, Tensor]:
    """Compute the squared errors of VQ (Oord et al., 2017), [B, S, D] each: of dictionary and commitment."""
    first = (grounding.features.detach() - grounding.tokens).square()
    second = (grounding.tokens.detach() - grounding.features).square()
    return _leave_out(first, grounding.mask), _leave_out(second, grounding.mask)


def _leave_out(errors: Tensor, mask: Tensor | None) -> Tensor:
    return errors if mask is None else errors * mask.unsqueeze(-1)


class GroundedDictionary(nn.Layer):
    """The matrix G, `dictionary` [C, D], and eta, `temperature` [1], which the 1-to-1 map does not have."""

    def __init__(self, width: int, config: GroundingConfig) -> None:
        super().__init__()
        self.config = config
        bound = 1.0 / config.dictionary_size
        self.dictionary = self.create_parameter(
            [config.dictionary_size, width], default_initializer=Uniform(-bound, bound)
        )
        self.temperature = None
        if config.method == "topk":
            start = Constant(config.temperature_init)
            self.temperature = self.create_parameter([1], default_initializer=start)

    def similarity(self, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """Compute Eq. (1) with the clipped temperature, of features [B, S, D] and all C rows, or of some."""
        temperature = paddle.clip(self.temperature, *TEMPERATURE_RANGE)
        return similarities(features, self.dictionary if rows is None else rows, temperature)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Grounding:
        """Choose grounded tokens, in float32 whatever the precision of the run.

        Args:
            features: [B, S, D] patches and tokens.
            mask: [B, S]; positions with 0 take no part.
        """
        with paddle.amp.auto_cast(enable=False):
            features = features.astype("float32")
            mask = None if mask is None else mask.astype("float32")
            if self.config.method == "one_to_one":
                return self._nearest(features, mask)
            with paddle.no_grad():
                scores = accumulate(self.similarity(features), mask)
                ids = paddle.topk(scores, self.config.num_tokens, axis=1)[1]
            tokens = F.embedding(ids, self.dictionary)
            # Again, with gradient, but only for the chosen rows: C of 2,048 to K of 100.
            chosen = _leave_out(self.similarity(features, tokens), mask)
            return Grounding(tokens, ids, scores, chosen, features, mask)

    def _nearest(self, features: Tensor, mask: Tensor | None) -> Grounding:
        """Map each position to its nearest row."""
        with paddle.no_grad():
            # argmin_j |v - g_j|^2, without |v|^2, which is the same for all j.
            products = paddle.matmul(features, self.dictionary, transpose_y=True)
            ids = (self.dictionary.square().sum(axis=1) - 2 * products).argmin(axis=2)
            chosen = F.one_hot(ids, self.config.dictionary_size)
            scores = accumulate(chosen, mask)
        tokens = F.embedding(ids, self.dictionary)
        return Grounding(tokens, ids, scores, None, features, mask, token_mask=mask)

    def loss(self, grounding: Grounding, rows_share: Tensor | float = 1.0) -> Tensor:
        """Compute Eq. (3) over the batches of all ranks, a scalar: alpha * first + beta * second term.

        Args:
            grounding: of a batch.
            rows_share: factor of the second term where that is a mean over rows, not over positions
                (`counts`).
        """
        config = self.config
        terms = topk_terms if config.method == "topk" else one_to_one_terms
        with paddle.amp.auto_cast(enable=False):
            first, second = terms(grounding)
            samples, width = first.shape[0], first.shape[2]
            if config.reduction == "sum":
                return global_mean(config.alpha * first.sum() + config.beta * second.sum(), samples)
            positions = samples * first.shape[1] if grounding.mask is None else grounding.mask.sum()
            columns = samples * second.shape[1] if grounding.token_mask is None else positions
            return config.alpha * global_mean(first.sum(), positions * width) + (
                config.beta * rows_share * global_mean(second.sum(), columns * width)
            )

    def counts(self, samples: int, positions: int) -> tuple[int, int]:
        """Return what the terms of `loss` are means of, up to a factor: positions, samples, or rows, of which
        each sample has the same number."""
        by_row = self.config.reduction == "mean" and self.config.method == "topk"
        first = samples if self.config.reduction == "sum" else positions
        return first, samples if by_row else first
