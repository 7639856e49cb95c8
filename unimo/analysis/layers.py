"""The layers of a model side by side (UNIMO-3, Figs. 1 and 4; Eqs (8) and (10)).

CKA: how alike two layers place the same pairs, whatever the axes and the width of each. Distance: how far
from itself a row of an attention reads. Gates: how much each fusion layer lets through of each tower layer.

Legend: N pairs, S rows, W width, H heads, L layers.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from unimo.analysis.attention import grid_boxes
from unimo.errors import CapabilityError, DataError
from unimo.models.base import Model, Part
from unimo.models.unimo3.cross_layer import CrossLayerLinks
from unimo.nn.outputs import Encoded
from unimo.tasks.base import to_tensors

Progress = Callable[..., Iterable[Any]]
"""Wraps an iterable as `unimo.progress.tracked` does."""
TOWERS = ("text", "image")


@dataclass(frozen=True)
class Layers:
    """The figures of one model."""

    model: str
    """Title."""
    pairs: int
    """N."""
    cka: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """Two towers -> [L, L'], embeddings first; nothing for a model without towers."""
    distances: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)
    """Attention -> layer -> [H] mean distance: of parts of a picture in its sides, of tokens in tokens."""
    gates: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Tower -> [fusion layers, tower layers + 1] mean gate, NaN where there is no link."""


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the linear CKA of features [N, W] and [N, W'] of the same N samples, from 0 to 1.

    ||Y^T X||^2 / (||X^T X|| ||Y^T Y||), Frobenius norms of centred features (Kornblith et al., 2019, Eq. 4);
    UNIMO-3 names HSIC, on which it rests, and no kernel.
    """
    return _cka(_gram(x), _gram(y))


def _gram(x: np.ndarray) -> np.ndarray:
    """X X^T [N, N] of centred features, of length 1: CKA is then a scalar product."""
    x = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    gram = x @ x.T
    return gram / max(float(np.linalg.norm(gram)), 1e-300)


def _cka(first: np.ndarray, second: np.ndarray) -> float:
    return float((first * second).sum())


def attention_distance(weights: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Compute the mean distance between a row and what it reads, weighted by its attention.

    Rows are averaged. Attention to anything else, such as a class token, is left out, and the rest is made to
    sum to 1 (as for patches in Dosovitskiy et al., 2021, Fig. 7).

    Args:
        weights: [H, S, S].
        places: [S, 2] or [S, 1], of rows and columns.

    Returns:
        [H].
    """
    between = np.linalg.norm(places[:, None] - places[None], axis=2)
    sums = np.maximum(weights.sum(axis=2), 1e-12)
    return ((weights * between).sum(axis=2) / sums).mean(axis=1)


def collect(title: str, model: Model, batches: Sequence[Any], progress: Progress) -> Layers:
    """Run a model on batches of pairs (`RetrievalBatch`), and compare its layers.

    The vector of a pair in a layer is the mean of its rows there, padding left out.

    Args:
        title: title of the model.
        model: in evaluation mode.
        batches: of images with texts.
        progress: wraps them.

    Raises:
        CapabilityError: the model returns neither states of tower layers nor attentions.
        DataError: there are fewer than two pairs.
    """
    vectors: dict[str, list[list[np.ndarray]]] = {tower: [] for tower in TOWERS}
    distances: dict[str, dict[int, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    pairs = 0
    with paddle.no_grad(), _watched(model) as gates:
        for batch in progress(batches, title):
            tensors = to_tensors(batch)
            text = model.encode_text(tensors.input_ids, tensors.attention_mask, layers=True, attentions=True)
            image = model.encode_image(tensors.images, layers=True, attentions=True)
            fused = model.fuse(text, image, attentions=True)
            vectors["text"].append([_mean_rows(x, text.text_mask) for x in text.text_layers])
            vectors["image"].append([_mean_rows(x, image.image_mask) for x in image.image_layers])
            _add_distances(model, (text, image, fused), batch, distances)
            pairs += len(batch.input_ids)
    if pairs < 2:
        raise DataError(f"{pairs} pairs of image and text; expected two or more")
    grams = {
        tower: [_gram(np.concatenate(parts)) for parts in zip(*found, strict=True)]
        for tower, found in vectors.items()
        if len(found[0]) > 1  # the embeddings alone are no tower
    }
    if not grams and not distances:
        raise CapabilityError(
            f"{title} ({model.config.name}) returns neither states of tower layers nor attentions; give a "
            "model of another family, such as --model output/unimo3_tiny_pretrain"
        )
    return Layers(
        title,
        pairs,
        {
            (first, second): np.array([[_cka(a, b) for b in grams[second]] for a in grams[first]])
            for first, second in (("text", "text"), ("image", "image"), ("text", "image"))
            if first in grams and second in grams
        },
        {
            name: {layer: np.concatenate(found).mean(axis=0) for layer, found in sorted(layers.items())}
            for name, layers in distances.items()
        },
        {tower: _table(found) for tower, found in gates.items() if found},
    )


def _mean_rows(states: Tensor, mask: Tensor | None) -> np.ndarray:
    """Average states [B, S, W] over the rows of each sample."""
    if mask is None:
        return states.astype("float32").mean(axis=1).numpy()
    weights = mask.astype("float32").unsqueeze(2)
    return ((states.astype("float32") * weights).sum(axis=1) / weights.sum(axis=1)).numpy()


def _add_distances(
    model: Model, passes: Sequence[Encoded], batch: Any, found: dict[str, dict[int, list[np.ndarray]]]
) -> None:
    """Add the distances [1, H] of every sample in every attention of rows to rows of their own kind."""
    text, image, fused = passes
    sizes: dict[Part, int] = {"image": image.image.shape[1], "text": text.text.shape[1]}
    if fused.grounded_ids is not None:
        sizes["grounded"] = fused.grounded_ids.shape[1]
    places = {part: _places(part, batch, sizes["image"]) for part in TOWERS}
    for name, weights in {**text.attentions, **image.attentions, **fused.attentions}.items():
        kind, _, layer = name.rpartition(".")
        for part in TOWERS:
            block = model.attention_axes[kind].cut(weights, sizes, part, part)
            if block is None or 0 in block.shape:
                continue
            label = f"{part} in {kind.replace('_', ' ')}"
            for number, sample in enumerate(block.astype("float32").numpy()):
                first = 1 if part == "image" else 0  # without the class token
                rows = slice(first, first + len(places[part][number]))
                distance = attention_distance(sample[:, rows, rows], places[part][number])
                found[label][int(layer)].append(distance[None])


def _places(part: str, batch: Any, rows: int) -> list[np.ndarray]:
    """Return where the rows of each sample are: numbers of tokens, or centres in sides of the picture."""
    if part == "text":
        return [np.arange(length, dtype=np.float32)[:, None] for length in batch.attention_mask.sum(axis=1)]
    if isinstance(batch.images, Mapping):
        pairs = zip(batch.images["locations"], batch.images["mask"], strict=True)
        return [_centres(boxes[mask > 0, :4]) for boxes, mask in pairs]
    return [_centres(grid_boxes(isqrt(rows - 1)))] * len(batch.input_ids)


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


@contextlib.contextmanager
def _watched(model: Model) -> Iterator[dict[str, dict[tuple[int, int], list[float]]]]:
    """Note the mean gates of every batch: tower -> (fusion layer, tower layer) -> means."""
    found: dict[str, dict[tuple[int, int], list[float]]] = {}
    hooks = []
    for name, links in model.named_sublayers():
        if isinstance(links, CrossLayerLinks):
            own = found.setdefault("text" if "text" in name else "image", defaultdict(list))

            def note(links: CrossLayerLinks, inputs: tuple[Any, ...], own: Any = own) -> None:
                for k, gate in links.open_gates(*inputs).items():
                    own[inputs[0], k].append(float(gate.mean()))

            hooks.append(links.register_forward_pre_hook(note))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _table(means: Mapping[tuple[int, int], Sequence[float]]) -> np.ndarray:
    table = np.full([max(layer for layer, _ in means), 1 + max(k for _, k in means)], np.nan)
    for (layer, k), values in means.items():
        table[layer - 1, k] = np.mean(values)
    return table
