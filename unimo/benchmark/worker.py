"""One pre-training step of our model, timed on request; same line protocol as `peers/hf_bridgetower.py`.

    python -m unimo.benchmark.worker '{"model": {"name": "unimo3_base"}, "batch": {...}, "matmul": {...}}'

With `"fusion": {...}` in the request, a step of the Grounded Transformer alone (`fusion_step.py`); with
`"sequences": {...}`, one of UNIMO on real batches (`sequence_step.py`).

A process of its own keeps the peak memory of one model apart from another's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from unimo.benchmark.fusion_step import FusionStep
from unimo.benchmark.machine import matmul_rate, peak_memory, resident_memory
from unimo.models.batches import PretrainBatch


def make_batch(config: Any, sizes: dict[str, int], seed: int = 0) -> PretrainBatch:
    """Return a random pre-training batch without padding, NumPy arrays.

    Args:
        config: model config, for vocabulary and image size.
        sizes: `batch_size`, `text_len`, `targets` (MLM targets a sample).
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    rows, length, targets = sizes["batch_size"], sizes["text_len"], sizes["targets"]
    side, vocab = config.vision.image_size, config.text.vocab_size
    ids = rng.integers(5, vocab, (rows, length))
    positions = (np.arange(rows)[:, None] * length + 1 + np.arange(targets)).reshape(-1)
    masked = ids.copy()
    masked.reshape(-1)[positions] = 4
    matched = np.arange(rows) < rows // 2
    return PretrainBatch(
        images=rng.standard_normal((rows, 3, side, side), dtype=np.float32),
        input_ids=ids,
        attention_mask=np.ones_like(ids),
        image_group=np.arange(rows),
        mlm_input_ids=masked,
        mlm_positions=positions,
        mlm_labels=ids.reshape(-1)[positions],
        itm_image_index=np.where(matched, np.arange(rows), np.roll(np.arange(rows), 1)),
        itm_labels=matched.astype(np.int64),
        sample_ids=[str(row) for row in range(rows)],
    )


class Step:
    """A model with its pre-training task, AdamW and one batch; each call is one optimizer step."""

    def __init__(self, model: dict[str, Any], sizes: dict[str, int]) -> None:
        import paddle

        from unimo import create_model
        from unimo.models.paper import PretrainConfig
        from unimo.settings import OptimConfig
        from unimo.tasks.base import to_tensors
        from unimo.tasks.pretrain import PretrainTask
        from unimo.training.optimizer import build_optimizer

        paddle.seed(0)
        overrides = {key: value for key, value in model.items() if key != "name"}
        built = create_model(model["name"], **overrides)
        self.task = PretrainTask(built, PretrainConfig())
        self.task.train()
        # Without clipping, as the peer: what is compared is forward, backward and AdamW.
        self.optimizer = build_optimizer(self.task, replace(OptimConfig(), clip_grad_norm=None))
        self.batch = to_tensors(make_batch(built.config, sizes))
        self.parameters = sum(int(np.prod(parameter.shape)) for parameter in self.task.parameters())

    def __call__(self) -> dict[str, float]:
        """Seconds and loss of one step; `forward`, `backward`, `update` are its parts."""
        marks = [time.perf_counter()]
        loss, _ = self.task(self.batch)
        value = float(loss)
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        self.optimizer.step()
        self.optimizer.clear_grad()
        marks.append(time.perf_counter())
        forward, backward, update = (b - a for a, b in zip(marks, marks[1:], strict=False))
        return {
            "seconds": marks[-1] - marks[0],
            "loss": value,
            "forward": forward,
            "backward": backward,
            "update": update,
        }


def builder(kind: str) -> Callable[..., Any]:
    """What makes the step of a kind of request."""
    if kind == "sequences":
        from unimo.benchmark.sequence_step import SequenceStep

        return SequenceStep
    return FusionStep if kind == "fusion" else Step


def answer(words: Iterator[str], request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answer to each word, after a first one that says what was built."""
    import paddle

    kind = next((name for name in ("fusion", "sequences") if name in request), "")
    step = builder(kind)(request["model"], request["batch"], **request.get(kind, {}))
    resting = resident_memory()
    yield {"parameters": step.parameters, "library": f"paddle {paddle.__version__}"}
    for word in words:
        if word.strip() == "step":
            yield step()
        elif word.strip() == "matmul":
            matmul = request["matmul"]
            yield {"flops_per_second": matmul_rate(tuple(matmul["shape"]), matmul["seconds"])}
        else:
            yield {"peak_bytes": peak_memory(), "resting_bytes": resting}


def main() -> None:
    """Answer the words on standard input until it closes."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not mix with the answers
    for reply in answer(sys.stdin, json.loads(sys.argv[1])):
        out.write(json.dumps(reply) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
