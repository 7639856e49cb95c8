"""One optimizer step of each contrastive objective, as one batch or as rounds of it, on one rank or on two.

    python tests/support/rounds_case.py OUTPUT CASE ROUNDS [drawn]

Each rank takes its share of the four parts of `CASES[CASE]` in that many rounds. Rank 0 writes `loss.json`;
every rank writes the averaged gradients to `gradients-RANK.safetensors`.

Hard negatives of ITM are drawn within a round, so they would differ from those of the joined batch: here the
next pair of the same part takes the place of the drawn one. With `drawn`, for a single round, chance draws
those of VLMo, and every rank writes them to `drawn-RANK.json`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from joined_unified import batch_from
from joined_unpaired import masked_texts
from rank_step import join_fields, write_step
from small_models import set_parameters

from unimo import cli, distributed
from unimo.data.images.transforms import bytes_to_pixels
from unimo.losses.contrastive import Contrast, PairVectors, gather_rows, row_counts, rows_before
from unimo.models import objective
from unimo.models.base import Model
from unimo.models.batches import MaskedImageBatch, MaskedTextBatch, PretrainBatch
from unimo.models.paper import PretrainConfig
from unimo.models.semvlp.batches import PretrainBatch as SemVlpBatch
from unimo.models.semvlp.config import PretrainingConfig as SemVlpConfig
from unimo.models.unimo.batches import UnifiedBatch
from unimo.models.unimo.config import AugmentConfig, PretrainingConfig
from unimo.models.unimo2.batches import UnpairedBatch, ViewsBatch
from unimo.models.vlmo import pretrain as vlmo
from unimo.models.vlmo.batches import PretrainBatch as VlmoBatch
from unimo.models.vlmo.config import PretrainingConfig as VlmoConfig
from unimo.models.vlmo.pretrain import draw_both
from unimo.registry import create_model
from unimo.settings import OptimConfig, RunConfig, TrainConfig
from unimo.tasks.base import Batch, Task
from unimo.tasks.pretrain import PretrainTask
from unimo.tasks.retrieval import task as retrieval
from unimo.tasks.retrieval.batches import RetrievalBatch
from unimo.training.loop import take_step
from unimo.training.precision import Precision
from unimo.training.state import StepReport, TrainState

SEED = 5
PARTS, SIZE, LENGTH, SIDE, VOCABULARY = 4, 8, 9, 32, 50
LAYER = {"hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "num_layers": 2}
TOWERS: dict[str, Any] = {
    "text": {**LAYER, "vocab_size": VOCABULARY},
    "vision": {**LAYER, "image_size": SIDE, "patch_size": 16},
    "fusion": LAYER,
}


def next_rows(count: int) -> np.ndarray:
    """The next row of the same part, for `count` rows."""
    rows = np.arange(count)
    return rows // SIZE * SIZE + (rows + 1) % SIZE


def draw_next(contrast: Contrast, matched: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """In the place of `draw_hard_images`."""
    own = contrast.own_rows
    group = paddle.gather(contrast.groups, own)
    rows = paddle.where(matched == 1, own, own[0] + paddle.to_tensor(next_rows(len(own))))
    return rows, (paddle.gather(contrast.groups, rows) == group).astype("int64")


def draw_next_row(scores: paddle.Tensor, group: paddle.Tensor) -> paddle.Tensor:
    """In the place of `hard_negatives`."""
    return paddle.to_tensor(next_rows(len(group)))


def draw_next_both(vectors: PairVectors, temperature: paddle.Tensor, candidates: int) -> vlmo.Drawn:
    """In the place of VLMo's `draw_both`."""
    counts = row_counts(len(vectors.group))
    rows = rows_before(counts) + paddle.to_tensor(next_rows(len(vectors.group)))
    group = gather_rows(vectors.group, counts)
    labels = (paddle.gather(group, rows) == vectors.group).astype("int64")
    return vlmo.Drawn(rows, rows, labels, labels, counts)


def draw_and_note(noted: list[dict[str, list[int]]]) -> Callable[..., vlmo.Drawn]:
    """VLMo's `draw_both`, which also adds the drawn rows and the groups of those that ask to a list."""

    def draw(vectors: PairVectors, temperature: paddle.Tensor, candidates: int) -> vlmo.Drawn:
        drawn = draw_both(vectors, temperature, candidates)
        rows = {"images": drawn.images, "texts": drawn.texts, "group": vectors.group}
        noted.append({name: values.tolist() for name, values in rows.items()})
        return drawn

    return draw


def pairs_of(part: int) -> PretrainBatch:
    """Eight pairs. The first picture is that of every part; each part has its own number of masked tokens."""
    rng = np.random.default_rng(part)
    text = masked_texts(rng, SIZE)
    kept = len(text["mlm_positions"]) * (part + 1) // PARTS
    text |= {name: text[name][:kept] for name in ("mlm_positions", "mlm_labels")}
    return PretrainBatch(
        images=rng.normal(size=(SIZE, 3, SIDE, SIDE)).astype(np.float32),
        itm_image_index=np.where(np.arange(SIZE) % 2, next_rows(SIZE), np.arange(SIZE)),
        itm_labels=1 - np.arange(SIZE) % 2,
        image_group=np.where(np.arange(SIZE), part * SIZE + np.arange(SIZE), 0),
        **text,
    )


def join_pairs(parts: Sequence[int]) -> PretrainBatch:
    """The pairs of some parts; positions and image rows of later ones move behind those of earlier ones."""
    joined = pairs_of(parts[0])
    for part in parts[1:]:
        pairs, rows = pairs_of(part), joined.input_ids.shape[0]
        moved = dataclasses.replace(
            pairs,
            mlm_positions=pairs.mlm_positions + rows * LENGTH,
            itm_image_index=pairs.itm_image_index + rows,
        )
        joined = join_fields(joined, moved)
    return joined


def join_bytes(parts: Sequence[int]) -> VlmoBatch:
    """The pairs of some parts with images that are bytes."""
    joined = join_pairs(parts)
    scale, shift = bytes_to_pixels("vit")
    rounded = np.clip(np.round((joined.images - shift) / scale), 0, 255)
    joined.images = rounded.astype(np.float32) * scale + shift
    return VlmoBatch(**vars(joined), pixel_scale=scale, pixel_shift=shift)


def three_parts(parts: Sequence[int]) -> UnpairedBatch:
    """Pairs, and other numbers of texts and images in each part."""
    texts = {part: masked_texts(np.random.default_rng(100 + part), 1 + part) for part in parts}
    first = np.cumsum([0, *(len(text["input_ids"]) for text in texts.values())])
    for text, row in zip(texts.values(), first, strict=False):
        text["mlm_positions"] = text["mlm_positions"] + row * LENGTH
    joined = {
        name: sum((text[name] for text in texts.values()), [])
        if name == "sample_ids"
        else np.concatenate([text[name] for text in texts.values()])
        for name in texts[parts[0]]
    }
    views = [
        np.random.default_rng(200 + part).normal(size=(2, 2 + part % 2, 3, SIDE, SIDE)) for part in parts
    ]
    both = np.concatenate(views, axis=1).astype(np.float32)
    names = [str(row) for row in range(both.shape[1])]
    pairs = join_pairs(parts)
    return UnpairedBatch(
        pairs=pairs,
        texts=MaskedTextBatch(**joined),
        images=ViewsBatch(pixels=both[0], pixels_2=both[1], sample_ids=names),
        sample_ids=[*pairs.sample_ids, *joined["sample_ids"], *names],
    )


# Captions 0 to 3 are of one picture; parts share pictures, captions and what is related to them.
UNIFIED = (
    ((0, 1, 5, 9), (2, 13, 5), (3, 17, 21), (5, 25, 0, 30)),
    ((0,), (7, 9, 3), (11,), (0, 2)),
    ((1, 2), (3, 4, 5), (1,), (0, 6)),
)
OPTIONS = PretrainingConfig(
    masking="span", mlm_probability=0.3, seq2seq_probability=0.5, augment=AugmentConfig(mismatched=0)
)


def unified(parts: Sequence[int]) -> UnifiedBatch:
    """Pairs, texts and images of UNIMO, each masked by chance of its own."""
    chosen = [[index for part in parts for index in kind[part]] for kind in UNIFIED]
    return batch_from([chosen], OPTIONS)


def retrieval_pairs(parts: Sequence[int]) -> RetrievalBatch:
    """Captions with their images."""
    pairs = join_pairs(parts)
    names = ("images", "input_ids", "attention_mask", "image_group", "sample_ids")
    return RetrievalBatch(image_ids=pairs.sample_ids, **{name: getattr(pairs, name) for name in names})


def unimo3(**dropout: Any) -> Task:
    model = create_model("unimo3_tiny", **towers(dropout), objective={"itm_negatives": "hard"})
    return PretrainTask(model, PretrainConfig())


def unimo2(**dropout: Any) -> Task:
    model = create_model(
        "unimo2_tiny",
        **towers(dropout),
        grounding={"dictionary_size": 20, "num_tokens": 4},
        objective={"contrastive": True},
    )
    return PretrainTask(model, PretrainConfig())


def unimo(**dropout: Any) -> Task:
    text = {**LAYER, "vocab_size": 300, "init_std": 0.3, **dropout}
    model = create_model("unimo_tiny", text=text, regions={"feature_size": 12, "num_classes": 0})
    return PretrainTask(model, OPTIONS)


def masked_images(parts: Sequence[int]) -> MaskedImageBatch:
    """Two images in each part, with other numbers of masked patches."""
    pixels = np.concatenate([np.random.default_rng(part).normal(size=(2, 3, SIDE, SIDE)) for part in parts])
    masked = np.concatenate([np.arange(2)[:, None] <= np.arange(4) - part for part in parts])
    return MaskedImageBatch(
        images=pixels.astype(np.float32),
        masked=masked,
        mim_positions=np.flatnonzero(masked),
        sample_ids=[f"{part}/{row}" for part in parts for row in range(2)],
    )


def masked_objects(parts: Sequence[int]) -> SemVlpBatch:
    """The pairs of some parts with six regions a picture; later parts have more masked ones and questions."""
    pairs = vars(join_pairs(parts))
    rng, count, regions = np.random.default_rng(0), PARTS * SIZE, 6
    images = {
        "features": rng.normal(size=(count, regions, 12)).astype(np.float32),
        "locations": rng.random((count, regions, 5)).astype(np.float32),
        "mask": np.ones((count, regions), np.int64),
        "masked": (rng.random((count, regions)) < np.arange(1, count + 1)[:, None] / count).astype(np.int64),
    }
    own = np.concatenate([part * SIZE + np.arange(SIZE) for part in parts])
    images = {name: values[own] for name, values in images.items()}
    row, region = np.nonzero(images["masked"] * pairs["itm_labels"][:, None])
    positions, labels = row * (1 + regions) + 1 + region, rng.integers(5, size=(count, regions))[own]
    questions = np.where(own % 8 < 2 * (own // SIZE), own % 3, -1)
    return SemVlpBatch(
        **{**pairs, "images": images},
        object_positions=positions,
        object_features=images["features"][row, region],
        label_positions=positions[region > 1],
        label_labels=labels[row, region][region > 1],
        qa_labels=np.where(pairs["itm_labels"] == 1, questions, -1),
    )


def semvlp(**dropout: Any) -> Task:
    model = create_model(
        "semvlp_tiny",
        text={**LAYER, "vocab_size": VOCABULARY, **dropout},
        regions={"feature_size": 12, "num_classes": 5},
        cross={"start": 1},
        objective={"answers": 3},
    )
    return PretrainTask(model, SemVlpConfig())


def vlmo_model(dropout: dict[str, Any]) -> Model:
    transformer = {**LAYER, "pair_layers": 1, "drop_path": dropout["dropout"]}
    text, vision = {"vocab_size": VOCABULARY}, {"image_size": SIDE}
    return create_model("vlmo_tiny", text=text, vision=vision, transformer=transformer)


def vlmo_of(stage: Any, **dropout: Any) -> Task:
    return PretrainTask(vlmo_model(dropout), VlmoConfig(stage=stage))


def ranking(**dropout: Any) -> Task:
    model = create_model("unimo3_tiny", **towers(dropout))
    return retrieval.RetrievalTask(model, retrieval.RetrievalConfig(itc_size=12))


def dual_encoder(**dropout: Any) -> Task:
    return retrieval.RetrievalTask.create(vlmo_model(dropout), retrieval.RetrievalConfig(loss="itc"))


def towers(dropout: dict[str, Any]) -> dict[str, Any]:
    return {name: {**part, **(dropout if name != "vision" else {})} for name, part in TOWERS.items()}


CASES: dict[str, tuple[Callable[..., Task], Callable[[Sequence[int]], Batch]]] = {
    "unimo3": (unimo3, join_pairs),
    "unimo2": (unimo2, three_parts),
    "unimo": (unimo, unified),
    "retrieval": (ranking, retrieval_pairs),
    "vlmo": (partial(vlmo_of, "vision_language"), join_bytes),
    "vlmo_vision": (partial(vlmo_of, "vision"), masked_images),
    "dual": (dual_encoder, retrieval_pairs),
    "semvlp": (semvlp, masked_objects),
}


def make_task(case: str, dropout: float = 0.0) -> Task:
    """A task with parameters from NumPy that make every part matter."""
    task = CASES[case][0](dropout=dropout, attention_dropout=dropout)
    set_parameters(task)
    for name, parameter in task.named_parameters():
        if name.endswith("temperature"):
            start = 1.5 if "grounding" in name else 0.2  # within the range that it is clipped to
            parameter.set_value(np.full(parameter.shape, start, "float32"))
    task.train()
    return task


def step_of(task: Task, batches: Sequence[Batch]) -> tuple[TrainState, StepReport]:
    """One step of some rounds on this rank, without clipping, decay or rate."""
    ranks = distributed.world_size()
    train = TrainConfig(batch_size=ranks * len(batches), micro_batch_size=1, device="cpu")
    optim = OptimConfig(clip_grad_norm=None, weight_decay=0.0, lr=0.0)
    state = TrainState(RunConfig(train=train, optim=optim), task, Precision("fp32"), loader=None)
    return state, take_step(state, iter(batches))


def main() -> None:
    output, case, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    distributed.setup(TrainConfig(device="cpu"))
    objective.draw_hard_images = draw_next
    retrieval.hard_negatives = draw_next_row
    noted: list[dict[str, list[int]]] = []
    vlmo.draw_both = draw_and_note(noted) if "drawn" in sys.argv else draw_next_both
    task = make_task(case)
    own = np.split(np.arange(PARTS), distributed.world_size())[distributed.rank()]
    batches = [CASES[case][1](part.tolist()) for part in np.split(own, rounds)]
    paddle.seed(SEED)
    state, report = step_of(task, batches)
    for drawn in noted:
        (output / f"drawn-{distributed.rank()}.json").write_text(json.dumps(drawn))
    numbers = dict(zip(report.names, report.values.unbind(0), strict=True))
    losses = {name: value for name, value in numbers.items() if "accuracy" not in name}
    write_step(output, task, state.adamw, state.run.optim.betas[0], losses)


if __name__ == "__main__":
    cli.run(main)
