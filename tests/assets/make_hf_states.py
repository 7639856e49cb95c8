"""Make the stored states of Hugging Face's CLIP, ViT, BEiT and BridgeTower that the tests compare with.

    python tests/assets/make_hf_states.py

Needs torch and transformers (4.57 was used); the tests only read what it writes. CLIP and ViT are those that
`make_hf_reference.py` stored; the weights of BEiT and BridgeTower come from a seed and are not stored.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BeitConfig,
    BeitModel,
    BridgeTowerConfig,
    BridgeTowerForContrastiveLearning,
    BridgeTowerForImageAndTextRetrieval,
    BridgeTowerForMaskedLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    ViTConfig,
    ViTModel,
)

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "support"))

from beit_names import hf_beit  # noqa: E402
from bridgetower_names import hf_bridgetower  # noqa: E402


def filled(model: torch.nn.Module, tensors: dict) -> torch.nn.Module:
    """Give a model the tensors that it has; each of its own must be among them."""
    own = model.state_dict()
    wanted = [name for name in own if not name.endswith(("position_ids", "token_type_ids", "position_index"))]
    found = {name: torch.as_tensor(np.asarray(tensors[name])) for name in wanted}
    model.load_state_dict(found, strict=False)
    return model.eval()


def save(name: str, found: dict) -> None:
    """Write states."""
    save_file({key: value.contiguous() for key, value in found.items()}, FOLDER / name)


@torch.no_grad()
def other_images() -> None:
    """CLIP and ViT on images of another size, and on ones that are no square."""
    for kind, make, config in (
        ("clip_vit", CLIPVisionModel, CLIPVisionConfig),
        ("vit", lambda c: ViTModel(c, add_pooling_layer=False), ViTConfig),
    ):
        folder = FOLDER / f"hf_{kind}_tiny"
        tensors = load_file(folder / "model.safetensors")
        tensors = {name.removeprefix("vit."): tensor for name, tensor in tensors.items()}
        model = filled(make(config(**json.loads((folder / "config.json").read_text()))), tensors)
        found = {}
        for size in ((40, 40), (24, 48), (40, 16)):
            pixels = torch.randn(1, 3, *size)
            out = model(pixels, output_hidden_states=True, interpolate_pos_encoding=True)
            last = out.last_hidden_state
            if kind == "clip_vit":
                last = model.vision_model.post_layernorm(last)
            key = "{}x{}".format(*size)
            found |= {f"{key}.pixels": pixels, f"{key}.post_layernorm": last}
            states = out.hidden_states if kind == "clip_vit" else out.hidden_states[:-1]
            found |= {f"{key}.hidden.{i}": state for i, state in enumerate(states)}
        save(f"hf_{kind}_tiny/other_images.safetensors", found)


@torch.no_grad()
def beit() -> None:
    """BEiT with layer scales and relative positions, a table of each layer or one for all."""
    found = {}
    for shared in (False, True):
        config = BeitConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=48,
            patch_size=16,
            use_relative_position_bias=not shared,
            use_shared_relative_position_bias=shared,
            use_mask_token=shared,
            use_mean_pooling=not shared,
        )
        tensors = {name.removeprefix("beit."): tensor for name, tensor in hf_beit(shared=shared).items()}
        model = filled(BeitModel(config, add_pooling_layer=False), tensors)
        pixels = torch.randn(2, 3, 48, 48)
        key = "shared" if shared else "each"
        found[f"{key}.pixels"] = pixels
        states = model(pixels, output_hidden_states=True).hidden_states
        found |= {f"{key}.hidden.{i}": state for i, state in enumerate(states)}
        if shared:
            found["shared.last"] = model(pixels).last_hidden_state
    save("hf_beit_states.safetensors", found)


@torch.no_grad()
def bridgetower() -> None:
    """BridgeTower with its three heads, on padded texts."""
    tensors = hf_bridgetower()
    config = BridgeTowerConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        contrastive_hidden_size=24,
        logit_scale_init_value=2.6592,
        text_config={
            "vocab_size": 60,
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 256,
            "max_position_embeddings": 514,
            "tie_word_embeddings": False,  # the released heads over words have a matrix of their own
        },
        vision_config={"hidden_size": 64, "num_hidden_layers": 4, "patch_size": 8, "image_size": 32},
    )
    named = {name: x for name, x in tensors.items() if name.startswith(("mlm_", "itm_", "itc_", "logit_"))}
    named |= {f"bridgetower.{name}": x for name, x in tensors.items() if name not in named}
    kinds = (BridgeTowerForMaskedLM, BridgeTowerForImageAndTextRetrieval, BridgeTowerForContrastiveLearning)
    words, matching, contrast = (filled(kind(config), named) for kind in kinds)
    mask = (torch.arange(9)[None] < torch.tensor([9, 5])[:, None]).long()
    ids = torch.randint(5, 60, (2, 9)) * mask + 1 - mask
    given = {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.randn(2, 3, 32, 32)}
    found = dict(given)
    out = words(**given, output_hidden_states=True)
    text, image, cross = out.hidden_states
    found |= {f"text.{i}": state for i, state in enumerate(text)}
    found |= {f"image.{i}": state.permute(1, 0, 2) for i, state in enumerate(image)}
    for i, (of_text, of_image) in enumerate(cross):
        found |= {f"fusion.text.{i}": of_text, f"fusion.image.{i}": of_image}
    found["pooled"] = words.bridgetower(**given).pooler_output
    found |= {"mlm": out.logits, "itm": matching(**given).logits}
    compared = contrast(**given, return_loss=True)
    found |= {"itc.text": compared.text_embeds, "itc.image": compared.image_embeds}
    found["itc"] = compared.text_embeds @ compared.image_embeds.T * contrast.logit_scale.exp()
    save("hf_bridgetower_states.safetensors", found)


if __name__ == "__main__":
    torch.manual_seed(0)
    other_images()
    beit()
    bridgetower()
