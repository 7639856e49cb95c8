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


# Recipe: images, batch, epochs, those of the warm-up, rate, decay by layer, weight decay, drop-path, largest
# norm of gradients, and whether images are mixed.
BEIT = {
    "base": (1_281_167, 1024, 100, 20, 4e-3, 0.65, 0.05, 0.1, None, True),
    "large": (1_281_167, 1024, 50, 5, 1e-3, 0.75, 0.05, 0.2, None, True),
    "base_21k": (14_197_122, 4096, 90, 5, 3e-3, 0.65, 0.05, 0.2, 3.0, False),
    "large_21k": (14_197_122, 2048, 90, 5, 2e-3, 0.75, 0.05, 0.2, 1.0, False),
    "base_21k_1k": (1_281_167, 512, 30, 5, 2e-5, 0.85, 1e-8, 0.1, None, False),
    "large_21k_1k": (1_281_167, 512, 30, 5, 2e-5, 0.9, 1e-8, 0.4, None, False),
}


@pytest.mark.parametrize("size", BEIT)
def test_images_alone_are_classified_as_by_beit(size: str) -> None:
    images, batch, epochs, warmup, rate, decay, weight_decay, drop_path, clip, mixes = BEIT[size]
    run = load_run_config(f"vlmo_{size}", "image_classification")
    model, task, train, optim = run.model, run.task, run.train, run.optim
    assert (model.name, run.data.image_size) == (f"vlmo_{size.split('_')[0]}", 224)
    epoch = images // batch  # the rest of an epoch is left out
    assert (train.batch_size, train.max_steps, optim.warmup) == (batch, epochs * epoch, warmup * epoch)
    assert train.eval_every == (0 if size.endswith("21k") else epoch)
    assert (optim.lr, optim.layer_decay, optim.weight_decay) == (rate, decay, weight_decay)
    assert (model.transformer.drop_path, optim.clip_grad_norm) == (drop_path, clip)
    assert (optim.betas, optim.eps, optim.schedule) == ([0.9, 0.999], 1e-8, "cosine")
    assert optim.lr_multipliers == {"cross_modal": 1.0, "heads": 1.0}
    assert (task.protocol, task.pooling, task.head_std, task.label_smoothing) == (
        "finetune",
        "mean",
        2e-5,
        0.1,
    )
    assert (task.mixup, task.cutmix) == ((0.8, 1.0) if mixes else (0.0, 0.0))
    assert (run.data.train_transform, run.data.eval_transform) == ("beit_randaug", "beit")
