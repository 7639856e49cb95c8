"""Who reads whom in UNIMO's one sequence [image; text] (section 2.3, facts 1.5).

Rows of the image and of a source read each other; a row of a target, that is a text to be generated, reads
them and the target up to itself, and nobody else reads it. Padding is read by nobody.
"""

from __future__ import annotations

import paddle
from paddle import Tensor

from unimo.nn.masks import BLOCKED, additive_mask


def visibility(real: Tensor, is_target: Tensor | None) -> Tensor:
    """Additive mask [B, 1, 1 or S, S].

    Args:
        real: [B, S] 1 = there, 0 = padding.
        is_target: [B, S] 1 = of the target; None where there is none.
    """
    keys = additive_mask(real)
    if is_target is None:
        return keys
    target = is_target.astype("float32")
    earlier = paddle.tril(paddle.ones([real.shape[1]] * 2))
    # [B, S, S]: 1 where a row of the target lies at or after the column.
    own = target.unsqueeze(2) * earlier.unsqueeze(0)
    hidden = target.unsqueeze(1) * (1.0 - own)
    return keys + BLOCKED * hidden.unsqueeze(1)
