"""Eqs (1) to (3) of UNIMO-2 in NumPy, one sample at a time in float64, with gradients derived by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EPSILON = 1e-18


@dataclass
class Result:
    """Of a batch: scores [B, C], ids [B, K], the two summed terms, and gradients of the weighted loss."""

    scores: np.ndarray
    ids: np.ndarray
    first: float
    second: float
    features: np.ndarray
    dictionary: np.ndarray
    temperature: float


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def reference(features, dictionary, temperature, mask, k, first_factor, second_factor) -> Result:
    """Everything about a batch.

    Args:
        features: [B, S, D]. dictionary: [C, D]. mask: [B, S] of 0 and 1.
        k: how many rows are chosen.
        first_factor, second_factor: what the two summed terms are multiplied with in the loss.
    """
    features, dictionary = features.astype("float64"), dictionary.astype("float64")
    result = Result(
        np.zeros((len(features), len(dictionary))),
        np.zeros((len(features), k), dtype=int),
        0.0,
        0.0,
        np.zeros_like(features),
        np.zeros_like(dictionary),
        0.0,
    )
    for b, (x, m) in enumerate(zip(features, mask.astype("float64"), strict=True)):
        result.scores[b] = (sigmoid(temperature * x @ dictionary.T) * m[:, None]).sum(0)
        ids = result.ids[b] = np.argsort(-result.scores[b], kind="stable")[:k]
        _add_sample(result, b, x, dictionary[ids], temperature, m, ids, (first_factor, second_factor))
    return result


def _add_sample(result, b, x, rows, temperature, m, ids, factors) -> None:
    plain = sigmoid(temperature * x @ rows.T)
    weight = plain * m[:, None]
    row_sum, column_sum = weight.sum(1) + EPSILON, weight.sum(0) + EPSILON
    by_row, by_column = weight / row_sum[:, None], weight / column_sum[None]
    first, second = (x - by_row @ rows) * m[:, None], rows - by_column.T @ x
    result.first += (first**2).sum()
    result.second += (second**2).sum()

    to_mixture, to_mean = -2 * factors[0] * first, -2 * factors[1] * second
    to_rows, to_x = by_row.T @ to_mixture, by_column @ to_mean
    to_by_row, to_by_column = to_mixture @ rows.T, x @ to_mean.T
    to_weight = to_by_row / row_sum[:, None] - ((to_by_row * weight).sum(1) / row_sum**2)[:, None]
    to_weight += to_by_column / column_sum[None] - ((to_by_column * weight).sum(0) / column_sum**2)[None]
    to_logit = to_weight * m[:, None] * plain * (1 - plain)
    result.features[b] = to_x + temperature * to_logit @ rows
    np.add.at(result.dictionary, ids, to_rows + temperature * to_logit.T @ x)
    result.temperature += (to_logit * (x @ rows.T)).sum()


def frozen_loss(features, dictionary, temperature, mask, result, targets, factors) -> float:
    """The weighted loss with the chosen ids of `result`; `targets` = (features, dictionary) behind the
    stop-gradients. Differences of it check the derived gradients."""
    total = 0.0
    for b, m in enumerate(mask.astype("float64")):
        rows, fixed_rows = dictionary[result.ids[b]], targets[1][result.ids[b]]
        weight = sigmoid(temperature * features[b] @ rows.T) * m[:, None]
        mixture = weight / (weight.sum(1, keepdims=True) + EPSILON) @ rows
        mean = (weight / (weight.sum(0, keepdims=True) + EPSILON)).T @ features[b]
        total += factors[0] * (((targets[0][b] - mixture) * m[:, None]) ** 2).sum()
        total += factors[1] * ((fixed_rows - mean) ** 2).sum()
    return total
