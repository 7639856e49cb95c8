"""One training step of a Hugging Face BridgeTower, timed on request: a side of `tools/benchmark.py`.

Run by the benchmark with an interpreter that has torch and transformers, never imported by `unimo`:

    python hf_bridgetower.py '{"text": {...}, "vision": {...}, "fusion": {...}, "batch": {...}, "threads": 2}'

MLM and ITM are trained as METER and BridgeTower do: two full passes, and vocabulary logits for every text
position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch_side import make_inputs, serve
from transformers import BridgeTowerConfig, BridgeTowerForImageAndTextRetrieval, BridgeTowerForMaskedLM


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


def make(request: dict[str, Any]) -> tuple[torch.nn.ModuleDict, Callable[[], torch.Tensor]]:
    """The model, and the sum of both losses of a batch that never changes."""
    models = build(request)
    side = request["vision"]["image_size"]
    inputs = make_inputs(request["batch"], request["text"]["vocab_size"], 3, side, side)

    def loss() -> torch.Tensor:
        mlm = models["mlm"](**inputs.masked_texts, pixel_values=inputs.images)
        itm = models["itm"](**inputs.texts, pixel_values=inputs.false_images, labels=inputs.matched)
        return mlm.loss + itm.loss

    return models, loss


if __name__ == "__main__":
    serve(make)
