"""One training step of a Hugging Face VisualBERT, timed on request: a side of `tools/benchmark.py`.

Run by the benchmark with an interpreter that has torch and transformers, never imported by `unimo`:

    python hf_visualbert.py '{"text": {...}, "regions": {...}, "batch": {...}, "threads": 2}'

MLM and ITM are trained as the library does: one pass over masked texts with regions, half of which belong to
other texts, and vocabulary logits for every row, those of regions included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch_side import IGNORED, make_inputs, serve
from transformers import VisualBertConfig, VisualBertForPreTraining


def build(sizes: dict[str, Any]) -> torch.nn.Module:
    """The library's network with its heads of pre-training."""
    text = sizes["text"]
    config = VisualBertConfig(
        vocab_size=text["vocab_size"],
        max_position_embeddings=text["max_position"],
        hidden_size=text["hidden_size"],
        num_hidden_layers=text["num_layers"],
        num_attention_heads=text["num_heads"],
        intermediate_size=text["intermediate_size"],
        visual_embedding_dim=sizes["regions"]["feature_size"],
    )
    return VisualBertForPreTraining(config).train()


def make(request: dict[str, Any]) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    """The model, and the sum of both losses of a batch that never changes."""
    model, batch, size = build(request), request["batch"], request["regions"]["feature_size"]
    regions = batch["image_tokens"] - 1  # the library has no row for the whole image
    inputs = make_inputs(batch, request["text"]["vocab_size"], regions, size)
    labels = torch.nn.functional.pad(inputs.masked_texts["labels"], (0, regions), value=IGNORED)
    there = torch.ones(batch["batch_size"], regions)

    def loss() -> torch.Tensor:
        return model(
            **inputs.masked_texts | {"labels": labels},
            visual_embeds=inputs.false_images,
            visual_attention_mask=there,
            sentence_image_labels=1 - inputs.matched,  # 0 is a pair in this library
        ).loss

    return model, loss


if __name__ == "__main__":
    serve(make)
