"""What the ways to train retrieval share: the matching score of a pair, and the evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import paddle
from paddle import Tensor

from unimo.data.processor import Processor
from unimo.losses.itm import two_classes
from unimo.models.base import Model
from unimo.nn.init import linear
from unimo.nn.outputs import Encoded
from unimo.tasks.base import Answer, Batch, Observer, Question, Task, asked_pairs
from unimo.tasks.retrieval.scores import Gallery, score_pairs


class MatchingTask(Task):
    """Judges pairs by the model's own score, or by a head of two classes for models without one."""

    needs = frozenset({"fusion"})
    asked_with = "text"
    head_aliases = {"itm_head.": "objective.itm_head."}

    def __init__(self, model: Model, config: Any, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(model, config, metadata)
        self.build_heads()
        self.itm_head = None if model.has_match else linear(model.pooled_size, 2)

    def build_heads(self) -> None:
        """Heads of a subclass, made before the matching head: the order decides about random starts."""

    def text_vectors(self, text: Encoded) -> Tensor | None:
        """Unit vectors [B, E] of texts, whose cosines with those of images choose what is fused; None: every
        pair is."""
        return None

    def image_vectors(self, image: Encoded) -> Tensor | None:
        """Unit vectors [B, E] of images; see there."""
        return None

    def match_logits(self, text: Encoded, image: Encoded) -> Tensor:
        """Logits [N, 2] of N pairs; class 1 is a match."""
        pooled = self.model.fuse(text, image, outputs="pooled").pooled
        return two_classes(self.model.match(pooled)) if self.itm_head is None else self.itm_head(pooled)

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Match texts with images: the one answer is how well they fit."""
        match = self.predict(asked_pairs(processor, questions))["match"]
        return [[Answer("match", value)] for value in match.tolist()]

    def evaluate(self, batches: Iterable[Batch], observe: Observer | None = None) -> dict[str, float]:
        """Recall at 1, 5, 10 in both directions over all texts and unique images of `batches`.

        Every rank gets all batches and takes its share of the pairs to fuse. `observe` is called once with
        `records`: for each text the ids of its ten best images.
        """
        was_training = self.training
        self.eval()
        try:
            with paddle.no_grad():
                gallery = Gallery.collect(self, batches)
                scores = score_pairs(self, gallery)
        finally:
            if was_training:
                self.train()
        if observe is not None:
            observe({"records": gallery.best_images(scores, 10)})
        return gallery.recall(scores)
