"""The functions of tensors that are exported of a model, with their inputs, and samples to compare by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from unimo.data.loading.batch import PairBatch
from unimo.data.processor import Processor
from unimo.errors import CapabilityError
from unimo.models.base import Images, Model
from unimo.nn.decoding import DecodingState
from unimo.nn.shapes import length
from unimo.registry import paper_of
from unimo.tasks.base import Task
from unimo.tasks.entailment import EntailmentTask
from unimo.tasks.generation import GenerationTask
from unimo.tasks.pretrain import PretrainTask
from unimo.tasks.retrieval.matching import MatchingTask
from unimo.tasks.vqa import VqaTask

Arrays = Mapping[str, np.ndarray]
Tensors = Mapping[str, Tensor]
SIZES: Sequence[Mapping[str, int]] = (
    {"batch": 1, "text": 5, "regions": 3, "tokens": 0},
    {"batch": 3, "text": 9, "regions": 6, "tokens": 4},
)
"""The two sizes at which exported and live outputs are compared, where an export leaves them open."""


@dataclass(frozen=True)
class Input:
    """An input of a program."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """Sizes; one with a name, a key of `SIZES`, is open."""


@dataclass(frozen=True)
class Graph:
    """A function of tensors."""

    name: str
    run: Callable[[Tensors], dict[str, Tensor]]
    """Inputs by name -> outputs by name."""
    inputs: tuple[Input, ...]
    sample: Callable[[Mapping[str, int]], dict[str, np.ndarray]]
    """Inputs of these sizes, for a comparison."""


def graphs_of(task: Task, processor: Processor) -> list[Graph]:
    """Return what is exported of a trained model.

    `image_encoder` and `text_encoder` of models that encode both alone: the vectors that retrieval compares.
    `fusion` of pairs: `logits` of answers or classes, `score` of retrieval, after pre-training `pooled` and
    the logits `match`. Of captioning `start`, what a decoder keeps of images, and `step`, which appends a
    token: `logits` of the next one.

    Raises:
        CapabilityError: nothing of this task is exported; names the tasks of which something is.
    """
    name = task.config.name
    if isinstance(task, GenerationTask) and name == "caption":
        return list(_decoder(task, processor))
    if not isinstance(task, (VqaTask, EntailmentTask, MatchingTask, PretrainTask)):
        raise CapabilityError(
            f"nothing of a model trained on {name} is exported; of those trained on pretrain, vqa, gqa, "
            "entailment, retrieval or caption something is. Weights of all go with --format safetensors"
        )
    found = list(_encoders(task, processor))
    images, texts = image_inputs(task.model, processor), text_inputs(task.model, processor)

    def fuse(given: Tensors) -> dict[str, Tensor]:
        return _fused(task, PairBatch(**_batch(given), image_group=None, sample_ids=[]))

    return [*found, _graph("fusion", fuse, (*images, *texts), task.model)]


def image_inputs(model: Model, processor: Processor) -> tuple[Input, ...]:
    """Return the inputs that are images: `pixels`, or `features`, `locations` and `region_mask`."""
    if "pixels" in paper_of(model.config.name).capabilities:
        side = processor.config.image_size
        return (Input("pixels", "float32", ("batch", 3, side, side)),)
    regions = "regions" if model.open_lengths else processor.config.max_regions
    return (
        Input("features", "float32", ("batch", regions, model.config.regions.feature_size)),
        Input("locations", "float32", ("batch", regions, 5)),
        Input("region_mask", "int64", ("batch", regions)),
    )


def text_inputs(model: Model, processor: Processor) -> tuple[Input, ...]:
    """Return the inputs that are texts; shorter ones than a fixed length are padded."""
    tokens = "text" if model.open_lengths else processor.config.max_text_len
    names = ("input_ids", "attention_mask")
    return tuple(Input(name, "int64", ("batch", tokens)) for name in names)


def _images(given: Tensors) -> Images:
    if "pixels" in given:
        return given["pixels"]
    return {
        "features": given["features"],
        "locations": given["locations"],
        "mask": given["region_mask"],
    }


def _batch(given: Tensors) -> dict[str, Any]:
    texts = {name: given[name] for name in ("input_ids", "attention_mask")}
    return {"images": _images(given), **texts}


def _graph(
    name: str, run: Callable[[Tensors], dict[str, Tensor]], inputs: tuple[Input, ...], model: Model
) -> Graph:
    words = model.config.text.vocab_size

    def sample(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(sizes["batch"])
        found = {}
        for each in inputs:
            shape = [sizes[size] if isinstance(size, str) else size for size in each.shape]
            if each.name.endswith("mask"):
                value = np.ones(shape, np.int64)
                value[0, 1 + shape[1] // 2 :] = 0  # padding
            elif each.dtype == "int64":
                value = rng.integers(0, words, shape)
            else:
                value = rng.random(shape, np.float32)
            found[each.name] = value
        return found

    return Graph(name, run, inputs, sample)


def _encoders(task: Task, processor: Processor) -> Iterator[Graph]:
    model = task.model
    if "dual_encoder" not in paper_of(model.config.name).capabilities:
        return

    def image(given: Tensors) -> dict[str, Tensor]:
        found = model.encode_image(_images(given))
        own = task.image_vectors(found) if isinstance(task, MatchingTask) else None
        return {"vector": model.image_vector(found) if own is None else own}

    def text(given: Tensors) -> dict[str, Tensor]:
        found = model.encode_text(given["input_ids"], given["attention_mask"])
        own = task.text_vectors(found) if isinstance(task, MatchingTask) else None
        return {"vector": model.text_vector(found) if own is None else own}

    yield _graph("image_encoder", image, image_inputs(model, processor), model)
    yield _graph("text_encoder", text, text_inputs(model, processor), model)


def _fused(task: Task, batch: PairBatch) -> dict[str, Tensor]:
    if isinstance(task, (VqaTask, EntailmentTask)):
        return {"logits": task.logits(batch)}
    model = task.model
    text, image = model.encode_text(batch.input_ids, batch.attention_mask), model.encode_image(batch.images)
    if isinstance(task, MatchingTask) and task.config.has_matching:
        return {"score": task.match_scores(text, image)}
    pooled = model.fuse(text, image, outputs="pooled").pooled
    head = getattr(getattr(task, "objective", None), "itm_head", None)
    match = model.match(pooled) if head is None else head(pooled)
    return {"pooled": pooled} if match is None else {"pooled": pooled, "match": match}


def _decoder(task: GenerationTask, processor: Processor) -> Iterator[Graph]:
    """Yield `start` and `step` of a decoder. Tensors of a state are called `prefix.*` and `own.*`,
    and with one token more `next.*`."""
    model = task.model
    images = image_inputs(model, processor)
    first = _graph("start", lambda given: _prefix(_start(model, given)), images, model)
    with paddle.no_grad():
        begun = _start(model, {name: paddle.to_tensor(x) for name, x in first.sample(SIZES[0]).items()})
        _, after = model.step(begun, paddle.zeros([1], "int64"))
    layout = {name: tensor.shape for name, tensor in (_prefix(begun) | _own(after)).items()}

    def run(given: Tensors) -> dict[str, Tensor]:
        states, state = model.step(_restored(given, begun), given["ids"])
        return {"logits": task.lm_head(states), **_pairs("next", state.own)}

    def sample(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(sizes["batch"])
        found = first.sample(sizes)
        state = _start(model, {name: paddle.to_tensor(x) for name, x in found.items()})
        ids = rng.integers(0, model.config.text.vocab_size, (sizes["tokens"] + 1, sizes["batch"]))
        for row in ids[1:]:
            _, state = model.step(state, paddle.to_tensor(row))
        tensors = {name: x.numpy() for name, x in (_prefix(state) | _own(state)).items()}
        empty = {each.name: [sizes.get(size, size) for size in each.shape] for each in inputs}  # at first
        own = {name: np.zeros(shape, np.float32) for name, shape in empty.items() if name not in tensors}
        return {**own, **tensors, "ids": ids[0]}

    inputs = [Input("ids", "int64", ("batch",))]
    for name, shape in layout.items():
        sizes: list[int | str] = ["batch", *shape[1:]]
        if name.startswith("own."):
            sizes[2] = "tokens"
        elif model.open_lengths:  # the rows of a prefix are those of regions
            sizes[-1 if name.endswith("mask") else 2] = "regions"
        inputs.append(Input(name, "float32", tuple(sizes)))
    yield first
    yield Graph("step", run, tuple(inputs), sample)


def _start(model: Model, given: Tensors) -> DecodingState:
    return model.start_decoding(model.encode_image(_images(given)))


def _prefix(state: DecodingState) -> dict[str, Tensor]:
    found = _pairs("prefix", state.prefix)
    masks = [mask for mask in state.prefix_masks if mask is not None]
    return found | ({"prefix.mask": masks[0]} if masks else {})  # one for all layers, without tags


def _own(state: DecodingState) -> dict[str, Tensor]:
    return _pairs("own", state.own)


def _pairs(kind: str, pairs: Sequence[tuple[Tensor, Tensor] | None]) -> dict[str, Tensor]:
    return {
        f"{kind}.{number}.{part}": tensor
        for number, pair in enumerate(pairs)
        if pair is not None
        for part, tensor in zip(("key", "value"), pair, strict=True)
    }


def _restored(given: Tensors, begun: DecodingState) -> DecodingState:
    """Return the state of the inputs of a step; `begun` says which layers have a prefix."""

    def pair(kind: str, number: int) -> tuple[Tensor, Tensor]:
        return given[f"{kind}.{number}.key"], given[f"{kind}.{number}.value"]

    depth = range(len(begun.prefix))
    masks = tuple(None if mask is None else given["prefix.mask"] for mask in begun.prefix_masks)
    return DecodingState(
        own=tuple(pair("own", number) for number in depth),
        prefix=tuple(None if begun.prefix[number] is None else pair("prefix", number) for number in depth),
        sources=begun.sources,
        prefix_masks=masks,
        length=length(given["own.0.key"], 2),
    )
