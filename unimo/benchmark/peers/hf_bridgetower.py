"""One training step of a Hugging Face BridgeTower, timed on request: the other side of `tools/benchmark.py`.

Run by the benchmark with an interpreter that has torch and transformers, never imported by `unimo`:

    python hf_bridgetower.py '{"text": {...}, "vision": {...}, "fusion": {...}, "batch": {...}, "threads": 2}'

It reads one word a line (`step`, `matmul`, `memory`) and answers each with one line of JSON. MLM and ITM are
trained as METER and BridgeTower do: two full passes, and vocabulary logits for every text position.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import BridgeTowerConfig, BridgeTowerForImageAndTextRetrieval, BridgeTowerForMaskedLM

IGNORED = -100


def build(sizes: dict[str, Any]) -> torch.nn.ModuleDict:
    """Both heads of the library over one shared tower model."""
    text, vision, fusion = sizes["text"], sizes["vision"], sizes["fusion"]
    config = BridgeTowerConfig(
        hidden_size=fusion["hidden_size"],
        num_attention_heads=fusion["num_heads"],
        num_hidden_layers=fusion["num_layers"],
        text_config={
            "vocab_size": text["vocab_size"],
            "hidden_size": text["hidden_size"],
            "num_hidden_layers": text["num_layers"],
            "num_attention_heads": text["num_heads"],
            "intermediate_size": text["intermediate_size"],
            "max_position_embeddings": text["max_position"],
            "tie_word_embeddings": False,  # as the released models; the library would tie them
        },
        vision_config={
            "hidden_size": vision["hidden_size"],
            "num_hidden_layers": vision["num_layers"],
            "patch_size": vision["patch_size"],
            "image_size": vision["image_size"],
        },
    )
    mlm = BridgeTowerForMaskedLM(config)
    with torch.device("meta"):
        itm = BridgeTowerForImageAndTextRetrieval(config)
    itm.itm_score.to_empty(device="cpu")
    itm.itm_score.fc.reset_parameters()
    itm.bridgetower = mlm.bridgetower
    return torch.nn.ModuleDict({"mlm": mlm, "itm": itm}).train()


def make_batch(sizes: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """Random pixels and tokens without padding, for each head; fixed targets; half of the pairs false."""
    batch, vocab = sizes["batch"], sizes["text"]["vocab_size"]
    rows, length, targets = batch["batch_size"], batch["text_len"], batch["targets"]
    side = sizes["vision"]["image_size"]
    ids = torch.randint(5, vocab, (rows, length))
    labels = torch.full((rows, length), IGNORED)
    labels[:, 1 : 1 + targets] = ids[:, 1 : 1 + targets]
    matched = torch.arange(rows) < rows // 2
    pixels = torch.randn(rows, 3, side, side)
    false_pixels = pixels[torch.where(matched, torch.arange(rows), torch.arange(rows).roll(1))]
    masked_ids, mask = torch.where(labels == IGNORED, ids, vocab - 1), torch.ones_like(ids)
    mlm = {"input_ids": masked_ids, "pixel_values": pixels, "labels": labels}
    itm = {"input_ids": ids, "pixel_values": false_pixels, "labels": matched.long()}
    return {"mlm": mlm | {"attention_mask": mask}, "itm": itm | {"attention_mask": mask}}


def train_step(
    models: torch.nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, dict[str, torch.Tensor]],
) -> float:
    """Forward twice, backward, AdamW; returns the loss."""
    loss = models["mlm"](**batch["mlm"]).loss + models["itm"](**batch["itm"]).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


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


def main() -> None:
    """Answer the words on standard input until it closes."""
    sizes = json.loads(sys.argv[1])
    torch.set_num_threads(sizes["threads"])
    torch.manual_seed(0)
    models, batch = build(sizes), make_batch(sizes)
    parameters = list(models.parameters())
    # Fused is the fastest AdamW torch has on a CPU.
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    ready = {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "library": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        word, start = line.split(), time.perf_counter()
        if word == ["step"]:
            loss = train_step(models, optimizer, batch)
            answer = {"seconds": time.perf_counter() - start, "loss": loss}
        elif word == ["matmul"]:
            answer = {"flops_per_second": matmul_rate(sizes["matmul"]["shape"], sizes["matmul"]["seconds"])}
        else:
            answer = {"peak_bytes": peak_memory()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
