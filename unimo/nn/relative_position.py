"""Learned relative positions of image patches (Swin, BEiT) and of tokens, in one table for both.

A logit of attention gets a number that depends on where its query lies from its key. Between patches that is
their distance by rows and columns, between tokens their distance in the text; [I_CLS] and [T_CLS] have
numbers of their own, and so have the two directions between image and text. The rows of the table are those
of VLMo's release, for a grid of w x w patches and texts of up to 196 tokens:

    (2 w - 1)^2     patch to patch                      M            any token to any part of the image
    3               [I_CLS] to patch, patch to [I_CLS], M + 1        any part of the image to any token
                    [I_CLS] to itself                   389          token to token, distances -194 to 194
                    (M is the number of all these)      3            [T_CLS] as [I_CLS]
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import paddle
from paddle import Tensor, nn
from scipy.interpolate import RectBivariateSpline

from unimo.errors import ConfigError
from unimo.nn.init import constant_attr

MAX_TEXT = 196
"""Longest text, [T_CLS] included."""
_TEXT_ROWS = 2 * MAX_TEXT  # distances from -194 to 194, and three of [T_CLS]
_CROSS_ROWS = 2


def table_rows(window: int) -> int:
    """Return the number of rows of the table for an image of `window` x `window` patches."""
    return _image_rows(window) + _CROSS_ROWS + _TEXT_ROWS


def _image_rows(window: int) -> int:
    return (2 * window - 1) ** 2 + 3


@lru_cache(maxsize=8)
def image_index(window: int) -> np.ndarray:
    """Return the row of the table for each query and key of an image, int64 [1 + w^2, 1 + w^2]."""
    side = 2 * window - 1
    row, column = np.divmod(np.arange(window**2), window)
    down, right = (place[:, None] - place[None] + window - 1 for place in (row, column))
    return _with_class_token(down * side + right, side**2)


@lru_cache(maxsize=64)
def text_index(length: int, window: int) -> np.ndarray:
    """Return the row of the table for each query and key of a text of `length` tokens, int64 [T, T].

    Raises:
        ConfigError: the text is longer than the table allows.
    """
    if length > MAX_TEXT:
        raise ConfigError(
            f"a text of {length} tokens is longer than the {MAX_TEXT} that relative positions reach; "
            f"set data.max_text_len to at most {MAX_TEXT}"
        )
    first = _image_rows(window) + _CROSS_ROWS
    place = np.arange(length - 1)
    distance = place[None] - place[:, None] + MAX_TEXT - 2
    return _with_class_token(first + distance, first + 2 * (MAX_TEXT - 2) + 1)


@lru_cache(maxsize=64)
def pair_index(length: int, window: int) -> np.ndarray:
    """Return the row of the table for each query and key of [text; image], int64 [T + V, T + V]."""
    text, image = text_index(length, window), image_index(window)
    to_image = np.full((len(text), len(image)), _image_rows(window))
    to_text = np.full((len(image), len(text)), _image_rows(window) + 1)
    return np.block([[text, to_image], [to_text, image]])


def _with_class_token(inner: np.ndarray, first: int) -> np.ndarray:
    """Put row and column 0 around an index: the three rows from `first` on are those of the class token."""
    index = np.full((len(inner) + 1, len(inner) + 1), first, np.int64)
    index[1:, 1:] = inner
    index[1:, 0], index[0, 0] = first + 1, first + 2
    return index


class RelativePositions(nn.Layer):
    """The table, `position_bias` [R, layers * heads]: a column for each head of each layer; starts at 0."""

    def __init__(self, window: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.window, self.num_layers = window, num_layers
        shape = [table_rows(window), num_layers * num_heads]
        self.position_bias = self.create_parameter(shape, attr=constant_attr(0.0))

    def forward(self, text_length: int, has_image: bool) -> list[Tensor]:
        """Return what is added to the attention logits of each layer, [1, H, S, S].

        Args:
            text_length: T, 0 for an image alone.
            has_image: whether an image follows the text.
        """
        if not text_length:
            index = image_index(self.window)
        else:
            make = pair_index if has_image else text_index
            index = make(text_length, self.window)
        rows = paddle.gather(self.position_bias, paddle.to_tensor(index.reshape(-1)))
        bias = rows.reshape([*index.shape, self.num_layers, -1]).transpose([2, 3, 0, 1])
        return [layer.unsqueeze(0) for layer in bias.unbind(0)]

    def fit_table(self, name: str, table: np.ndarray) -> np.ndarray:
        """Resize a stored table of another image size; see `resize_table`."""
        window = (1 + round(max(0, len(table) - table_rows(1) + 1) ** 0.5)) // 2
        is_table = name == "position_bias" and table.ndim == 2 and table_rows(window) == len(table)
        return resize_table(table, self.window) if is_table else table


def resize_table(table: np.ndarray, window: int) -> np.ndarray:
    """Resize the patch rows of a table [R, C] to a grid of `window` x `window` patches, as BEiT does.

    Near distances matter more than far ones, so the known distances are placed at the partial sums of a
    geometric series 1, q, q^2, ..., whose ratio lets them reach as far as the new ones, and a cubic spline
    through them is read at whole numbers. All other rows are kept.
    """
    patches = len(table) - table_rows(1) + 1  # (2 w - 1)^2
    old, new = round(patches**0.5), 2 * window - 1
    if old == new:
        return table
    known, wanted = _geometric(old // 2, new // 2), np.arange(new) - new // 2
    degree = min(3, old - 1)
    columns = [
        RectBivariateSpline(known, known, column.reshape(old, old), kx=degree, ky=degree)(
            wanted, wanted
        ).ravel()
        for column in table[:patches].T.astype(np.float64)
    ]
    return np.concatenate([np.stack(columns, axis=1).astype(table.dtype), table[patches:]])


def _geometric(count: int, reach: int) -> np.ndarray:
    """Return 0 and, on both sides, the partial sums of 1 + q + ... that reach `reach` after `count` terms."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        sums = np.cumsum(ratio ** np.arange(count))
        low, high = (low, ratio) if sums[-1] > reach else (ratio, high)
    return np.concatenate([-sums[::-1], [0.0], sums])
