"""The base of retrieval tasks: the matching score of a pair, and the evaluation in two stages.

The cosines of single vectors choose candidates, which the fusion then re-ranks; a task without such vectors
fuses every pair.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import Tensor
from paddle.nn import functional as F

from unimo.data.processor import Processor
from unimo.errors import DataError
from unimo.losses.contrastive import two_classes
from unimo.metrics.average import gather_objects
from unimo.metrics.recall import retrieval_recall
from unimo.models.base import Model, select_images
from unimo.nn.init import linear
from unimo.nn.outputs import Encoded, concat_rows
from unimo.progress import Progress
from unimo.tasks.base import Answer, Batch, Metadata, Observer, Question, Task, Watch, asked_pairs, to_tensors

logger = logging.getLogger(__name__)
NOT_A_CANDIDATE = -1e6
"""Added to the cosine of pairs that are not re-ranked: below all scores of those that are, which have no
bound. In float64, so that the order of the cosines is left."""


class MatchingTask(Task):
    """Score pairs by the model's own matching score, or by a head of two classes for models without one."""

    needs = frozenset({"fusion"})
    asked_with = "text"
    draws_in_round = True
    head_aliases = {"itm_head.": "objective.itm_head."}

    def __init__(self, model: Model, config: Any, metadata: Metadata = None) -> None:
        super().__init__(model, config, metadata)
        self.build_heads()
        self.draws_in_round = config.has_matching
        is_needed = config.has_matching and not model.has_match
        self.itm_head = linear(model.pooled_size, 2) if is_needed else None

    def build_heads(self) -> None:
        """Build the heads of a subclass, before the matching head: random starts depend on the order."""

    def encode(self, batch: Batch) -> tuple[Encoded, Encoded]:
        """Encode the texts and the images of a batch."""
        text = self.model.encode_text(batch.input_ids, batch.attention_mask)
        return text, self.model.encode_image(batch.images)

    def text_vectors(self, text: Encoded) -> Tensor | None:
        """Compute unit vectors [B, E] of texts for the first stage; None for a task without one."""
        return None

    def image_vectors(self, image: Encoded) -> Tensor | None:
        """Compute unit vectors [B, E] of images for the first stage; None for a task without one."""
        return None

    def match_logits(self, text: Encoded, image: Encoded) -> Tensor:
        """Compute logits [N, 2] of N pairs; class 1 is a match."""
        pooled = self.model.fuse(text, image, outputs="pooled").pooled
        return two_classes(self.model.match(pooled)) if self.itm_head is None else self.itm_head(pooled)

    def match_scores(self, text: Encoded, image: Encoded) -> Tensor:
        """Compute the scores [N] by which N pairs are ranked, in float32; their sigmoid is P(match).

        Two-class cross-entropy sees the difference of both logits only, so the score is this difference, the
        log-odds of a match: half of either logit is left from its random start. The circle loss trains the
        logit of a match, and nothing ever moves the other one. A model may add its contrastive scores.
        """
        logits = self.match_logits(text, image).astype("float32")
        scores = logits[:, 1] if self.config.loss == "circle" else logits[:, 1] - logits[:, 0]
        contrastive = self.model.contrastive_scores(text, image)
        return scores if contrastive is None else scores + contrastive

    def judge(self, batch: Batch) -> tuple[str, Tensor]:
        """Compute `match` [B], the probability that a text and the image of the same row match.

        Returns:
            The name of the score, and the scores.
        """
        return "match", F.sigmoid(self.match_scores(*self.encode(batch)))

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Compute the score of `judge` for each text with the image of the same row."""
        name, scores = self.judge(batch)
        rows = zip(batch.sample_ids, scores.tolist(), strict=True)
        return {name: scores, "records": [{"sample_id": key, name: round(value, 6)} for key, value in rows]}

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Match texts with images; the one answer is the score of `judge`."""
        name, scores = self.judge(asked_pairs(processor, questions))
        return [[Answer(name, value)] for value in scores.tolist()]

    def evaluate(
        self, batches: Iterable[Batch], observe: Observer | None = None, watch: Watch = iter
    ) -> dict[str, float]:
        """Compute recall at 1, 5 and 10 in both directions, over all texts and unique images of `batches`.

        Every rank gets all batches and fuses its share of the pairs. `observe` is called once, with the ids
        of the ten best images of each text as `records`.
        """
        with self.evaluation_mode():
            gallery = Gallery.collect(self, watch(batches))
            scores = score_pairs(self, gallery, watch)
        if observe is not None:
            observe({"records": gallery.best_images(scores, 10)})
        return gallery.recall(scores)


@dataclass
class Gallery:
    """Encodings of all texts and of all unique images of a split, each computed once."""

    texts: list[Encoded]
    """One for each batch, whose lengths differ; none where nothing is fused."""
    images: Encoded | None
    """Ni rows; None where nothing is fused."""
    cosines: np.ndarray | None
    """[Nt, Ni] of the vectors of the first stage; None without one."""
    text_ids: list[str]
    """Nt sample ids."""
    image_ids: list[str]
    image_of_text: np.ndarray
    """[Nt] row of the image that each text belongs to."""

    @classmethod
    def collect(cls, task: MatchingTask, batches: Iterable[Batch]) -> Gallery:
        """Run the towers over all batches.

        Raises:
            DataError: there is no batch, or the ranks were given different ones.
        """
        texts, images, text_vectors, image_vectors = [], [], [], []
        text_ids: list[str] = []
        row_of: dict[int, int] = {}  # group of an image -> its row
        image_ids: list[str] = []
        image_of_text: list[int] = []
        for batch in batches:
            tensors = to_tensors(batch)
            text = task.model.encode_text(tensors.input_ids, tensors.attention_mask)
            if task.config.has_matching:
                texts.append(text)
            text_vectors.append(task.text_vectors(text))
            groups, fresh = np.asarray(batch.image_group).tolist(), []
            for row, group in enumerate(groups):
                if group not in row_of:
                    row_of[group] = len(row_of)
                    fresh.append(row)
            if fresh:
                image = task.model.encode_image(select_images(tensors.images, paddle.to_tensor(fresh)))
                if task.config.has_matching:
                    images.append(image)
                image_vectors.append(task.image_vectors(image))
            image_ids += [batch.image_ids[row] for row in fresh]
            text_ids += batch.sample_ids
            image_of_text += [row_of[group] for group in groups]
        if not text_ids:
            raise DataError("retrieval was given no pairs to evaluate")
        if len(set(gather_objects((len(text_ids), len(row_of))))) > 1:
            raise DataError("retrieval needs the same pairs on every rank; give each rank the whole split")
        cosines = None
        if all(part is not None for part in (*text_vectors, *image_vectors)):
            cosines = paddle.concat(text_vectors).numpy() @ paddle.concat(image_vectors).numpy().T
        shown = concat_rows(images) if images else None
        return cls(texts, shown, cosines, text_ids, image_ids, np.asarray(image_of_text))

    def candidates(self, first: int | None) -> np.ndarray:
        """Choose the pairs that the fusion scores, bool [Nt, Ni].

        A pair is a candidate when it is among the best of its text or of its image. BridgeTower scores both
        directions apart and takes the larger; the fusion is the same, so it runs once here.

        Args:
            first: number of the best by cosine; None for all.
        """
        shape = len(self.text_ids), len(self.image_ids)
        if self.cosines is None or first is None:
            return np.ones(shape, bool)
        chosen = np.zeros(shape, bool)
        if first:
            best_images = np.argsort(-self.cosines, axis=1, kind="stable")[:, :first]
            best_texts = np.argsort(-self.cosines, axis=0, kind="stable")[:first]
            np.put_along_axis(chosen, best_images, True, axis=1)
            np.put_along_axis(chosen, best_texts, True, axis=0)
        return chosen

    def recall(self, scores: np.ndarray) -> dict[str, float]:
        """Compute IR and TR recall at 1, 5 and 10 in percent, and their sum, for scores [Nt, Ni]."""
        return retrieval_recall(scores, self.image_of_text, np.arange(len(self.image_ids)))

    def best_images(self, scores: np.ndarray, count: int) -> list[dict[str, Any]]:
        """Return the ids of the `count` best images of each text, as records."""
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        rows = zip(self.text_ids, order.tolist(), strict=True)
        return [{"sample_id": key, "image_ids": [self.image_ids[i] for i in row]} for key, row in rows]


def score_pairs(task: MatchingTask, gallery: Gallery, watch: Watch = iter) -> np.ndarray:
    """Compute scores [Nt, Ni]: `match_scores` of candidates, and less than those for other pairs.

    Where nothing is fused these are the cosines. With the loss `itc` cosines are added to the scores of
    candidates, as in VLMo's release. `watch` wraps the loop over parts of the candidates. Collective.
    """
    config, cosines = task.config, gallery.cosines
    if not config.has_matching:
        return cosines
    candidates = gallery.candidates(config.first)
    if config.rerank > max(candidates.shape):
        sizes = (config.rerank, *candidates.shape)
        logger.warning("task.rerank=%d of %d texts and %d images: every pair is fused", *sizes)
    # The cosine keeps the order of the first stage among the pairs that are not re-ranked.
    scores = np.full(candidates.shape, NOT_A_CANDIDATE) + (0.0 if cosines is None else cosines)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    with Progress("re-ranking", int(candidates.sum()), unit="pairs") as bar:
        for turn, (text, start, rows, columns) in enumerate(
            watch(_parts(gallery.texts, candidates, config.fusion_batch_size))
        ):
            bar.update(len(rows))
            if turn % ranks == rank:
                texts = text.select(paddle.to_tensor(rows))
                images = gallery.images.select(paddle.to_tensor(columns))
                scores[start + rows, columns] = task.match_scores(texts, images).numpy()
    if ranks > 1:
        # A pair that a rank did not score is at its lowest there.
        joined = paddle.to_tensor(scores)
        dist.all_reduce(joined, op=dist.ReduceOp.MAX)
        scores = joined.numpy()
    return scores + cosines * candidates if config.loss == "itc" else scores


def _parts(
    texts: Iterable[Encoded], candidates: np.ndarray, size: int
) -> Iterator[tuple[Encoded, int, np.ndarray, np.ndarray]]:
    """Yield candidates in parts of up to `size`: texts of a batch, the number of its first one, rows of texts
    in it and rows of images."""
    start = 0
    for text in texts:
        count = text.text.shape[0]
        rows, columns = np.nonzero(candidates[start : start + count])
        for low in range(0, len(rows), size):
            yield text, start, rows[low : low + size], columns[low : low + size]
        start += count
