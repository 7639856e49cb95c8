"""The fine-tuning recipes of VLMo have the numbers of its released code."""

from __future__ import annotations

import pytest

from unimo.settings import load_run_config

# Recipe: side of the images, batch, steps, warm-up (steps or a share), rate, factor of heads, drop-path.
RELEASED = {
    ("vqa", "base"): (480, 128, 50015, 0.1, 3e-5, 20, 0.15),
    ("vqa", "base_plus"): (480, 128, 50015, 0.1, 3e-5, 20, 0.15),
    ("vqa", "large"): (480, 128, 50015, 0.1, 1.5e-5, 20, 0.15),
    ("nlvr2", "base"): (384, 128, 6748, 0.1, 5e-5, 1, 0.1),
    ("nlvr2", "base_plus"): (384, 128, 6748, 0.1, 3e-5, 1, 0.2),
    ("nlvr2", "large"): (384, 128, 6748, 0.1, 3e-5, 1, 0.15),
    ("retrieval", "base_coco"): (384, 3072, 3000, 300, 3e-5, 1, 0.2),
    ("retrieval", "base_plus_coco"): (384, 3072, 3000, 300, 3e-5, 1, 0.2),
    ("retrieval", "large_coco"): (384, 3072, 3000, 300, 2e-5, 1, 0.2),
    ("retrieval", "base"): (384, 3072, 1500, 150, 3e-5, 1, 0.15),
    ("retrieval", "base_plus"): (384, 3072, 1500, 150, 3e-5, 1, 0.2),
    ("retrieval", "large"): (384, 3072, 1500, 150, 2e-5, 1, 0.2),
}


@pytest.mark.parametrize(("task", "size"), RELEASED)
def test_numbers_of_the_release(task: str, size: str) -> None:
    run = load_run_config(f"vlmo_{size}", task)
    model, train, optim = run.model, run.train, run.optim
    assert model.name == f"vlmo_{size.removesuffix('_coco')}"
    found = (train.batch_size, train.max_steps, optim.warmup, optim.lr, optim.lr_multipliers["heads"])
    assert (model.vision.image_size, *found, model.transformer.drop_path) == RELEASED[task, size]
    assert (optim.betas, optim.eps, optim.weight_decay) == ([0.9, 0.98], 1e-8, 0.01)
    assert (optim.schedule, optim.clip_grad_norm, run.data.max_text_len) == ("linear", None, 40)


@pytest.mark.parametrize("size", ["base", "base_coco", "large", "tiny"])
def test_retrieval_is_by_contrast_alone(size: str) -> None:
    run = load_run_config(f"vlmo_{size}", "retrieval")
    assert (run.task.loss, run.task.rerank, run.task.has_matching) == ("itc", 0, False)
    assert run.output_dir == f"output/vlmo_{size}_retrieval"
