"""Two-stage scores for retrieval: candidates by the towers' cosines, then re-ranking by ITM."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import Tensor
from tqdm import tqdm

from unimo.errors import DataError
from unimo.metrics.average import gather_objects
from unimo.metrics.recall import retrieval_recall
from unimo.models.base import Model, select_images
from unimo.nn.outputs import Encoded
from unimo.tasks.base import Batch, to_tensors

NOT_A_CANDIDATE = -100.0


class Scorer(Protocol):
    """Scores pairs of texts and images (`MatchingTask`)."""

    model: Model
    config: Any

    def text_vectors(self, text: Encoded) -> Tensor | None:
        """Unit vectors [B, E] of texts, or None where there is no first stage."""

    def image_vectors(self, image: Encoded) -> Tensor | None:
        """Unit vectors [B, E] of images, or None where there is no first stage."""

    def match_logits(self, text: Encoded, image: Encoded) -> Tensor:
        """Logits [N, 2] of N pairs; class 1 is a match."""


@dataclass
class Gallery:
    """Tower outputs of all texts and of all unique images of a split, each computed once.

    Attributes:
        texts: one `Encoded` for each batch; lengths differ between batches.
        images: one `Encoded`, Ni rows.
        cosines: [Nt, Ni] of the unit vectors that the task has for a first stage; None without one.
        text_ids: Nt sample ids, and image_ids: Ni.
        image_of_text: [Nt] row of the image that each text belongs to.
    """

    texts: list[Encoded]
    images: Encoded
    cosines: np.ndarray | None
    text_ids: list[str]
    image_ids: list[str]
    image_of_text: np.ndarray

    @classmethod
    def collect(cls, task: Scorer, batches: Iterable[Batch]) -> Gallery:
        """Run the towers over all batches.

        Raises:
            DataError: there is no batch, or the ranks were given different ones.
        """
        texts, images, text_vectors, image_vectors = [], [], [], []
        text_ids: list[str] = []
        row_of: dict[int, int] = {}
        image_ids: list[str] = []
        image_of_text: list[int] = []
        for batch in batches:
            tensors = to_tensors(batch)
            text = task.model.encode_text(tensors.input_ids, tensors.attention_mask)
            texts.append(text)
            text_vectors.append(task.text_vectors(text))
            groups = np.asarray(batch.image_group).tolist()
            fresh = _first_of_each(groups, row_of)
            image_ids += [batch.image_ids[row] for row in fresh]
            if fresh:
                shown = select_images(tensors.images, paddle.to_tensor(fresh))
                image = task.model.encode_image(shown)
                images.append(image)
                image_vectors.append(task.image_vectors(image))
            text_ids.extend(batch.sample_ids)
            image_of_text.extend(row_of[group] for group in groups)
        if not texts:
            raise DataError("retrieval was given no pairs to evaluate")
        if len(set(gather_objects((len(text_ids), len(row_of))))) > 1:
            raise DataError("retrieval needs the same pairs on every rank; give each rank the whole split")
        return cls(
            texts,
            concat_rows(images),
            _cosines(text_vectors, image_vectors),
            text_ids,
            image_ids,
            np.asarray(image_of_text),
        )

    def recall(self, scores: np.ndarray) -> dict[str, float]:
        """IR and TR recall at 1, 5 and 10 in percent, and their sum, for scores [Nt, Ni]."""
        return retrieval_recall(scores, self.image_of_text, np.arange(len(self.image_ids)))

    def best_images(self, scores: np.ndarray, count: int) -> list[dict[str, Any]]:
        """For each text the ids of its best images."""
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        rows = zip(self.text_ids, order.tolist(), strict=True)
        return [{"sample_id": key, "image_ids": [self.image_ids[i] for i in row]} for key, row in rows]


def score_pairs(task: Scorer, gallery: Gallery) -> np.ndarray:
    """Scores [Nt, Ni]: the ITM logit of a match for candidates, below all of them for other pairs.

    A pair is a candidate when it is among the best of its text or of its image. BridgeTower scores both
    directions apart and takes the larger; the fusion is the same, so it runs once here.
    """
    config, cosines = task.config, gallery.cosines
    if cosines is None or config.exhaustive:
        candidates = np.ones((len(gallery.text_ids), len(gallery.image_ids)), bool)
    else:
        candidates = _candidates(cosines, config.candidates)
    # The cosine keeps the order of the first stage among the pairs that are not re-ranked.
    scores = NOT_A_CANDIDATE + (np.zeros(candidates.shape, np.float32) if cosines is None else cosines)
    start = 0
    rank, world_size = dist.get_rank(), dist.get_world_size()
    pairs, turn = int(candidates.sum()), itertools.count()
    with tqdm(total=pairs, desc="re-ranking pairs", unit="pair", disable=rank > 0, mininterval=5.0) as bar:
        for text in gallery.texts:
            size = text.text.shape[0]
            rows, columns = np.nonzero(candidates[start : start + size])
            for low in range(0, len(rows), config.fusion_batch_size):
                part = slice(low, low + config.fusion_batch_size)
                bar.update(len(rows[part]))
                if next(turn) % world_size == rank:
                    logits = _fuse(task, text, gallery.images, rows[part], columns[part])
                    scores[start + rows[part], columns[part]] = logits
            start += size
    return _join(scores, candidates, rank)


def _cosines(texts: list[Tensor | None], images: list[Tensor | None]) -> np.ndarray | None:
    """Of all texts with all images, [Nt, Ni], where there are vectors of both."""
    if any(part is None for part in (*texts, *images)):
        return None
    return paddle.concat(texts).numpy() @ paddle.concat(images).numpy().T


def _fuse(task: Scorer, text: Encoded, images: Encoded, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    pairs = text.select(paddle.to_tensor(rows)), images.select(paddle.to_tensor(columns))
    return task.match_logits(*pairs)[:, 1].astype("float32").numpy()


def _join(scores: np.ndarray, candidates: np.ndarray, rank: int) -> np.ndarray:
    """Put together what each rank scored; a pair that a rank did not score is at its lowest there."""
    if dist.get_world_size() == 1:
        return scores
    joined: Tensor = paddle.to_tensor(scores)
    dist.all_reduce(joined, op=dist.ReduceOp.MAX)
    return joined.numpy()


def _candidates(cosines: np.ndarray, count: int) -> np.ndarray:
    chosen = np.zeros(cosines.shape, bool)
    best_images = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    best_texts = np.argsort(-cosines, axis=0, kind="stable")[:count]
    np.put_along_axis(chosen, best_images, True, axis=1)
    np.put_along_axis(chosen, best_texts, True, axis=0)
    return chosen


def _first_of_each(groups: list[int], row_of: dict[int, int]) -> list[int]:
    """Batch rows of images not seen before; they get the next gallery rows."""
    fresh = []
    for row, group in enumerate(groups):
        if group not in row_of:
            row_of[group] = len(row_of)
            fresh.append(row)
    return fresh


def concat_rows(parts: list[Encoded]) -> Encoded:
    """Join `Encoded`s along the batch; shorter ones get rows of zeros, which their masks, zero too, hide."""
    rest = parts[1:]
    streams = [iter(_tensors(part)) for part in rest]
    return parts[0].map(lambda tensor: _concat([tensor, *(next(stream) for stream in streams)]))


def _concat(tensors: list[Tensor]) -> Tensor:
    if tensors[0].ndim < 2:
        return paddle.concat(tensors)
    longest = max(tensor.shape[1] for tensor in tensors)
    padded = []
    for tensor in tensors:
        size, length, *others = tensor.shape
        missing = paddle.zeros([size, longest - length, *others], tensor.dtype)
        padded.append(tensor if length == longest else paddle.concat([tensor, missing], axis=1))
    return paddle.concat(padded)


def _tensors(encoded: Encoded) -> list[Tensor]:
    found: list[Tensor] = []
    encoded.map(lambda tensor: found.append(tensor) or tensor)
    return found
