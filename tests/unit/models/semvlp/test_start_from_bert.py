"""SemVLP from BERT's files: the states of texts are those of Hugging Face's BertModel, layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from unimo import create_model
from unimo.errors import CheckpointError
from unimo.weights.files import read_safetensors
from unimo.weights.huggingface import convert_tower

BERT = Path(__file__).resolve().parents[3] / "assets" / "hf_bert_tiny"
SIZES = {"hidden_size": 32, "num_heads": 4, "intermediate_size": 64, "num_layers": 3}
WORDS = {"vocab_size": 60, "max_position": 16}


def test_states_and_pooled_vectors_are_those_of_bert(tmp_path: Path) -> None:
    """The stored file has the old names of norms, gamma and beta, as that of bert-base-uncased."""
    convert_tower("hf-bert", BERT / "model.safetensors", BERT / "config.json", tmp_path / "bert")
    text = {**SIZES, **WORDS, "init": str(tmp_path / "bert")}
    model = create_model("semvlp_tiny", text=text, cross={"start": 1})
    model.eval()
    model.mode = "two"
    reference = read_safetensors(BERT / "reference.safetensors")
    ids, mask = (paddle.to_tensor(reference[name]) for name in ("input_ids", "attention_mask"))
    real = reference["attention_mask"] == 1
    found = model.encode_text(ids, mask, layers=True)
    for number, states in enumerate(found.text_layers):
        np.testing.assert_allclose(
            states.numpy()[real], reference[f"hidden.{number}"][real], atol=1e-5, err_msg=f"layer {number}"
        )
    np.testing.assert_allclose(model.pooler(found.text), reference["pooled"], atol=1e-5)
    # Rows of images have the type of BERT's second sentences.
    table = model.embeddings
    rows = table.of_type(table.word(ids) + table.position.weight[: ids.shape[1]], 1)
    states, _ = model.layers.plain(rows, (1.0 - mask.astype("float32")).unsqueeze([1, 2]) * -1e4, "text")
    np.testing.assert_allclose(states[-1].numpy()[real], reference["second"][real], atol=1e-5)
    # What BERT does not have starts at random, each module by itself.
    starts = [layer.cross_attention.q.weight.numpy() for layer in list(model.layers)[1:]]
    assert all(np.abs(start).max() > 0 for start in starts) and np.abs(starts[0] - starts[1]).max() > 0


def test_bert_of_other_sizes_is_refused(tmp_path: Path) -> None:
    convert_tower("hf-bert", BERT / "model.safetensors", BERT / "config.json", tmp_path / "bert")
    text = {**SIZES, **WORDS, "num_layers": 4, "init": str(tmp_path / "bert")}
    with pytest.raises(
        CheckpointError, match="bert tower of 3 layers and 4 heads, the model wants a bert tower of 4"
    ):
        create_model("semvlp_tiny", text=text)
