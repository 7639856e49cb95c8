"""Image-text retrieval as UNIMO's release fine-tunes it: each pair above mismatched ones (facts 1.7).

The score is the model's own. Evaluation scores every text with every image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from unimo.losses.circle import circle_loss
from unimo.nn.outputs import Encoded
from unimo.tasks.base import Batch
from unimo.tasks.retrieval.matching import MatchingTask


class CircleRetrievalTask(MatchingTask):
    """Circle loss of each caption with its image against other images, and against other captions."""

    def encode(self, batch: Batch) -> tuple[Encoded, Encoded]:
        """Texts and images of a batch."""
        text = self.model.encode_text(batch.input_ids, batch.attention_mask)
        return text, self.model.encode_image(batch.images)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`circle_image` and `circle_text`, mean over pairs; report: share of pairs that score above all of
        their mismatched ones, percent.

        Args:
            batch: as `NegativesCollator` makes it: B pairs, N mismatched images and captions of each.
        """
        text, image = self.encode(batch)
        false_images, false_texts = batch.negative_images, batch.negative_texts
        pairs, count = false_images.shape
        own = paddle.arange(pairs, dtype="int64").unsqueeze(1)
        text_rows = paddle.concat([own, own.expand([pairs, count]), false_texts], axis=1)
        image_rows = paddle.concat([own, false_images, own.expand([pairs, count])], axis=1)
        logits = self.match_logits(text.select(text_rows.flatten()), image.select(image_rows.flatten()))
        scores = logits[:, 1].astype("float32").reshape([pairs, 1 + 2 * count])
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
        """The mean of both."""
        return (losses["circle_image"] + losses["circle_text"]) / 2

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Of each pair in the batch: `match` [B], the sigmoid of its score, and its record.

        No probability: with margin 0.2 training wants 0.69 and more of matches, 0.55 and less of others.
        """
        match = F.softmax(self.match_logits(*self.encode(batch)), axis=1)[:, 1]
        rows = zip(batch.sample_ids, match.tolist(), strict=True)
        return {
            "match": match,
            "records": [{"sample_id": key, "match": round(value, 6)} for key, value in rows],
        }
