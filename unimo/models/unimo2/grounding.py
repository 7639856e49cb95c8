"""The grounded dictionary: Eqs (1) to (3) of the paper, and the 1-to-1 map that it is compared with.

Legend of shapes: B batch, S = M + N positions (patches, then tokens, class tokens left out), D width,
C rows of the dictionary, K of them chosen. A mask has 1 where a position takes part.

Gradients: choosing has none. What the Transformer does with the grounded tokens trains the dictionary's
rows alone; the encoders and the temperature learn from the grounding loss, there through the direct
targets and through the similarities, which are not detached (nor are they in the release).
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
EPSILON = 1e-18


@dataclass(frozen=True)
class Grounding:
    """What a batch was grounded to."""

    tokens: Tensor
    """[B, K, D] the chosen rows g_1 .. g_K, the best first; of the 1-to-1 map [B, S, D]."""
    ids: Tensor
    """[B, K] their numbers in the dictionary; of the 1-to-1 map [B, S]."""
    scores: Tensor
    """[B, C] accumulated scores s_j of Eq. (2), detached; of the 1-to-1 map how many positions chose j."""
    similarity: Tensor | None
    """[B, S, K] x_ij of Eq. (1) for the chosen rows, 0 at positions left out; the 1-to-1 map has none."""
    features: Tensor
    """[B, S, D] what was grounded: v_1 .. v_M, t_1 .. t_N."""
    mask: Tensor | None
    """[B, S] positions that take part; None means all."""
    token_mask: Tensor | None = None
    """[B, K] grounded tokens that exist; None means all. Only the 1-to-1 map has absent ones."""


def similarities(features: Tensor, rows: Tensor, temperature: Tensor) -> Tensor:
    """Eq. (1), x_ij = sigmoid(eta v_i^T g_j), of features [B, S, D] and rows [C, D] or [B, K, D]."""
    return F.sigmoid(temperature * paddle.matmul(features, rows, transpose_y=True))


def accumulate(similarity: Tensor, mask: Tensor | None) -> Tensor:
    """Eq. (2), s_j: similarities [B, S, C] summed over the positions that take part, to [B, C]."""
    if mask is not None:
        similarity = similarity * mask.unsqueeze(-1)
    return similarity.sum(axis=1)


def topk_terms(grounding: Grounding) -> tuple[Tensor, Tensor]:
    """The squared errors of Eq. (3), j and k running over the chosen rows.

    Returns:
        [B, S, D] of the first term, ||sg(v_i) - sum_j x_ij / (sum_k x_ik) g_j||^2 before the sum over D, 0 at
        positions left out; [B, K, D] of the second, ||sg(g_j) - sum_i x_ij / s_j v_i||^2.
    """
    x, tokens, features = grounding.similarity, grounding.tokens, grounding.features
    by_row = x / (x.sum(axis=2, keepdim=True) + EPSILON)
    first = (features.detach() - paddle.matmul(by_row, tokens)).square()
    by_column = x / (x.sum(axis=1, keepdim=True) + EPSILON)
    second = (tokens.detach() - paddle.matmul(by_column, features, transpose_x=True)).square()
    return _leave_out(first, grounding.mask), second


def one_to_one_terms(grounding: Grounding) -> tuple[Tensor, Tensor]:
    """The squared errors of VQ (Oord et al., 2017), [B, S, D] each: of the dictionary and of commitment."""
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
        """Eq. (1) with the clipped temperature: features [B, S, D] to all C rows, or to given ones."""
        temperature = paddle.clip(self.temperature, *TEMPERATURE_RANGE)
        return similarities(features, self.dictionary if rows is None else rows, temperature)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Grounding:
        """Choose the grounded tokens of features [B, S, D], in float32 whatever the precision.

        Args:
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
            return Grounding(
                tokens, ids, scores, _leave_out(self.similarity(features, tokens), mask), features, mask
            )

    def _nearest(self, features: Tensor, mask: Tensor | None) -> Grounding:
        with paddle.no_grad():
            products = paddle.matmul(features, self.dictionary, transpose_y=True)
            ids = (self.dictionary.square().sum(axis=1) - 2 * products).argmin(axis=2)
            chosen = F.one_hot(ids, self.config.dictionary_size)
            scores = accumulate(chosen, mask)
        tokens = F.embedding(ids, self.dictionary)
        return Grounding(tokens, ids, scores, None, features, mask, token_mask=mask)

    def loss(self, grounding: Grounding) -> Tensor:
        """Eq. (3) of a batch over all ranks, scalar: alpha times the first and beta times the second term."""
        config = self.config
        terms = topk_terms if config.method == "topk" else one_to_one_terms
        with paddle.amp.auto_cast(enable=False):
            first, second = terms(grounding)
            samples, width = first.shape[0], first.shape[2]
            if config.reduction == "sum":
                return global_mean(config.alpha * first.sum() + config.beta * second.sum(), samples)
            positions = samples * first.shape[1] if grounding.mask is None else grounding.mask.sum()
            columns = samples * second.shape[1] if grounding.token_mask is None else positions
            return config.alpha * global_mean(first.sum(), positions * width) + config.beta * global_mean(
                second.sum(), columns * width
            )
