"""Small batches for CMCL, the loss of them in Paddle, and the same from Eqs (6), (7) in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import paddle

from unimo.losses.cmcl import Bank, Pairs, Rewrites, cmcl_loss

WIDTH, TEMPERATURE = 4, 0.4
# Inputs whose gradients are compared.
LEAVES = ("image_vectors", "text_vectors", "pair_scores", "weight", "temperature")


@dataclass(frozen=True)
class Part:
    """Arrays of one rank."""

    image_ids: np.ndarray
    text_ids: np.ndarray
    own_images: np.ndarray
    own_texts: np.ndarray
    related_images: np.ndarray
    related_texts: np.ndarray
    pair_rows: np.ndarray
    positive: np.ndarray
    image_vectors: np.ndarray
    text_vectors: np.ndarray
    pair_scores: np.ndarray
    weight: np.ndarray
    temperature: np.ndarray


def part(seed, images, texts, own_images=(), own_texts=(), related=((), ()), rewrites=(), width=2) -> Part:
    """Random vectors and scores for given ids; `rewrites` lists (pair, positive)."""
    rng = np.random.default_rng(seed)
    whole = [np.array(x, np.int64) for x in (images, texts, own_images, own_texts)]
    beside = [np.array(ids, np.int64).reshape(len(own_images), width) for ids in related]
    rows = np.array([pair for pair, _ in rewrites], np.int64)
    positive = np.array([kind for _, kind in rewrites], bool)
    vectors = [rng.standard_normal((len(ids), WIDTH)) for ids in (images, texts)]
    weight = np.eye(WIDTH) + 0.2 * np.random.default_rng(99).standard_normal((WIDTH, WIDTH))
    scores = rng.standard_normal(len(rows))
    arrays = [array.astype(np.float32) for array in (*vectors, scores, weight, np.array(TEMPERATURE))]
    return Part(*whole, *beside, rows, positive, *arrays)


def first_rank() -> Part:
    """Three pairs, two of them with image 7; relations to what the other rank holds (31, 205) as well."""
    return part(
        0,
        images=[7, 3, 20, 21],
        texts=[100, 101, 102, 200],
        own_images=[0, 1, 0],
        own_texts=[0, 1, 2],
        related=([[20, 21], [-1, 20], [31, -1]], [[200, 999], [-1, -1], [205, 200]]),
        rewrites=[(0, 1), (0, 0), (2, 0), (1, 1), (0, 1), (2, 1), (1, 0), (1, 0)],
    )


def second_rank() -> Part:
    """Two pairs, one of them with image 7 again; image 20 is on the first rank as well."""
    return part(
        1,
        images=[5, 20, 31, 7],
        texts=[103, 205, 104],
        own_images=[0, 3],
        own_texts=[0, 2],
        related=([[31, -1], [20, -1]], [[205, -1], [-1, -1]]),
        rewrites=[(1, 1), (0, 0), (0, 1)],
    )


SECOND_RANKS = {
    "pairs": second_rank,
    "single": lambda: part(2, images=[40], texts=[300, 301]),
    "nothing": lambda: part(3, images=[], texts=[]),
}


def join(one: Part, two: Part) -> Part:
    """Both as one rank would hold them; rows of the second move behind those of the first."""
    moves = {
        "own_images": len(one.image_ids),
        "own_texts": len(one.text_ids),
        "pair_rows": len(one.own_images),
    }
    names = [name for name in vars(one) if name not in ("weight", "temperature")]
    both = {name: [getattr(one, name), getattr(two, name) + moves.get(name, 0)] for name in names}
    both["positive"][1] = two.positive
    return replace(one, **{name: np.concatenate(arrays) for name, arrays in both.items()})


def run(batch: Part) -> dict:
    """Loss, report and gradients of the leaves, as Paddle gives them on this rank."""
    fixed = {n: paddle.to_tensor(x) for n, x in vars(batch).items() if n not in LEAVES}
    leaves = {n: paddle.to_tensor(getattr(batch, n), stop_gradient=False) for n in LEAVES}
    loss, report = cmcl_loss(
        Pairs(fixed["own_images"], fixed["own_texts"], fixed["related_images"], fixed["related_texts"]),
        Rewrites(leaves["pair_scores"], fixed["pair_rows"], fixed["positive"]),
        Bank(leaves["image_vectors"], fixed["image_ids"]),
        Bank(leaves["text_vectors"], fixed["text_ids"]),
        lambda a, b: paddle.matmul(paddle.matmul(a, leaves["weight"]), b, transpose_y=True),
        leaves["temperature"],
    )
    loss.backward()
    result = {"loss": float(loss), **{name: float(value) for name, value in report.items()}}
    for name, leaf in leaves.items():
        result[name] = None if leaf.grad is None else leaf.grad.numpy().tolist()
    return result


def reference(batch: Part) -> dict[str, float]:
    """Eqs (6), (7) pair by pair in float64, candidates by id."""
    pictures, sentences = {}, {}
    for number, vector in zip(batch.image_ids, batch.image_vectors, strict=True):
        pictures.setdefault(int(number), vector.astype(np.float64))
    for number, vector in zip(batch.text_ids, batch.text_vectors, strict=True):
        sentences.setdefault(int(number), vector.astype(np.float64))
    v_ids, w_ids = batch.image_ids[batch.own_images], batch.text_ids[batch.own_texts]
    weight, tau = batch.weight.astype(np.float64), float(batch.temperature)

    def exp(score: float) -> float:
        return np.exp(score / tau)

    losses, hits, sizes = [], [], []
    for p, (v_row, w_row) in enumerate(zip(batch.own_images, batch.own_texts, strict=True)):
        v_id, w_id = int(v_ids[p]), int(w_ids[p])
        kin = np.flatnonzero((v_ids == v_id) | (w_ids == w_id))
        known_i, known_t = set(v_ids[kin].tolist()), set(w_ids[kin].tolist())
        known_i |= set(batch.related_images[kin].ravel().tolist())
        known_t |= set(batch.related_texts[kin].ravel().tolist())
        v, w = batch.image_vectors[v_row].astype(np.float64), batch.text_vectors[w_row].astype(np.float64)
        related_i, related_t = set(batch.related_images[p].tolist()), set(batch.related_texts[p].tolist())
        mine = [
            (float(batch.pair_scores[m]), batch.positive[m]) for m in np.flatnonzero(batch.pair_rows == p)
        ]
        pos_p, neg_p = ([exp(s) for s, kind in mine if kind == wanted] for wanted in (True, False))
        pos_i = [exp(x @ weight @ w) for k, x in pictures.items() if k in related_i - {v_id}]
        neg_i = [exp(x @ weight @ w) for k, x in pictures.items() if k not in known_i]
        pos_t = [exp(v @ weight @ x) for k, x in sentences.items() if k in related_t - {w_id}]
        neg_t = [exp(v @ weight @ x) for k, x in sentences.items() if k not in known_t]
        pos, neg = pos_p + pos_i + pos_t, neg_p + neg_i + neg_t
        losses.append(-np.log(sum(pos) / (sum(neg) + sum(pos))))
        hits.append(max(pos) > max(neg, default=0))
        sizes.append(len(neg))
    return {"loss": np.mean(losses), "accuracy": np.mean(hits), "negatives": np.mean(sizes)}


def numerical_gradient(batch: Part, name: str, step: float = 1e-5) -> np.ndarray:
    """Central differences of the reference in one of the leaves."""
    start = np.asarray(getattr(batch, name), np.float64)
    gradient = np.zeros_like(start)
    for place in np.ndindex(*start.shape):
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * step
            sides.append(reference(replace(batch, **{name: moved}))["loss"])
        gradient[place] = (sides[0] - sides[1]) / (2 * step)
    return gradient
