"""Common parts of the benchmark's peers: the answers to its words, and random inputs.

Needs torch and transformers, and is never imported by `unimo`. A peer reads one word a line (`step`,
`matmul`, `memory`) and answers each with one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

IGNORED = -100


@dataclass(frozen=True)
class Inputs:
    """Random images and tokens without padding, for MLM and ITM; half of the pairs are false."""

    texts: dict[str, torch.Tensor]
    """Arguments of the library's networks: `input_ids` and `attention_mask`, which is all ones."""
    masked_texts: dict[str, torch.Tensor]
    """Arguments of its heads of MLM: the same with some tokens masked, and `labels`, `IGNORED` elsewhere."""
    images: torch.Tensor
    false_images: torch.Tensor
    """Images that ITM shows: their own in the first half of the rows, others in the second."""
    matched: torch.Tensor


def make_inputs(batch: dict[str, int], vocabulary: int, *image: int) -> Inputs:
    """Draw `Inputs` of `batch_size` pairs, `text_len` tokens of which `targets` are predicted.

    Args:
        batch: these numbers.
        vocabulary: number of words, of which the last one stands for those that are masked.
        image: shape of an image.
    """
    rows, length, targets = batch["batch_size"], batch["text_len"], batch["targets"]
    ids = torch.randint(5, vocabulary, (rows, length))
    labels = torch.full((rows, length), IGNORED)
    labels[:, 1 : 1 + targets] = ids[:, 1 : 1 + targets]
    matched = torch.arange(rows) < rows // 2
    images, mask = torch.randn(rows, *image), torch.ones_like(ids)
    shown = torch.where(matched, torch.arange(rows), torch.arange(rows).roll(1))
    masked_ids = torch.where(labels == IGNORED, ids, vocabulary - 1)
    return Inputs(
        texts={"input_ids": ids, "attention_mask": mask},
        masked_texts={"input_ids": masked_ids, "attention_mask": mask, "labels": labels},
        images=images,
        false_images=images[shown],
        matched=matched.long(),
    )


def matmul_rate(shape: list[int], seconds: float) -> float:
    """FLOP/s of a float32 product of `shape` (m, k, n)."""
    m, k, n = shape
    left, right, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    torch.mm(left, right, out=out)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        torch.mm(left, right, out=out)
        count += 1
    return count * 2 * m * k * n / (time.perf_counter() - start)


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


def timed_step(loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Take one training step; return its loss, seconds, and processor time of all threads."""
    start, began = time.perf_counter(), time.process_time()
    minimised = loss()
    minimised.backward()
    optimizer.step()
    optimizer.zero_grad()
    value = minimised.item()
    seconds, processor = time.perf_counter() - start, time.process_time() - began
    return {"seconds": seconds, "processor": processor, "loss": value}


def serve(make: Callable[[dict[str, Any]], tuple[torch.nn.Module, Callable[[], torch.Tensor]]]) -> None:
    """Answer the words on standard input until it closes.

    Args:
        make: takes the request (sizes of the model, `batch`, `matmul`, `threads`); returns all layers that
            learn, and a function that computes the loss of the one batch of all steps.
    """
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    layers, loss = make(request)
    parameters = list(layers.parameters())
    # Fused is the fastest AdamW torch has on a CPU.
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    ready = {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "library": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        word = line.split()
        if word == ["step"]:
            answer = timed_step(loss, optimizer)
        elif word == ["matmul"]:
            matmul = request["matmul"]
            answer = {"flops_per_second": matmul_rate(matmul["shape"], matmul["seconds"])}
        else:
            answer = {"peak_bytes": peak_memory()}
        print(json.dumps(answer), flush=True)
