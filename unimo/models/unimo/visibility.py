"""Self-attention mask of UNIMO's one sequence [image; text] (section 2.3).

Rows of the image and of a source text read each other. A row of a target, that is of a text to be generated,
reads them and the target up to itself, and no row of image or source reads it. So one network predicts in
both directions (Eq. 4) and generates from left to right (Eq. 5). Padding is read by no row.
"""

from __future__ import annotations

import paddle
from paddle import Tensor

from unimo.nn.attention import BLOCKED, additive_mask


def visibility(real: Tensor, is_target: Tensor | None) -> Tensor:
    """Compute the additive mask [B, 1, 1 or S, S].

    Args:
        real: [B, S] 1 = token or region, 0 = padding.
        is_target: [B, S] 1 = row of the target; None without a target.
    """
    keys = additive_mask(real)
    if is_target is None:
        return keys
    target = is_target.astype("float32")
    earlier = paddle.tril(paddle.ones([real.shape[1]] * 2))
    # [B, S, S], query rows by key columns: 1 where the query is of the target and lies at or after the key.
    own = target.unsqueeze(2) * earlier.unsqueeze(0)
    # A key of the target is hidden from everyone else.
    hidden = target.unsqueeze(1) * (1.0 - own)
    return keys + BLOCKED * hidden.unsqueeze(1)
