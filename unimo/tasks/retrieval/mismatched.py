"""Retrieval by matching alone: a pair scores above those that are mismatched, drawn at random.

The loss is the circle loss of UNIMO's and UNIMO-2's releases, or cross-entropy, as METER is fine-tuned.
Evaluation scores every text with every image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from unimo.losses.contrastive import circle_loss
from unimo.losses.reduce import global_mean
from unimo.models.base import Model
from unimo.tasks.base import Batch, Metadata
from unimo.tasks.retrieval.matching import MatchingTask


class MismatchedRetrievalTask(MatchingTask):
    """Scores of each caption with its image, with other images, and of its image with other captions."""

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the scores of the pairs of a `NegativesBatch`.

        Returns:
            [B, 1] of the pairs, [B, N] with other images and [B, N] with other captions.
        """
        text, image = self.encode(batch)
        false_images, false_texts = batch.negative_images, batch.negative_texts
        pairs, count = false_images.shape
        own = paddle.arange(pairs, dtype="int64").unsqueeze(1)
        text_rows = paddle.concat([own, own.expand([pairs, count]), false_texts], axis=1)
        image_rows = paddle.concat([own, false_images, own.expand([pairs, count])], axis=1)
        scores = self.match_scores(text.select(text_rows.flatten()), image.select(image_rows.flatten()))
        return scores.reshape([pairs, 1 + 2 * count]).split([1, count, count], axis=1)

    @staticmethod
    def accuracy(right: Tensor, *wrong: Tensor) -> dict[str, Tensor]:
        """Compute the share of pairs that score above all of their mismatched ones, in percent."""
        with paddle.no_grad():
            is_best = (right > paddle.concat(wrong, axis=1)).all(axis=1).astype("float32")
            return {"accuracy": 100 * is_best.mean()}


class CircleRetrievalTask(MismatchedRetrievalTask):
    """Circle loss of each caption with its image against other images, and against other captions.

    `match` is no probability here: with a margin of 0.2, training pushes matches above 0.69 and other pairs
    below 0.55.
    """

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute `circle_image` and `circle_text`, means over the pairs; report the accuracy."""
        right, wrong_images, wrong_texts = self.scores(batch)
        settings = (self.config.margin, self.config.scale)
        losses = {
            "circle_image": circle_loss(right, wrong_images, *settings),
            "circle_text": circle_loss(right, wrong_texts, *settings),
        }
        return losses, self.accuracy(right, wrong_images, wrong_texts)

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the mean of both losses."""
        return (losses["circle_image"] + losses["circle_text"]) / 2


class CrossEntropyRetrievalTask(MismatchedRetrievalTask):
    """Cross-entropy over each caption with its image and all of their mismatched pairs, by the log-odds of a
    match.

    `match` of two pairs can be compared, and is no calibrated probability.
    """

    def __init__(self, model: Model, config: Any, metadata: Metadata = None) -> None:
        super().__init__(model, config, metadata)
        if not model.has_match:
            self.freeze_unused(text=True, image=True)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute `matching`, a mean over the pairs; report the accuracy."""
        right, *wrong = self.scores(batch)
        targets = paddle.zeros([right.shape[0]], "int64")
        loss = F.cross_entropy(paddle.concat([right, *wrong], axis=1), targets, reduction="sum")
        return {"matching": global_mean(loss, right.shape[0])}, self.accuracy(right, *wrong)


TASKS = {"circle": CircleRetrievalTask, "cross_entropy": CrossEntropyRetrievalTask}
"""Loss -> task."""
