"""AdamW with a rate for each group and layer, its state by the names of parameters, and the rate of a step.

Weight decay applies to matrices, but not to parameters of one dimension (biases, norms, gates) nor to class
and position embeddings, which are looked up rather than multiplied with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn.clip import _squared_l2_norm
from paddle.optimizer import AdamW

from unimo.errors import CheckpointError, ConfigError, nearest
from unimo.settings import OptimConfig

GROUPS = frozenset({"towers", "cross_modal", "heads"})
_ACCUMULATORS = ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc")


class GlobalNormClip(nn.ClipGradByGlobalNorm):
    """Clip by the global norm, in place, and keep that norm for the log.

    Attributes:
        norm: gradient norm of the last step before clipping, a scalar on the device. With sharding
            Paddle puts its own clipping in place of this one, and `norm` stays None.
    """

    def __init__(self, clip_norm: float) -> None:
        super().__init__(clip_norm)
        self.norm: Tensor | None = None

    @paddle.no_grad()
    def _dygraph_clip(self, params_grads: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        gradients = [gradient for _, gradient in params_grads if gradient is not None]
        if not gradients:
            return params_grads
        squares = [_squared_l2_norm(gradient).astype("float32").reshape([]) for gradient in gradients]
        self.norm = paddle.sqrt(paddle.stack(squares).sum())
        share = self.clip_norm / paddle.clip(self.norm + 1e-6, min=self.clip_norm)
        for gradient in gradients:
            gradient.multiply_(share.astype(gradient.dtype))
        return params_grads


def decays(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay applies to a parameter, by its structured name and shape.

    It does not to tables of which only some rows learn; an objective gives them an attribute `no_decay`.
    """
    last = name.rpartition(".")[2] if not name.endswith(".weight") else name.split(".")[-2]
    is_table = "position" in last or last in {"class_embedding", "cls_token"}
    return parameter.ndim > 1 and not (is_table or getattr(parameter, "no_decay", False))


def rate_factors(task: nn.Layer, optim: OptimConfig) -> dict[str, float]:
    """Return the factor on `optim.lr` of each parameter that learns, those without `stop_gradient`, by name.

    It is `optim.lr_multipliers[task.lr_group(name)]`, 1 when not listed, times that of the layer
    (`optim.layer_decay`). Layers are counted up to the highest that learns, so that those of a fusion
    encoder do not count where a task reads the tower below it alone.

    Raises:
        ConfigError: a multiplier for a group that does not exist, or nothing to train.
    """
    groups = {name: task.lr_group(name) for name, p in task.named_parameters() if not p.stop_gradient}
    if not groups:
        raise ConfigError("every parameter is frozen: there is nothing to train")
    known = GROUPS | set(groups.values())
    for group in optim.lr_multipliers:
        if group not in known:
            raise ConfigError(f"unknown group optim.lr_multipliers.{group}; {nearest(group, known)}")
    factors = {name: optim.lr_multipliers.get(group, 1.0) for name, group in groups.items()}
    if optim.layer_decay < 1:
        depths = {name: depth for name in groups if (depth := task.depth(name)) is not None}
        top = 1 + max(depths.values(), default=0)
        factors |= {
            name: factors[name] * optim.layer_decay ** (top - depth) for name, depth in depths.items()
        }
    return factors


def build_optimizer(task: nn.Layer, optim: OptimConfig) -> AdamW:
    """Build AdamW over the trainable parameters of a task, each at its rate (`rate_factors`).

    Raises:
        ConfigError: a multiplier for a group that does not exist, or nothing to train.
    """
    factors = rate_factors(task, optim)
    trainable = {name: p for name, p in task.named_parameters() if name in factors}
    for name, parameter in trainable.items():
        parameter.optimize_attr["learning_rate"] = factors[name]
    # Paddle asks by the name it generated, which differs from process to process.
    decayed = frozenset(parameter.name for name, parameter in trainable.items() if decays(name, parameter))
    return AdamW(
        learning_rate=optim.lr,
        beta1=optim.betas[0],
        beta2=optim.betas[1],
        epsilon=optim.eps,
        parameters=list(trainable.values()),
        weight_decay=optim.weight_decay,
        apply_decay_param_fun=decayed.__contains__,
        grad_clip=GlobalNormClip(optim.clip_grad_norm) if optim.clip_grad_norm else None,
        multi_precision=True,
    )


def create_accumulators(optimizer: AdamW) -> None:
    """Allocate the moments, which Paddle otherwise does in the first step."""
    block = paddle.static.default_main_program().global_block()
    optimizer.helper = optimizer.helper or paddle.base.layer_helper.LayerHelper("AdamW")
    optimizer._create_accumulators(block, optimizer._parameter_list)


def optimizer_tensors(optimizer: AdamW, task: nn.Layer) -> dict[str, np.ndarray]:
    """Return the state of the optimizer as `<structured parameter name>/<accumulator>`.

    With sharding only the state of parameters that this rank owns is included.
    """
    tensors = {}
    for name, parameter in task.named_parameters():
        for kind in _ACCUMULATORS:
            value = optimizer._accumulators.get(kind, {}).get(parameter.name)
            if value is not None:
                tensors[f"{name}/{kind}"] = value.numpy()
    return tensors


def load_optimizer_tensors(
    optimizer: AdamW, task: nn.Layer, tensors: Mapping[str, np.ndarray], where: str
) -> None:
    """Restore what `optimizer_tensors` returned, as far as this rank owns it; `where` is named in messages.

    Raises:
        CheckpointError: the state of a parameter is missing or has another shape.
    """
    owned = {parameter.name for parameter in optimizer._parameter_list}
    problems = []
    create_accumulators(optimizer)
    for name, parameter in task.named_parameters():
        if parameter.stop_gradient or parameter.name not in owned:
            continue
        for kind in _ACCUMULATORS:
            target, value = optimizer._accumulators[kind][parameter.name], tensors.get(f"{name}/{kind}")
            if value is None or list(value.shape) != list(target.shape):
                found = "missing" if value is None else f"of shape {list(value.shape)}"
                problems.append(f"{name}/{kind} is {found}, expected {list(target.shape)}")
            else:
                target.set_value(value)
    if problems:
        raise CheckpointError(
            f"the optimizer state in {where} does not fit: {'; '.join(problems[:10])} "
            f"({len(problems)} in all); was another part of the model frozen then?"
        )


def warmup_steps(warmup: float, max_steps: int) -> int:
    """Return the number of warm-up steps; `warmup` below 1 is a share of all steps, else their number.

    Raises:
        ConfigError: negative, or longer than the run.
    """
    steps = _warmup_steps(warmup, max_steps)
    if not 0 <= steps <= max_steps:
        raise ConfigError(
            f"optim.warmup={warmup:g} is {steps} steps of a run of train.max_steps={max_steps}; "
            f"expected 0 to {max_steps}, or a share below 1 such as 0.1"
        )
    return steps


def _warmup_steps(warmup: float, max_steps: int) -> int:
    return round(warmup * max_steps) if warmup < 1 else round(warmup)


def learning_rate(step: int, max_steps: int, optim: OptimConfig) -> float:
    """Return the rate of a group with multiplier 1: a pure function of the step, so resuming needs no state.

    It rises linearly; the last step of the warm-up is the first at the peak, and a run shorter than its
    warm-up ends below it. Then `linear` and `cosine` fall to 0 at `max_steps`, `constant` stays, and
    `piecewise` follows `milestones`, whose shares of `max_steps` are rounded to a step. `linear_unscaled` is
    the decay of UNIMO's release: the rise begins at 0, and the fall is that of a line from the peak at step
    0, so that the rate drops by the share of the warm-up when that is over. `step` counts the optimizer steps
    already done, 0 for the first one.
    """
    warmup = _warmup_steps(optim.warmup, max_steps)
    progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
    factor = 1.0
    if optim.schedule == "linear_unscaled":
        factor = step / warmup if step < warmup else max(0.0, 1.0 - step / max_steps)
    elif step < warmup:
        factor = (step + 1) / warmup
    elif optim.schedule == "piecewise":
        for share, value in optim.milestones:
            factor = value if step >= round(share * max_steps) else factor
    elif optim.schedule == "linear":
        factor = 1.0 - progress
    elif optim.schedule == "cosine":
        factor = 0.5 * (1.0 + math.cos(math.pi * progress))
    return optim.lr * factor
