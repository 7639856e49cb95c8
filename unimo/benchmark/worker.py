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

from unimo.benchmark.fusion import FusionStep
from unimo.benchmark.machine import matmul_rate, timed_step
from unimo.models.batches import PretrainBatch
from unimo.training.memory import process_memory


def make_batch(config: Any, sizes: dict[str, int]) -> PretrainBatch:
    """Return a random pre-training batch without padding, NumPy arrays.

    Args:
        config: model config with vocabulary and image size.
        sizes: `batch_size`, `text_len`, `targets` (MLM targets of a sample).
    """
    rng = np.random.default_rng(0)
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
        from unimo.registry import paper_of
        from unimo.settings import OptimConfig
        from unimo.tasks.base import to_tensors
        from unimo.tasks.pretrain import PretrainTask
        from unimo.training.optimizer import build_optimizer

        paddle.seed(0)
        overrides = {key: value for key, value in model.items() if key != "name"}
        built = create_model(model["name"], **overrides)
        self.task = PretrainTask(built, paper_of(model["name"]).pretraining())
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
    else:
        step = FusionStep(*given, **request["fusion"]) if "fusion" in request else Step(*given)
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
