"""Negatives that objectives and tasks take in a batch in which every picture stands twice.

    python tests/support/duplicate_captions.py OUTPUT

The batch holds pictures A A B C B C with six captions. Of two ranks one has A A B C and the other B C, so
copies of a picture are on one rank or on both, and the ranks hold different numbers of pairs. Each rank
writes `facts-RANK.json`: case -> `facts`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import paddle
from micro import make_run, make_task
from micro_unimo import UNIMO
from micro_unimo2 import MODEL as UNIMO2
from paddle import Tensor, nn

from unimo import cli, distributed
from unimo.data.loading.batch import Batch
from unimo.data.loading.loader import read_batch
from unimo.data.loading.sampler import SampleKey
from unimo.data.loading.task_data import TaskData
from unimo.nn.outputs import Encoded
from unimo.settings import TrainConfig
from unimo.tasks.base import Task, to_tensors

CAPTIONS = ((0, 1, 4, 8), (5, 9))
"""Numbers of the captions of each rank; caption n is of picture n // 4."""
PICTURES = 3
DRAWS = 10
"""Batches of each case, whose negatives are drawn anew."""
HARD = {"objective": {"itm_negatives": "hard"}}
CASES: dict[str, dict[str, Any]] = {
    "unimo-cmcl": {**UNIMO, "task": {"augment": {"mismatched": 2}}},
    "unimo-itm": {**UNIMO, "model": {**UNIMO["model"], "objective": {"contrast": "itm"}}},
    "unimo2-random": {"model": UNIMO2},
    "unimo2-contrast": {"model": {**UNIMO2, "objective": {"contrastive": True}}},
    "unimo2-hard": {"model": {**UNIMO2, **HARD}},
    "unimo2-hard-parts": {"model": {**UNIMO2, **HARD}, "data": {"texts": ["scenes"], "images": ["scenes"]}},
    "unimo3-random": {},
    "unimo3-hard": {"model": HARD},
    "retrieval-itc": {},
    "retrieval-circle": {**UNIMO, "task": {"loss": "circle", "negatives": 6}},
}


def facts(case: str, ranks: Sequence[int]) -> dict[str, list[Any]]:
    """Find what a case takes for matches and for negatives.

    Args:
        case: a key of `CASES`.
        ranks: whose captions this process holds: both, or its own.

    Returns:
        `judged`: [label, picture of the text, picture of the image] of every pair that the fusion judged, in
        all draws. `compared`: [picture of a text, picture of an image, derivative of the contrastive loss by
        their similarity] of texts and images of the global batch, where all are equally similar.
    """
    kind = case.partition("-")[0]
    run = make_run("retrieval" if kind == "retrieval" else "pretrain", **CASES[case])
    task, _, data = make_task(run)
    task.eval()
    found: dict[str, list[Any]] = {"judged": [], "compared": []}
    for draw in range(DRAWS):
        found["judged"] += judged(task, data, ranks, draw)
    batch = read(data, ranks, 0)
    if case == "unimo-cmcl":
        found["compared"] = compared_in_cmcl(task, batch, ranks)
    elif hasattr(task, "itc_text_head") or hasattr(getattr(task, "objective", None), "itc_text_head"):
        found["compared"] = compared_in_itc(task, batch, ranks)
    return found


def read(data: TaskData, ranks: Sequence[int], draw: int) -> Batch:
    """Read the captions of some ranks, with texts and images alone where the task mixes those in."""
    corpora = data.train_datasets()
    keys = [SampleKey("scenes", number, draw) for rank in ranks for number in CAPTIONS[rank]]
    assert len({corpora["scenes"][key.index].text for key in keys}) == len(keys)
    keys += [SampleKey(name, rank, draw) for name in corpora if name != "scenes" for rank in ranks]
    return to_tensors(read_batch(corpora, data.collator(True), keys, draw, *ranks)[0])


def pictures_of(batch: Batch, ranks: Sequence[int]) -> list[int]:
    """Number the picture of each pair; batches of retrieval may have more pairs than the ranks."""
    if hasattr(batch, "image_ids"):
        return [int(name.split("-")[1]) for name in batch.image_ids]
    return [number // 4 for rank in ranks for number in CAPTIONS[rank]]


def judged(task: Task, data: TaskData, ranks: Sequence[int], draw: int) -> list[list[int]]:
    """List what the fusion judges in one forward pass: label, picture of the text, picture of the image."""
    model, labels, passes = task.model, [], []
    batch = read(data, ranks, draw)
    texts, images = references(model, batch)
    text_pictures = image_pictures = pictures_of(batch, ranks)
    if len(ranks) == 1:
        other = read(data, [1 - ranks[0]], draw)
        images = np.concatenate([images, references(model, other)[1]])
        image_pictures = image_pictures + pictures_of(other, [1 - ranks[0]])

    def spy(name: str) -> Any:
        original = getattr(model, name)

        def wrapped(text: Encoded | None, image: Encoded | None, **options: Any) -> Any:
            if text is not None and image is not None and options.get("outputs", "pooled") == "pooled":
                passes.append((states(text), states(image)))
            return original(text, image, **options)

        return patch.object(model, name, wrapped)

    owner = sys.modules[type(getattr(task, "objective", task)).__module__]
    with ExitStack() as stack, paddle.no_grad():
        stack.enter_context(spy("interact" if hasattr(model, "interact") else "fuse"))
        if hasattr(owner, "matching_loss"):
            loss = owner.matching_loss

            def keep(logits: Tensor, given: Tensor) -> Any:
                labels.extend(given.tolist())
                return loss(logits, given)

            stack.enter_context(patch.object(owner, "matching_loss", keep))
        task.losses(batch)
    if hasattr(batch, "negative_images"):
        pairs, count = batch.negative_images.shape
        labels = ([1] + 2 * count * [0]) * pairs
    elif not labels:  # CMCL: the pairs, then captions that are read with them
        labels = [1] * len(batch.pairs.contrast.image_row) + batch.pairs.contrast.rewrite_positive.tolist()
    text, image = (rows[-len(labels) :] for rows in passes[-1])
    text_rows, image_rows = nearest(text, texts), nearest(image, images)
    return [
        [int(label), text_pictures[row], image_pictures[column]]
        for label, row, column in zip(labels, text_rows, image_rows, strict=True)
    ]


def references(model: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Encode the texts and the images of the pairs of a batch, one row each."""
    pairs = getattr(batch, "pairs", batch)
    with paddle.no_grad():
        if hasattr(pairs, "contrast"):
            contrast = pairs.contrast
            text = model.encode_text(**contrast.captions).select(contrast.text_row)
            image = model.encode_image(contrast.regions).select(contrast.image_row)
        else:
            text = model.encode_text(pairs.input_ids, pairs.attention_mask)
            image = model.encode_image(pairs.images)
    return states(text), states(image)


def states(encoded: Encoded) -> np.ndarray:
    """Flatten what a tower hands to the fusion, one row a text or image."""
    found: list[Tensor] = []
    encoded.map(lambda tensor: found.append(tensor) or tensor)
    last = [tensor for tensor in found if tensor.ndim == 3][-1]
    return last.mean(axis=1).numpy()


def nearest(rows: np.ndarray, known: np.ndarray) -> list[int]:
    """Find the known row that each row equals."""
    distances = np.abs(rows[:, None] - known[None]).max(axis=2)
    assert distances.min(axis=1).max() < 1e-4
    return distances.argmin(axis=1).tolist()


class Given(nn.Layer):
    """Gives rows of an identity matrix in place of a head, and keeps them for their gradient."""

    def __init__(self, rows: Sequence[int], size: int) -> None:
        super().__init__()
        vectors = np.eye(size, dtype="float32")[list(rows)]
        self.vectors = paddle.to_tensor(vectors, stop_gradient=False)

    def forward(self, encoded: Any) -> Tensor:
        """Give the vectors, whatever the head was asked for."""
        return self.vectors


def compared_in_itc(task: Task, batch: Batch, ranks: Sequence[int]) -> list[list[float]]:
    """List the derivatives of ITC: vectors of all texts and images are orthogonal, so all cosines are 0."""
    numbers = [number for rank in CAPTIONS for number in rank]
    own = [numbers.index(number) for rank in ranks for number in CAPTIONS[rank]]
    size, holder = len(numbers), getattr(task, "objective", task)
    holder.itc_text_head = text = Given(own, 2 * size)
    holder.itc_image_head = image = Given([size + row for row in own], 2 * size)
    losses, _ = task.losses(batch)
    losses["itc"].backward()
    by_text, by_image = text.vectors.grad.numpy(), image.vectors.grad.numpy()
    rows = [
        [numbers[one] // 4, numbers[other] // 4, float(value)]
        for place, one in enumerate(own)
        for other, value in enumerate(by_text[place, size:])
    ]
    return rows + [
        [numbers[other] // 4, numbers[one] // 4, float(value)]
        for place, one in enumerate(own)
        for other, value in enumerate(by_image[place, :size])
    ]


def compared_in_cmcl(task: Task, batch: Batch, ranks: Sequence[int]) -> list[list[float]]:
    """List the derivatives of CMCL by similarities of images and texts that are encoded alone."""
    numbers = [number for rank in CAPTIONS for number in rank]
    own = [numbers.index(number) for rank in ranks for number in CAPTIONS[rank]]
    seen = list(dict.fromkeys(numbers[row] // 4 for row in own))
    size = PICTURES + len(numbers)
    text, image = Given([PICTURES + row for row in own], size), Given(seen, size)
    model = task.model
    with ExitStack() as stack:
        for name, fake in (
            ("text_vector", text),
            ("image_vector", image),
            ("match_all", lambda one, other: paddle.matmul(one, other, transpose_y=True)),
            ("score", lambda pooled: paddle.zeros([pooled.shape[0]])),
        ):
            stack.enter_context(patch.object(model, name, fake.forward if isinstance(fake, Given) else fake))
        losses, _ = task.losses(batch)
    losses["cmcl"].backward()
    by_text, by_image = text.vectors.grad.numpy(), image.vectors.grad.numpy()
    rows = [
        [numbers[one] // 4, picture, float(by_text[place, picture])]
        for place, one in enumerate(own)
        for picture in range(PICTURES)
    ]
    return rows + [
        [number // 4, picture, float(by_image[place, PICTURES + other])]
        for place, picture in enumerate(seen)
        for other, number in enumerate(numbers)
    ]


def main() -> None:
    """Write the facts of all cases on this rank."""
    distributed.setup(TrainConfig(device="cpu"))
    rank = distributed.rank()
    found = {case: facts(case, [rank]) for case in CASES}
    (Path(sys.argv[1]) / f"facts-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    cli.run(main)
