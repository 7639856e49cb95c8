"""Fine-tuning recipes of UNIMO-2 say what Tables 8 and 9 and section 4 of the paper say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from micro import TOWER, Tool, saved, words

from unimo.nn.position import resize_positions
from unimo.settings import RunConfig, load_run_config
from unimo.training.optimizer import learning_rate
from unimo.weights.files import read_safetensors

# Samples of an epoch: captions and sentence pairs of Table 7; VQA questions with a known answer, no rest_val.
EPOCH = {"vqa": 640_191, "entailment": 529_527, "retrieval": 145_000}
# Batch, epochs, warm-up, weight decay of Table 9.
TABLE_9 = {"vqa": (256, 12, 0.0, 0.0), "entailment": (64, 10, 0.06, 0.0), "retrieval": (32, 40, 0.0, 0.01)}


def rate_at(run: RunConfig, epoch: float, epochs: int) -> float:
    return learning_rate(round(epoch / epochs * run.train.max_steps), run.train.max_steps, run.optim)


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("kind", TABLE_9)
def test_table_9(kind: str, size: str) -> None:
    run = load_run_config(f"unimo2_{size}", kind)
    batch, epochs, warmup, decay = TABLE_9[kind]
    assert (run.train.batch_size, run.optim.warmup, run.optim.weight_decay) == (batch, warmup, decay)
    assert run.train.max_steps * batch / EPOCH[kind] == pytest.approx(epochs, abs=0.001)
    assert run.optim.lr_multipliers == {"cross_modal": 1.0, "heads": 1.0}
    assert (run.optim.betas, run.optim.eps, run.optim.clip_grad_norm) == ([0.9, 0.98], 1e-6, 1.0)


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("vqa", {0: 4e-5, 4.9: 4e-5, 5.1: 4e-6, 7.9: 4e-6, 8.1: 4e-7, 11.9: 4e-7}),
        ("retrieval", {0: 5e-6, 23.9: 5e-6, 24: 5e-7, 31.9: 5e-7, 32: 5e-8, 39.9: 5e-8}),
        ("entailment", {0.6: 1e-5, 5.3: 5e-6}),
    ],
)
def test_rates_of_table_9(kind: str, rates: dict[float, float]) -> None:
    run, epochs = load_run_config("unimo2_base", kind), TABLE_9[kind][1]
    for epoch, rate in rates.items():
        assert rate_at(run, epoch, epochs) == pytest.approx(rate, rel=1e-3), f"epoch {epoch}"


@pytest.mark.parametrize("size", ["base", "large", "tiny"])
def test_retrieval_is_trained_and_ranked_as_in_the_release(size: str) -> None:
    """21 pairs for each caption, one score a pair, and no first stage, whose heads would start untrained."""
    task = load_run_config(f"unimo2_{size}", "retrieval").task
    negatives = 6 if size == "tiny" else 20
    assert (task.loss, task.negatives, task.margin, task.scale) == ("circle", negatives, 0.2, 1.0)
    run = load_run_config(f"unimo2_{size}", "retrieval", ["task.loss=itc_itm"])
    assert (run.task.candidates, run.task.exhaustive) == (128, False)  # two stages, as an option


@pytest.mark.parametrize("kind", TABLE_9)
def test_pictures_are_larger_than_in_pretraining(kind: str) -> None:
    run = load_run_config("unimo2_base", kind)
    assert run.data.image_size == run.model.vision.image_size == 384
    assert run.model.vision.num_patches == 576  # 577 with the class token, Appendix A
    assert (run.model.grounding.dictionary_size, run.model.grounding.num_tokens) == (2048, 100)
    assert (run.data.train_transform, run.data.eval_transform) == ("vit", "vit")
    assert run.data.max_text_len == (128 if kind == "retrieval" else 512)


@pytest.mark.parametrize("kind", TABLE_9)
def test_tiny_recipes_run_on_scenes(kind: str) -> None:
    run = load_run_config("unimo2_tiny", kind)
    assert (run.model.name, run.data.image_size, run.model.vision.image_size) == ("unimo2_tiny", 64, 64)
    assert (run.optim.schedule, run.data.pairs[0].path, run.data.path[0].path) == (
        "linear",
        "scenes",
        "scenes",
    )


def test_positions_follow_a_larger_image(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check 224 to 384 in the large: 4 x 4 patches become 6 x 6, all other weights start as they were."""
    monkeypatch.chdir(tmp_path)
    model = {
        "name": "unimo2_tiny",
        "text": {**TOWER, "vocab_size": 300},
        "vision": {**TOWER, "image_size": 32, "patch_size": 8},
        "fusion": TOWER,
        "grounding": {"dictionary_size": 24, "num_tokens": 4},
    }
    directory = saved("pretrain", tmp_path, model=model)
    changes = [word for word in words() if not word.startswith(("model.", "data.image_size"))]
    changes += ["data.image_size=48", "train.max_steps=1", "optim.lr=0.0", "optim.warmup=0"]
    code, _, err = tool("finetune", "--task", "entailment", "--init", directory, *changes)
    assert code == 0, err
    before = read_safetensors(directory / "model.safetensors")
    after = read_safetensors(tmp_path / "output/unimo2_tiny_entailment/model/model.safetensors")
    name = "model.vision.position_embedding"
    assert (before[name].shape, after[name].shape) == ((17, 16), (37, 16))
    np.testing.assert_allclose(after[name], resize_positions(before[name], 6), atol=1e-6)
    np.testing.assert_array_equal(after[name][0], before[name][0])
    same = [key for key in before if key.startswith("model.") and key != name]
    assert len(same) > 50
    for key in same:
        np.testing.assert_array_equal(after[key], before[key], err_msg=key)
