"""Where dropout acts: what goes into the layers of a block and comes out of them, in a forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import Tensor, nn

from unimo.nn.attention import _MultiHead
from unimo.nn.block import Block, CrossBlock


def assert_dropped(after: Tensor, before: Tensor, rate: float, name: str) -> None:
    """Each element is 0 or, to keep the mean, larger; about the share `rate` is 0."""
    after, before = after.numpy().astype(np.float64), before.numpy().astype(np.float64)
    assert after.shape == before.shape, name
    clear = np.abs(before) > 1e-3
    ratio = after[clear] / before[clear]
    kept = np.abs(ratio) > 1e-2
    np.testing.assert_allclose(ratio[kept], 1 / (1 - rate), rtol=2e-2, err_msg=name)
    spread = 5 * (rate * (1 - rate) / ratio.size) ** 0.5
    assert abs(1 - kept.mean() - rate) <= spread, f"{name}: {1 - kept.mean()} of {ratio.size}, not {rate}"


class Watch:
    """The last input and output of chosen layers during a forward pass."""

    def __init__(self, layers: dict[str, nn.Layer]) -> None:
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}
        self.hooks = [layer.register_forward_post_hook(self._keep(name)) for name, layer in layers.items()]

    def _keep(self, name: str) -> Callable[..., None]:
        def keep(layer: nn.Layer, given: tuple[Any, ...], output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            self.seen[name] = (given[0], first)

        return keep

    def given(self, name: str) -> Tensor:
        return self.seen[name][0]

    def output(self, name: str) -> Tensor:
        return self.seen[name][1]


def parts_of(block: Block | CrossBlock) -> dict[str, nn.Layer]:
    """Layers of a block whose inputs and outputs show its residuals."""
    names = ("attention_norm", "cross_norm", "mlp_norm", "mlp")
    parts = {name: getattr(block, name) for name in names if hasattr(block, name)}
    for name in ("attention", "cross_attention"):
        if hasattr(block, name):
            parts[name] = getattr(block, name).out
    return {"": block, **parts}


def assert_residuals(block: nn.Layer, watch: Watch, rate: float, name: str) -> None:
    """Check what each part of a block adds to its residual."""

    def check(total: Tensor, before: Tensor, part: str) -> None:
        assert_dropped(total - before, watch.output(part), rate, f"{name}.{part}")

    states, end = watch.seen[""]
    rows = watch.output("attention").shape[1]
    if isinstance(block, CrossBlock):
        check(watch.given("attention_norm"), states[:, :rows], "attention")
        check(watch.given("cross_norm"), watch.output("attention_norm"), "cross_attention")
        check(watch.given("mlp_norm"), watch.output("cross_norm"), "mlp")
    elif block.norm_first:
        check(watch.given("mlp_norm"), states[:, :rows], "attention")
        check(end, watch.given("mlp_norm"), "mlp")
    else:
        check(watch.given("attention_norm"), states[:, :rows], "attention")
        check(watch.given("mlp_norm"), watch.output("attention_norm"), "mlp")


@contextlib.contextmanager
def checked_attention(names: Mapping[int, str], rate_of: Callable[[str], float]) -> Iterator[set[str]]:
    """Check that each attention drops probabilities inside a `with` block, and returns them whole.

    A mixture of unit vectors shows the probabilities as they are used.

    Args:
        names: of the attentions, by their `id`.
        rate_of: the rate of an attention by its name.

    Yields:
        The names of those that ran.
    """
    mix, seen = _MultiHead.mix, set()

    def watched(self: _MultiHead, query: Tensor, key: Tensor, value: Tensor, mask: Any, first: bool) -> Any:
        units = paddle.eye(key.shape[2]).expand([*key.shape[:2], key.shape[2], key.shape[2]])
        used, whole = mix(self, query, key, units, mask, True)
        used = used.reshape([0, 0, self.num_heads, -1]).transpose([0, 2, 1, 3])
        assert_dropped(used, whole, rate_of(names[id(self)]), names[id(self)])
        np.testing.assert_allclose(whole.sum(-1).numpy(), 1.0, atol=1e-5)
        seen.add(names[id(self)])
        return mix(self, query, key, value, mask, first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_MultiHead, "mix", watched)
        yield seen
