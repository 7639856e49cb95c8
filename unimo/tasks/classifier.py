"""The base of tasks that classify into named classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddle import Tensor
from paddle.nn import functional as F

from unimo.losses.reduce import global_mean
from unimo.tasks.base import Answer, Batch, Task, ranked


class ClassifierTask(Task):
    """Logits over named classes, trained by cross-entropy.

    Attributes:
        classes: names of the classes, in the order of the logits.
    """

    classes: Sequence[str]

    def logits(self, batch: Batch) -> Tensor:
        """Compute class logits [B, classes]."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the cross-entropy, a mean over samples; report the accuracy in percent."""
        logits = self.logits(batch)
        return {"classification": self.cross_entropy(logits, batch)}, self.accuracy(logits, batch)

    def cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the cross-entropy of a batch, a mean over the samples of all ranks."""
        loss = F.cross_entropy(logits.astype("float32"), batch.labels, reduction="sum")
        return global_mean(loss, logits.shape[0])

    def accuracy(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute the share of samples whose right class has the largest logit, in percent."""
        return {"accuracy": 100 * (logits.argmax(axis=1) == batch.labels).astype("float32").mean()}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Compute `logits` [B, classes] and `guesses` [B]; records name the best class of each sample."""
        logits = self.logits(batch)
        guesses = logits.argmax(axis=1)
        rows = zip(batch.sample_ids, guesses.tolist(), strict=True)
        records = [{"sample_id": key, "label": self.classes[guess]} for key, guess in rows]
        return {"logits": logits, "guesses": guesses, "records": records}

    def best_classes(self, batch: Batch, count: int) -> list[list[Answer]]:
        """Return the `count` most probable classes of each sample, best first."""
        return ranked(self.classes, F.softmax(self.logits(batch), axis=1), count)
