"""Every recipe builds, says what the papers say, and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from unimo import create_model, list_models
from unimo.config import CONFIG_ROOT, list_recipes, to_plain
from unimo.data.images.transforms import RECIPES
from unimo.errors import ConfigError
from unimo.registry import TASKS, models_with, task_class
from unimo.settings import build_run_config, load_run_config

PRESETS = ["unimo", "unimo2", "unimo3", "meter", "bridgetower"]
RECIPES_OF = {kind: list_recipes(kind) for kind in TASKS}
NAMES = [(name, kind) for kind, recipes in RECIPES_OF.items() for name in recipes]
# Recipes of a task for further data sets: `unimo_base_coqa` is one of the size `base`.
CODE = ["data.train_split=train+val", "data.selection=paper", "train.max_steps=977", "train.eval_every=98"]
DATA_SETS = {
    "seq2seq": ("gigaword", "squad_qg", "coqa"),
    "retrieval": ("coco",),
    "image_classification": ("1k", "21k"),
}


def test_every_file_is_of_a_task():
    files = set(CONFIG_ROOT.glob("[!_]*/[!_]*.yaml"))
    assert {file.stem for file in files} == set(TASKS)
    sources = {source for recipes in RECIPES_OF.values() for source in recipes.values()}
    assert {Path(source.rpartition(":")[0]) for source in sources} == files


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_recipe_builds_a_run(name, kind):
    run = load_run_config(name, kind)
    assert load_run_config(RECIPES_OF[kind][name], kind) == run
    model = name
    for data_set in DATA_SETS.get(kind, ()):
        model = model.removesuffix(f"_{data_set}")
    assert run.model.name == model
    assert run.model.name in list_models()
    assert run.task.name == kind
    if hasattr(run.model, "vision"):
        assert run.data.image_size == run.model.vision.image_size
        assert run.data.image_size % run.model.vision.patch_size == 0
    assert {run.data.train_transform, run.data.eval_transform} <= set(RECIPES)
    assert run.train.micro_batch_size == "auto"
    draws = task_class(kind).draws_in_round or kind == "pretrain"
    assert bool(run.train.negatives_batch_size) == (draws and "_tiny" not in name)
    assert run.data.max_text_len <= run.model.text.longest
    assert {corpus.path for corpus in run.data.pairs + run.data.path} == {"scenes"}


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_resolved_recipe_gives_itself(name, kind):
    run = load_run_config(name, kind)
    assert build_run_config(to_plain(run)) == run


def test_every_preset_has_the_tiny_recipe_of_every_task_it_can_do():
    for kind in TASKS:
        able = {f"{preset}_tiny" for preset in PRESETS} & set(models_with(task_class(kind).needs))
        assert able and able <= set(RECIPES_OF[kind]), kind


@pytest.mark.parametrize("name", ["unimo3_base", "unimo3_large", "meter_base", "bridgetower_base"])
def test_pretraining_is_the_recipe_of_the_paper(name):
    run = load_run_config(name, "pretrain")
    train, optim, data = run.train, run.optim, run.data
    assert (train.max_steps, train.batch_size) == (100_000, 4096)
    assert (optim.lr, optim.weight_decay, optim.warmup, optim.schedule) == (1e-5, 0.01, 0.1, "linear")
    assert optim.lr_multipliers == {"cross_modal": 5.0, "heads": 5.0}
    assert (optim.betas, optim.eps, optim.clip_grad_norm) == ([0.9, 0.98], 1e-8, None)
    assert (data.max_text_len, run.task.mlm_probability, data.train_transform) == (50, 0.15, "clip")
    expected = {"unimo3_base": 224, "meter_base": 224, "bridgetower_base": 288, "unimo3_large": 294}
    assert data.image_size == expected[name]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("unimo3_base", "vqa", (576, 1e-5, 50.0, 0.05, 0.06, 512, 4.0)),
        ("unimo3_large", "vqa", (574, 4e-6, 50.0, 0.05, 0.06, 512, 4.0)),
        ("bridgetower_base", "entailment", (384, 3e-6, 10.0, 0.01, 0.06, 64, 4.0)),
        ("meter_base", "vqa", (576, 5e-6, 50.0, 0.01, 0.1, 512, 2.0)),
        ("meter_base", "entailment", (384, 2e-6, 10.0, 0.01, 0.1, 64, 2.0)),
        ("unimo3_base", "retrieval", (384, 5e-6, 5.0, 0.01, 0.05, 512, None)),
    ],
)
def test_fine_tuning_is_the_recipe_of_the_authors(name, kind, expected):
    run = load_run_config(name, kind)
    assert expected == (
        run.data.image_size,
        run.optim.lr,
        run.optim.lr_multipliers["heads"],
        run.optim.weight_decay,
        run.optim.warmup,
        run.train.batch_size,
        getattr(run.task, "head_hidden_multiplier", None),
    )


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("unimo3_base", 12),
        ("unimo3_large", 24),
        ("bridgetower_base", 12),
        ("bridgetower_large", 24),
        ("meter_base", 11),
    ],
)
def test_cifar_is_the_recipe_of_the_code_of_bridgetower(name, layers):
    """METER lacks the last layer of its tower, and BridgeTower's positions of 288 pixels are resized."""
    run = load_run_config(name, "image_classification")
    data, optim, vision = run.data, run.optim, run.model.vision
    assert (run.task.protocol, run.task.pooling, run.task.head_std) == ("reference", "model", 0.02)
    assert (run.task.head_dropout, run.task.label_smoothing, run.task.mixing.alphas) == (0.0, 0.0, [])
    assert (data.train_transform, data.eval_transform, vision.image_size) == ("clip", "clip", 224)
    assert (vision.used_layers, run.train.batch_size) == (layers, 512)
    assert (optim.lr, optim.weight_decay, optim.warmup, optim.schedule) == (1e-5, 0.01, 0.06, "linear")
    assert (optim.betas, optim.eps, optim.clip_grad_norm) == ([0.9, 0.98], 1e-8, None)
    assert (data.train_split, data.selection, run.train.select_metric) == ("train", "clean", "accuracy")
    code = load_run_config(name, "image_classification", CODE).train
    assert (code.max_steps, code.eval_every) == (round(10 * 50_000 / 512), round(50_000 / 512))


@pytest.mark.parametrize("preset", PRESETS)
def test_tiny_models_build(preset):
    config = load_run_config(f"{preset}_tiny", "pretrain").model
    model = create_model(config.name)
    assert model.config == config
    assert sum(parameter.size for parameter in model.parameters()) < 20_000_000


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.max_step=5", "max_steps"),
        ("optim.learning_rate=1", "lr"),
        ("model.fusion.link_rang=all", "link_range"),
        ("tasks=1", "task"),
    ],
)
def test_unknown_key_names_the_nearest(override, nearest):
    with pytest.raises(ConfigError, match=f"unknown key.*{nearest}"):
        load_run_config("unimo3_tiny", "pretrain", [override])


def test_unknown_names_give_the_nearest():
    with pytest.raises(ConfigError, match="unimo3_base"):
        load_run_config("unimo3_bse", "pretrain")
    with pytest.raises(ConfigError, match="unknown model 'unimo3_smal'"):
        load_run_config("unimo3_tiny", "pretrain", ["model=unimo3_smal"])
    with pytest.raises(ConfigError, match="nearest: retrieval"):
        load_run_config("unimo3_tiny", "pretrain", ["task=retreival"])


@pytest.mark.parametrize(
    ("name", "steps", "epoch"),
    [
        ("unimo_base", 30_009, 2_501),
        ("unimo_large", 30_009, 2_501),
        ("unimo2_base", 30_009, 2_501),
        ("unimo3_base", 12_504, 1_250),
        ("unimo3_large", 12_504, 1_250),
        ("meter_base", 12_504, 1_250),
        ("bridgetower_base", 12_504, 1_250),
    ],
)
def test_recipes_of_vqa_train_on_what_their_steps_count(name, steps, epoch):
    """645,381 questions of train and val, less those of the 1,000 of val's 40,504 images in `rest_val`."""
    run = load_run_config(name, "vqa")
    assert (run.data.train_split, run.data.selection) == ("train+trainable_val", "clean")
    assert (run.train.max_steps, run.train.eval_every) == (steps, epoch)
    questions = 645_381 - 210_207 * 1_000 / 40_504
    epochs = 12 if name.startswith(("unimo_", "unimo2_")) else 10
    assert steps == pytest.approx(epochs * questions / run.train.batch_size, abs=1)
    assert load_run_config(f"{name.split('_')[0]}_tiny", "vqa").data.train_split == "train"
