"""Adversarial training in the manner of VILLA (Gan et al., 2020), as UNIMO's release has it (facts 1.13).

In each of a few steps three passes, each with dropout of its own, see a batch as it is, with perturbed token
embeddings, and with perturbed region features. The perturbations climb the task's loss; parameters learn from
all passes, and from the divergence of what a perturbed pass says from what the clean one says.
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
from unimo.tasks.base import Batch

SMALLEST = 1e-8
"""By which a gradient is divided at least."""


@dataclass(frozen=True)
class AdversarialConfig:
    """Fields of `task.adversarial`; the defaults are those of the release for SNLI-VE, but for `steps`."""

    steps: int = 0
    """Of the ascent, each with three passes over the batch; 0 switches it off, the release has 4."""
    lr: float = 0.05
    """Length of a step of the ascent."""
    init_mag: float = 0.4
    """Size of the random perturbation of the first step."""
    max_norm: float = 0.4
    """Of a sample's perturbation; 0: it is not limited."""
    kl_weight: float = 1.0
    """Of the divergences between clean and perturbed passes."""
    norm_type: Literal["l2", "inf"] = "l2"
    """Norm of a sample's perturbation and gradient, over all positions and numbers."""
    projection: Literal["release", "paper"] = "release"
    """With l2, what `max_norm` is compared with: the norm of the gradient, which is what the release does, or
    that of the perturbation, as VILLA means it."""

    def __post_init__(self) -> None:
        numbers = (self.steps, self.lr, self.init_mag, self.max_norm, self.kl_weight)
        if min(numbers) < 0:
            raise ConfigError(
                f"task.adversarial: steps, lr, init_mag, max_norm and kl_weight are {numbers}; expected 0 or "
                "more"
            )

    def check(self, model: Model, task: str) -> None:
        """Refuse models whose inputs cannot be perturbed.

        Raises:
            CapabilityError: names those that can.
        """
        if self.steps:
            model.require({"regions", "fusion"}, f"{task} with task.adversarial")


@dataclass(frozen=True)
class Perturbed:
    """An input that is perturbed."""

    mask: Tensor
    """[B, S] 1 = real."""
    width: int
    """Numbers at a position."""

    @classmethod
    def of(cls, model: Model, batch: Batch) -> tuple[Perturbed, Perturbed]:
        """The tokens of a batch before their norm, and its regions with [IMG] before them.

        Raises:
            ConfigError: the blocks of the model recompute.
        """
        if any(getattr(block, "recompute", False) for block in model.sublayers()):
            # Paddle's recomputation adds to the gradients of parameters in every backward pass inside it.
            raise ConfigError(
                "task.adversarial.steps with train.recompute=true: set one of them to 0 or false"
            )
        regions = batch.images
        mask = regions["mask"].astype("float32")
        mask = paddle.concat([paddle.ones_like(mask[:, :1]), mask], axis=1)
        text = cls(batch.attention_mask, model.config.text.hidden_size)
        return text, cls(mask, regions["features"].shape[2])


class Forward(Protocol):
    """A pass over the batch, with perturbations [B, S, width] that are added to the inputs."""

    def __call__(self, *, text: Tensor | None = None, image: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [N, classes] and the task's loss, a mean over rows."""


def task_losses(
    name: str, forward: Forward, model: Model, batch: Batch, config: AdversarialConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """The task's loss under its name, with the terms of `adversarial_losses` if there are steps; and the
    logits of a clean pass."""
    if not config.steps:
        logits, loss = forward()
        return {name: loss}, logits
    losses, logits = adversarial_losses(forward, *Perturbed.of(model, batch), config)
    return {name: losses.pop("clean"), **losses}, logits


def adversarial_losses(
    forward: Forward, text: Perturbed, image: Perturbed, config: AdversarialConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """Losses of all steps together.

    Args:
        forward: the task's pass.
        text, image: what it perturbs.
        config: `steps` is at least 1.

    Returns:
        `clean`, `text_adversarial`, `image_adversarial` (means over steps of the task's loss), `text_kl` and
        `image_kl` (sums over steps, as in the release); and the logits of the last clean pass.
    """
    inputs = {"text": text, "image": image}
    deltas = {name: start(part, config) for name, part in inputs.items()}
    losses: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        losses[name] = losses[name] + value if name in losses else value

    for step in range(config.steps):
        clean, loss = forward()
        add("clean", loss / config.steps)
        for name, delta in deltas.items():
            delta.stop_gradient = False
            with paddle_kernels():
                logits, loss = forward(**{name: delta})
            loss = loss / config.steps
            add(f"{name}_adversarial", loss)
            add(f"{name}_kl", symmetric_kl(clean, logits))
            if step + 1 < config.steps:
                (gradient,) = paddle.grad(loss, delta, retain_graph=True)
                deltas[name] = ascend(delta.detach(), gradient.detach(), config)
    return losses, clean


def task_total(name: str, losses: Mapping[str, Tensor], config: AdversarialConfig) -> Tensor:
    """The one loss of the task, or with steps the sum of all passes and of their weighted divergences."""
    if not config.steps:
        return losses[name]
    passes = losses[name] + losses["text_adversarial"] + losses["image_adversarial"]
    return passes + config.kl_weight * (losses["text_kl"] + losses["image_kl"])


def shown(images: Images, delta: Tensor | None) -> Images:
    """Images, perturbed if there is something to add to their regions."""
    return images if delta is None else {**images, "delta": delta}


def start(part: Perturbed, config: AdversarialConfig) -> Tensor:
    """A random perturbation [B, S, width], 0 at padding: with l2 of a norm of about 0.58 `init_mag`, with inf
    uniform up to `init_mag`."""
    mask = part.mask.astype("float32")
    noise = paddle.uniform([*mask.shape, part.width], min=-1.0, max=1.0) * mask.unsqueeze(2)
    if config.norm_type == "inf":
        return noise * config.init_mag
    count = paddle.clip(mask.sum(1), min=1.0) * part.width
    return noise * (config.init_mag / paddle.sqrt(count)).unsqueeze([1, 2])


def ascend(delta: Tensor, gradient: Tensor, config: AdversarialConfig) -> Tensor:
    """The perturbation of the next step, from that of this one and the gradient of the loss, [B, S, W]."""
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
    """KL(p, q) + KL(q, p) of the distributions of logits [N, C], in nats, mean over all ranks' rows."""
    log_p, log_q = (log_softmax(part.astype("float32")) for part in (logits, others))
    return global_mean(((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(), logits.shape[0])


def _norms(values: Tensor, kind: str) -> Tensor:
    """Norm of each sample of [B, S, W], as [B, 1, 1]."""
    values = values.astype("float32")
    if kind == "inf":
        return values.abs().max(axis=[1, 2], keepdim=True)
    return paddle.sqrt((values**2).sum(axis=[1, 2], keepdim=True))
