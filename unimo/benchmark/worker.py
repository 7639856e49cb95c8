"""Timed pre-training steps of our model on request; same line protocol as `peers/torch_side.py`.

    python -m unimo.benchmark.worker '{"model": {"name": "unimo3_base"}, "batch": {...}, "matmul": {...}}'

With `"fusion": {...}` in the request, steps of the Grounded Transformer alone (`fusion.py`); with
`"sequences": {...}`, steps of UNIMO on real batches (`sequences.py`).

Separate processes keep the peak memory of different models apart.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from unimo.benchmark import flops
from unimo.benchmark.fusion import FusionStep
from unimo.benchmark.machine import matmul_rate, timed_step
from unimo.data.readers.answer_table import NO_ANSWER
from unimo.models.batches import PretrainBatch
from unimo.models.semvlp.batches import PretrainBatch as RegionBatch
from unimo.models.semvlp.config import Config as SemVlpConfig
from unimo.training.memory import process_memory


def make_batch(config: Any, sizes: dict[str, int]) -> PretrainBatch:
    """Return a random pre-training batch without padding, NumPy arrays.

    Args:
        config: model config with vocabulary and the size of images.
        sizes: `batch_size`, `text_len`, `targets` (MLM targets of a sample).
    """
    rng = np.random.default_rng(0)
    rows, length, targets = sizes["batch_size"], sizes["text_len"], sizes["targets"]
    ids = rng.integers(5, config.text.vocab_size, (rows, length))
    positions = (np.arange(rows)[:, None] * length + 1 + np.arange(targets)).reshape(-1)
    masked = ids.copy()
    masked.reshape(-1)[positions] = 4
    matched = np.arange(rows) < rows // 2
    pairs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "image_group": np.arange(rows),
        "mlm_input_ids": masked,
        "mlm_positions": positions,
        "mlm_labels": ids.reshape(-1)[positions],
        "itm_image_index": np.where(matched, np.arange(rows), np.roll(np.arange(rows), 1)),
        "itm_labels": matched.astype(np.int64),
        "sample_ids": [str(row) for row in range(rows)],
    }
    if isinstance(config, SemVlpConfig):
        return make_region_batch(config, pairs, rng)
    side = config.vision.image_size
    return PretrainBatch(images=rng.standard_normal((rows, 3, side, side), dtype=np.float32), **pairs)


def make_region_batch(config: SemVlpConfig, pairs: dict[str, Any], rng: np.random.Generator) -> RegionBatch:
    """Return the batch with objects as images, none of which is masked, and without answers."""
    shape, feature_size = (len(pairs["input_ids"]), flops.REGIONS), config.regions.feature_size
    none = np.zeros(0, np.int64)
    return RegionBatch(
        images={
            "features": rng.standard_normal((*shape, feature_size), dtype=np.float32),
            "locations": rng.random((*shape, 5), dtype=np.float32),
            "mask": np.ones(shape, np.int64),
        },
        object_positions=none,
        object_features=np.zeros((0, feature_size), np.float32),
        label_positions=none,
        label_labels=none,
        qa_labels=np.full(shape[0], NO_ANSWER),
        **pairs,
    )


class Step:
    """A model with its pre-training task, AdamW and one batch; each call is one optimizer step.

    Args:
        model: `name`, and fields of its config.
        sizes: those of the batch.
        task: fields of the task section.
    """

    def __init__(self, model: dict[str, Any], sizes: dict[str, int], task: dict[str, Any]) -> None:
        import paddle

        from unimo import create_model
        from unimo.registry import paper_of
        from unimo.settings import OptimConfig
        from unimo.tasks.base import to_tensors
        from unimo.tasks.pretrain import PretrainTask
        from unimo.training.optimizer import build_optimizer

        paddle.seed(0)
        overrides = {key: value for key, value in model.items() if key != "name"}
        built = create_model(model["name"], **overrides)
        self.task = PretrainTask(built, paper_of(model["name"]).pretraining(**task))
        self.task.train()
        # Without clipping, like the peer: forward, backward and AdamW are compared.
        self.optimizer = build_optimizer(self.task, replace(OptimConfig(), clip_grad_norm=None))
        self.batch = to_tensors(make_batch(built.config, sizes))
        self.parameters = sum(int(np.prod(parameter.shape)) for parameter in self.task.parameters())

    def __call__(self) -> dict[str, float]:
        """Take one step and time it, see `timed_step`."""
        return timed_step(lambda: self.task(self.batch)[0], self.optimizer)


def answer(words: Iterator[str], request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a description of the step, then the answer to each word."""
    import paddle

    given = request["model"], request["batch"]
    if "sequences" in request:
        from unimo.benchmark.sequences import SequenceStep

        step: Any = SequenceStep(*given, **request["sequences"])
    elif "fusion" in request:
        step = FusionStep(*given, **request["fusion"])
    else:
        step = Step(*given, request.get("task", {}))
    resting = process_memory("VmRSS")
    yield {"parameters": step.parameters, "library": f"paddle {paddle.__version__}"}
    for word in words:
        if word.strip() == "step":
            yield step()
        elif word.strip() == "matmul":
            matmul = request["matmul"]
            yield {"flops_per_second": matmul_rate(tuple(matmul["shape"]), matmul["seconds"])}
        else:
            yield {"peak_bytes": process_memory("VmHWM"), "resting_bytes": resting}


def main() -> None:
    """Answer the words on standard input until it closes."""
    out = sys.stdout
    sys.stdout = sys.stderr  # output of libraries must not mix with the answers
    for reply in answer(sys.stdin, json.loads(sys.argv[1])):
        out.write(json.dumps(reply) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
