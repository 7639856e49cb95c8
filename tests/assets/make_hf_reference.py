"""Make the stored Hugging Face references of the tower parity tests.

    python tests/assets/make_hf_reference.py

Needs torch and transformers (4.57 was used); the tests only read what it writes: tiny randomly
initialised models, their inputs and their hidden states at every layer.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
)

FOLDER = Path(__file__).resolve().parent


def randomise(model: torch.nn.Module) -> None:
    """Give every parameter values of its own: fresh norms and biases are 1 and 0 and would hide mistakes."""
    for name, parameter in model.named_parameters():
        centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") and "embedding" not in name else 0.0
        torch.nn.init.normal_(parameter, centre, 0.1)


def save(folder: Path, config: dict, weights: dict, reference: dict) -> None:
    """Write config.json, model.safetensors (names of the hub's files) and reference.safetensors."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf8")
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    save_file(
        {name: value.contiguous() for name, value in reference.items()}, folder / "reference.safetensors"
    )


def roberta() -> None:
    """RobertaModel with `roberta.` names, no pooler and a masked-LM head, as the file of roberta-base has."""
    config = RobertaConfig(
        vocab_size=120,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=26,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model = RobertaModel(config, add_pooling_layer=False).eval()
    randomise(model)
    with torch.no_grad():  # torch keeps the padding row of a fresh table at zero; trained files do not
        model.embeddings.word_embeddings.weight[config.pad_token_id].normal_(0, 0.1)
    lengths = torch.tensor([12, 7, 3])
    mask = (torch.arange(12)[None] < lengths[:, None]).long()
    ids = torch.randint(5, 120, (3, 12)) * mask + config.pad_token_id * (1 - mask)
    with torch.no_grad():
        states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    weights = {f"roberta.{name}": value for name, value in model.state_dict().items()}
    weights |= {"roberta.embeddings.position_ids": torch.arange(26)[None], "lm_head.bias": torch.zeros(120)}
    reference = {"input_ids": ids, "attention_mask": mask}
    reference |= {f"hidden.{i}": state for i, state in enumerate(states)}
    save(FOLDER / "hf_roberta_tiny", config.to_dict(), weights, reference)


def clip_vision() -> None:
    """CLIPVisionModel at its own resolution and at a second one."""
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        hidden_act="quick_gelu",
    )
    model = CLIPVisionModel(config).eval()
    randomise(model)
    reference = {}
    for size in (32, 48):
        pixels = torch.randn(2, 3, size, size)
        with torch.no_grad():
            out = model(pixels, output_hidden_states=True, interpolate_pos_encoding=size != 32)
            last = model.vision_model.post_layernorm(out.last_hidden_state)
        reference |= {f"{size}.pixels": pixels, f"{size}.post_layernorm": last}
        reference |= {f"{size}.hidden.{i}": state for i, state in enumerate(out.hidden_states)}
    save(FOLDER / "hf_clip_vit_tiny", config.to_dict(), model.state_dict(), reference)


def vit() -> None:
    """ViTModel at its own resolution, with the names and the classifier of vit-base-patch16-224."""
    config = ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=24,
        patch_size=8,
        layer_norm_eps=1e-12,
    )
    model = ViTModel(config, add_pooling_layer=False).eval()
    randomise(model)
    pixels = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        out = model(pixels, output_hidden_states=True)
    reference = {"pixels": pixels, "post_layernorm": out.last_hidden_state}
    # Their last hidden state is the one after the norm, again.
    reference |= {f"hidden.{i}": state for i, state in enumerate(out.hidden_states[:-1])}
    weights = {f"vit.{name}": value for name, value in model.state_dict().items()}
    weights |= {"classifier.weight": torch.zeros(3, 32), "classifier.bias": torch.zeros(3)}
    save(FOLDER / "hf_vit_tiny", config.to_dict(), weights, reference)


def bert() -> None:
    """BertModel with its pooler, and the old names of norms that the file of bert-base-uncased has."""
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    model = BertModel(config).eval()
    randomise(model)
    lengths = torch.tensor([12, 7, 3])
    mask = (torch.arange(12)[None] < lengths[:, None]).long()
    ids = torch.randint(5, 60, (3, 12)) * mask
    with torch.no_grad():
        out = model(ids, attention_mask=mask, output_hidden_states=True)
        second = model(ids, attention_mask=mask, token_type_ids=torch.ones_like(ids)).last_hidden_state
    old = {".weight": ".gamma", ".bias": ".beta"}
    weights = {}
    for name, value in model.state_dict().items():
        stem, dot, kind = name.rpartition(".")
        weights["bert." + stem + (old[dot + kind] if stem.endswith("LayerNorm") else dot + kind)] = value
    weights |= {"cls.predictions.bias": torch.zeros(60)}
    reference = {"input_ids": ids, "attention_mask": mask, "pooled": out.pooler_output, "second": second}
    reference |= {f"hidden.{i}": state for i, state in enumerate(out.hidden_states)}
    save(FOLDER / "hf_bert_tiny", config.to_dict(), weights, reference)


if __name__ == "__main__":
    torch.manual_seed(0)
    roberta()
    clip_vision()
    vit()
    bert()
