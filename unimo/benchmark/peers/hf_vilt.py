"""One training step of a Hugging Face ViLT, timed on request: a side of `tools/benchmark.py`.

Run by the benchmark with an interpreter that has torch and transformers, never imported by `unimo`:

    python hf_vilt.py '{"text": {...}, "vision": {...}, "transformer": {...}, "batch": {...}, "threads": 2}'

MLM and ITM are trained as ViLT does: a pass over the masked texts with their pictures, and one over the texts
with pictures of which half are false. The library has no loss for ITM; its head is that of ViLT, one layer on
the pooled state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch_side import make_inputs, serve
from transformers import ViltConfig, ViltForMaskedLM


def build(sizes: dict[str, Any]) -> torch.nn.ModuleDict:
    """The library's network with its pooler and head of MLM, and the head of ITM."""
    text, vision, transformer = sizes["text"], sizes["vision"], sizes["transformer"]
    config = ViltConfig(
        vocab_size=text["vocab_size"],
        max_position_embeddings=text["max_position"],
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        hidden_size=transformer["hidden_size"],
        num_hidden_layers=transformer["num_layers"],
        num_attention_heads=transformer["num_heads"],
        intermediate_size=transformer["intermediate_size"],
        tie_word_embeddings=False,  # as ViLT was trained; the library would tie them
    )
    mlm = ViltForMaskedLM(config)
    return torch.nn.ModuleDict({"mlm": mlm, "itm": torch.nn.Linear(config.hidden_size, 2)}).train()


def make(request: dict[str, Any]) -> tuple[torch.nn.ModuleDict, Callable[[], torch.Tensor]]:
    """The model, and the sum of both losses of a batch that never changes."""
    layers = build(request)
    side = request["vision"]["image_size"]
    inputs = make_inputs(request["batch"], request["text"]["vocab_size"], 3, side, side)

    def loss() -> torch.Tensor:
        masked = layers["mlm"](**inputs.masked_texts, pixel_values=inputs.images)
        pairs = layers["mlm"].vilt(**inputs.texts, pixel_values=inputs.false_images)
        logits = layers["itm"](pairs.pooler_output)
        return masked.loss + torch.nn.functional.cross_entropy(logits, inputs.matched)

    return layers, loss


if __name__ == "__main__":
    serve(make)
