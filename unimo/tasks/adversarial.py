"""Adversarial training in the manner of VILLA (Gan et al., 2020), as in UNIMO's released code.

Each of a few steps passes a batch through the model three times, each time with other dropout: as it is, with
perturbed token embeddings, and with perturbed region features. The perturbations climb the loss of the task.
Parameters learn from all passes, and from the divergence between perturbed and clean predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import paddle
from paddle import Tensor

from unimo.errors import ConfigError
from unimo.losses.reduce import global_mean
from unimo.models.base import Images, Model
from unimo.nn.kernels import log_softmax, paddle_kernels
from unimo.ranges import Count, NonNegative
from unimo.registry import require
from unimo.tasks.base import Batch

SMALLEST = 1e-8
"""Smallest divisor of a gradient."""


@dataclass(frozen=True)
class AdversarialConfig:
    """Fields of `task.adversarial`; the defaults but for `steps` are those of the release for SNLI-VE."""

    steps: Count = 0
    """Steps of the ascent, each with three passes over the batch; 0 switches it off, the release has 4."""
    lr: NonNegative = 0.05
    """Length of a step of the ascent."""
    init_mag: NonNegative = 0.4
    """Size of the random perturbation of the first step."""
    max_norm: NonNegative = 0.4
    """Largest norm of a sample's perturbation; 0 for no limit."""
    kl_weight: NonNegative = 1.0
    """Weight of the divergences between clean and perturbed passes."""
    norm_type: Literal["l2", "inf"] = "l2"
    """Norm of a sample's perturbation and gradient, over all positions and channels."""
    projection: Literal["release", "paper"] = "release"
    """With l2, the norm that `max_norm` limits: that of the gradient, as in the release, or that of the
    perturbation, as VILLA means it."""

    def check(self, model: Model, task: str) -> None:
        """Check that the inputs of a model can be perturbed.

        Raises:
            CapabilityError: they cannot; names the models that can.
        """
        if self.steps:
            require(model.config.name, {"regions", "fusion"}, f"{task} with task.adversarial")


@dataclass(frozen=True)
class Perturbed:
    """Shape of an input that is perturbed."""

    mask: Tensor
    """[B, S] 1 = real."""
    width: int
    """W, channels of a position."""

    @classmethod
    def of(cls, model: Model, batch: Batch) -> tuple[Perturbed, Perturbed]:
        """Return the tokens of a batch before their norm, and its regions behind [IMG].

        Raises:
            ConfigError: the blocks of the model recompute.
        """
        if any(getattr(block, "recompute", False) for block in model.sublayers()):
            # Paddle's recomputation adds to the gradients of parameters in every backward pass inside it.
            raise ConfigError(
                "task.adversarial.steps with train.recompute=true: set one of them to 0 or false"
            )
        mask = batch.images["mask"].astype("float32")
        mask = paddle.concat([paddle.ones_like(mask[:, :1]), mask], axis=1)
        text = cls(batch.attention_mask, model.config.text.hidden_size)
        return text, cls(mask, batch.images["features"].shape[2])


class Forward(Protocol):
    """A pass over the batch, with perturbations [B, S, W] that are added to the inputs."""

    def __call__(self, *, text: Tensor | None = None, image: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute logits [N, classes] and the loss of the task, a mean over rows."""


def task_losses(
    name: str, forward: Forward, model: Model, batch: Batch, config: AdversarialConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the losses of a task, summed over the steps of adversarial training if there are any.

    Returns:
        The loss under the name of the task and, with steps, `text_adversarial`, `image_adversarial` (all
        three means over steps), `text_kl` and `image_kl` (sums over steps, as in the release); and the logits
        of the last clean pass.
    """
    if not config.steps:
        logits, loss = forward()
        return {name: loss}, logits
    inputs = dict(zip(("text", "image"), Perturbed.of(model, batch), strict=True))
    deltas = {key: start(part, config) for key, part in inputs.items()}
    losses: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        losses[name] = losses[name] + value if name in losses else value

    for step in range(config.steps):
        clean, loss = forward()
        add(name, loss / config.steps)
        for key, delta in deltas.items():
            delta.stop_gradient = False
            with paddle_kernels():
                logits, loss = forward(**{key: delta})
            loss = loss / config.steps
            add(f"{key}_adversarial", loss)
            add(f"{key}_kl", symmetric_kl(clean, logits))
            if step + 1 < config.steps:
                (gradient,) = paddle.grad(loss, delta, retain_graph=True)
                deltas[key] = ascend(delta.detach(), gradient.detach(), config)
    return losses, clean


def task_total(name: str, losses: Mapping[str, Tensor], config: AdversarialConfig) -> Tensor:
    """Return the loss of the task; with steps, the sum of all passes and of their weighted divergences."""
    if not config.steps:
        return losses[name]
    passes = losses[name] + losses["text_adversarial"] + losses["image_adversarial"]
    return passes + config.kl_weight * (losses["text_kl"] + losses["image_kl"])


def shown(images: Images, delta: Tensor | None) -> Images:
    """Return images with a perturbation of their regions, if there is one."""
    return images if delta is None else {**images, "delta": delta}


def start(part: Perturbed, config: AdversarialConfig) -> Tensor:
    """Draw a perturbation [B, S, W], 0 at padding: uniform up to `init_mag` with inf, of a norm of about 0.58
    `init_mag` with l2."""
    mask = part.mask.astype("float32")
    noise = paddle.uniform([*mask.shape, part.width], min=-1.0, max=1.0) * mask.unsqueeze(2)
    if config.norm_type == "inf":
        return noise * config.init_mag
    count = paddle.clip(mask.sum(1), min=1.0) * part.width
    return noise * (config.init_mag / paddle.sqrt(count)).unsqueeze([1, 2])


def ascend(delta: Tensor, gradient: Tensor, config: AdversarialConfig) -> Tensor:
    """Compute the next perturbation [B, S, W] from this one and the gradient of the loss."""
    size = _norms(gradient, config.norm_type)
    delta = delta + config.lr * gradient / paddle.clip(size, min=SMALLEST)
    if not config.max_norm:
        return delta
    if config.norm_type == "inf":
        return paddle.clip(delta, -config.max_norm, config.max_norm)
    compared = size if config.projection == "release" else _norms(delta, "l2")
    shrink = config.max_norm / paddle.clip(compared, min=SMALLEST)
    return delta * paddle.where(compared > config.max_norm, shrink, paddle.ones_like(shrink))


def symmetric_kl(logits: Tensor, others: Tensor) -> Tensor:
    """Compute KL(p, q) + KL(q, p) of the distributions of logits [N, C] in nats, mean over rows and ranks."""
    log_p, log_q = (log_softmax(part.astype("float32")) for part in (logits, others))
    return global_mean(((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(), logits.shape[0])


def _norms(values: Tensor, kind: str) -> Tensor:
    """Compute the norm of each sample of [B, S, W], as [B, 1, 1]."""
    values = values.astype("float32")
    if kind == "inf":
        return values.abs().max(axis=[1, 2], keepdim=True)
    return paddle.sqrt((values**2).sum(axis=[1, 2], keepdim=True))
