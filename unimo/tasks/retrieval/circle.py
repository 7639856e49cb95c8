"""Image-text retrieval of UNIMO's and UNIMO-2's releases: a pair scores above those that are mismatched.

Evaluation scores every text with every image.
"""

from __future__ import annotations

from collections.abc import Mapping

import paddle
from paddle import Tensor

from unimo.losses.contrastive import circle_loss
from unimo.tasks.base import Batch
from unimo.tasks.retrieval.matching import MatchingTask


class CircleRetrievalTask(MatchingTask):
    """Circle loss of each caption with its image against other images, and against other captions.

    `match` is no probability here: with a margin of 0.2, training pushes matches above 0.69 and other pairs
    below 0.55.
    """

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute `circle_image` and `circle_text`, means over the pairs of a `NegativesBatch`; report the
        share of pairs that score above all of their mismatched ones, in percent."""
        text, image = self.encode(batch)
        false_images, false_texts = batch.negative_images, batch.negative_texts
        pairs, count = false_images.shape
        own = paddle.arange(pairs, dtype="int64").unsqueeze(1)
        text_rows = paddle.concat([own, own.expand([pairs, count]), false_texts], axis=1)
        image_rows = paddle.concat([own, false_images, own.expand([pairs, count])], axis=1)
        scores = self.match_scores(text.select(text_rows.flatten()), image.select(image_rows.flatten()))
        scores = scores.reshape([pairs, 1 + 2 * count])
        right, wrong_images, wrong_texts = scores.split([1, count, count], axis=1)
        settings = (self.config.margin, self.config.scale)
        losses = {
            "circle_image": circle_loss(right, wrong_images, *settings),
            "circle_text": circle_loss(right, wrong_texts, *settings),
        }
        with paddle.no_grad():
            is_best = (right > scores[:, 1:]).all(axis=1).astype("float32")
        return losses, {"accuracy": 100 * is_best.mean()}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the mean of both losses."""
        return (losses["circle_image"] + losses["circle_text"]) / 2
