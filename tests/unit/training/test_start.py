"""Which settings may change when a run goes on in its folder, and what is refused as another run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from micro import make_run

from unimo.config import parse_overrides, to_plain
from unimo.errors import CheckpointError
from unimo.settings import RunConfig, build_run_config
from unimo.training import checkpoint, start


def with_words(run: RunConfig, *words: str) -> RunConfig:
    return build_run_config(to_plain(run), parse_overrides(words))


def note(run: RunConfig, **fingerprints: str) -> Path:
    """The state of a run after two steps, without weights."""
    last = Path(run.output_dir) / "checkpoints" / "step_00000002"
    last.mkdir(parents=True)
    content: dict[str, Any] = {"step": 2, "config": to_plain(run), "corpora": fingerprints}
    (last / "state.json").write_text(json.dumps(content))
    return last


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    return make_run("pretrain", tmp_path / "run")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optim.lr=0.5", "optim.lr is 0.0001 there, 0.5 now"),
        ("optim.lr_multipliers={heads: 7}", "optim.lr_multipliers is {"),
        ("optim.betas=[0.5, 0.9]", "optim.betas[0] is 0.9 there, 0.5 now"),
        ("seed=3", "seed is 0 there, 3 now"),
        ("train.batch_size=4", "train.batch_size is 8 there, 4 now"),
        ("train.precision=bf16", "train.precision is 'fp32' there, 'bf16' now"),
        ("train.select_metric=mlm_loss", "train.select_metric is '' there"),
        ("train.max_steps=1", "2 steps are done there, train.max_steps is 1 now"),
        ("task.mlm_probability=0.3", "task.mlm_probability is 0.15 there, 0.3 now"),
        ("model.text.dropout=0.3", "model.text.dropout is 0.0 there, 0.3 now"),
        ("model.text.init=towers/a", "model.text.init is '' there, 'towers/a' now"),
        ("data.image_size=64", "data.image_size is 32 there, 64 now"),
        ("data.scenes.train_images=13", "data.scenes.train_images is 12 there, 13 now"),
        ("data.pairs=[mine]", "data.pairs[0].path is 'scenes' there, 'mine' now"),
        ("data.pairs=[scenes, mine]", "data.pairs is ['scenes'] there, ['scenes', 'mine'] now"),
        ("data.pairs=[{path: scenes, weight: 2}]", "data.pairs[0].weight is None there, 2.0 now"),
        ("data.texts=[scenes]", "data.texts is [] there, ['scenes'] now"),
        ("data.regions=grid", "data.regions is '' there, 'grid' now"),
        ("init_from=elsewhere", "init_from is '' there, 'elsewhere' now"),
        ("resume=elsewhere", "resume is '' there, 'elsewhere' now"),
    ],
)
def test_another_run_is_refused_by_key(run: RunConfig, word: str, said: str) -> None:
    last = note(run)
    start.check_settings(run, last)
    with pytest.raises(CheckpointError) as caught:
        start.check_settings(with_words(run, word), last)
    message = str(caught.value)
    assert message.startswith(f"{run.output_dir} holds another run: ") and said in message, message
    assert message.endswith(
        f"; choose another folder, output_dir={run.output_dir}_2, or delete {run.output_dir}"
    )


@pytest.mark.parametrize("key", sorted(start.MAY_CHANGE))
def test_what_may_change_goes_on(run: RunConfig, key: str) -> None:
    other = {
        "output_dir": "elsewhere/run",
        "train.device": "gpu",
        "train.on_unsupported_precision": "fp32",
        "train.recompute": "true",
        "data.max_bad_rate": 0.5,
    }
    run = with_words(run, "train.eval_every=2", "train.select_metric=mlm_loss")
    last = note(run)
    start.check_settings(with_words(run, f"{key}={other.get(key, 3)}"), last)


def test_the_name_proposed_is_free(run: RunConfig) -> None:
    last = note(run)
    for number in (2, 3):
        Path(f"{run.output_dir}_{number}").mkdir()
    with pytest.raises(CheckpointError, match=f"output_dir={run.output_dir}_4, or delete"):
        start.check_settings(with_words(run, "seed=1"), last)


def test_many_differences_are_counted(run: RunConfig) -> None:
    last = note(run)
    words = [f"optim.{key}=0.3" for key in ("lr", "weight_decay", "eps", "warmup", "clip_grad_norm")]
    with pytest.raises(CheckpointError, match="clip_grad_norm is 1.0 there, 0.3 now; and 2 more; choose"):
        start.check_settings(
            with_words(run, *words, "train.batch_size=2", "seed=9", "data.image_size=64"), last
        )


@pytest.mark.parametrize("key", ["init_from", "model.text.init", "model.vision.init", "data.regions"])
def test_a_moved_folder_is_the_same(run: RunConfig, tmp_path: Path, key: str) -> None:
    there, moved = tmp_path / "there", tmp_path / "moved"
    there.mkdir()
    run = with_words(run, f"{key}={there}")
    last = note(run)
    start.check_settings(with_words(run, f"{key}={there}/../there"), last)
    shutil.copytree(there, moved)
    with pytest.raises(CheckpointError, match=f"{key} is "):
        start.check_settings(with_words(run, f"{key}={moved}"), last)
    there.rmdir()
    start.check_settings(with_words(run, f"{key}={moved}"), last)
    with pytest.raises(CheckpointError, match=f"{key} is "):
        start.check_settings(with_words(run, f"{key}={tmp_path}/nowhere"), last)
    with pytest.raises(CheckpointError, match=f"{key} is .* '' now"):
        start.check_settings(with_words(run, f"{key}="), last)


def test_corpora_may_move_and_their_samples_decide(run: RunConfig) -> None:
    run = with_words(run, "data.pairs=[{path: a/coco, name: coco}]", "data.root=old")
    last = note(run)
    moved = with_words(run, "data.pairs=[{path: b/coco, name: coco}]", "data.root=new")
    start.check_settings(moved, last)
    with pytest.raises(CheckpointError, match=r"data.pairs\[0\].path is 'a/coco' there, 'scenes' now"):
        start.check_settings(with_words(run, "data.pairs=[{path: scenes, name: coco}]"), last)
    with pytest.raises(CheckpointError, match="mscoco: not among .* which is coco; .*name: OLD"):
        checkpoint.check_same_corpora({"coco": "1"}, {"mscoco": "1"}, "here")


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("data.tokenizer", "data.tokenizer"),
        ("data.regions", "data.regions for scenes"),
        ("task.augment.texts", "task.augment.texts for scenes"),
    ],
)
def test_files_whose_content_is_known_may_lie_elsewhere(run: RunConfig, key: str, kept: str) -> None:
    if key.startswith("task"):
        run = build_run_config({"model": "unimo_tiny", "task": "pretrain", "output_dir": run.output_dir})
    run = with_words(run, f"{key}=there/a")
    last = note(run, **{kept: "1"})
    start.check_settings(with_words(run, f"{key}=moved/a"), last)
    for other in ("", "grid", "scenes") if key != "data.tokenizer" else ():
        with pytest.raises(CheckpointError, match=f"{key} is 'there/a' there, '{other}' now"):
            start.check_settings(with_words(run, f"{key}={other}"), last)
    with pytest.raises(CheckpointError, match=f"^{kept}: other samples, or other parts"):
        checkpoint.check_same_corpora({kept: "1"}, {kept: "2"}, "here")


def test_settings_of_other_versions_are_no_difference(run: RunConfig) -> None:
    last = note(run)
    content = json.loads((last / "state.json").read_text())
    content["config"]["train"]["gone"] = 5
    del content["config"]["optim"]["eps"]
    (last / "state.json").write_text(json.dumps(content))
    start.check_settings(run, last)


def test_a_model_without_checkpoints_is_not_trained_over(run: RunConfig) -> None:
    folder = Path(run.output_dir)
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"")
    assert start.choose_start(run, folder) == (None, "scratch")  # no run wrote it
    (folder / "config.yaml").write_text("model: {name: unimo3_tiny}\n")
    with pytest.raises(CheckpointError, match="holds the model of a run, and no checkpoint to go on from"):
        start.choose_start(run, folder)


def test_a_run_that_saved_nothing_is_no_hindrance(run: RunConfig) -> None:
    folder = Path(run.output_dir)
    folder.mkdir()
    (folder / "config.yaml").write_text("model: {name: unimo3_tiny}\noptim: {lr: 5}\n")
    assert start.choose_start(run, folder) == (None, "scratch")


def test_a_finished_run_is_one_with_scores_model_and_the_same_places(run: RunConfig) -> None:
    last, folder = note(run), Path(run.output_dir)
    short = with_words(run, "train.max_steps=2")
    assert start.finished(short, last) is None
    summary = {"step": 2, "max_steps": 2, "metrics": {"loss": 1.0}, "split": "val"}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert start.finished(short, last) is None  # no model
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"")
    again = start.finished(short, last)
    assert again.pop("next").startswith(f"python tools/finetune.py --task vqa --init {folder}/model ")
    assert again == summary | {"steps_now": 0, "stopped_by": "", "was_finished": True}
    assert start.finished(run, last) is None  # of 3 steps
    assert start.finished(with_words(short, "data.root=elsewhere"), last) is None
    for part in ({"metrics": {}}, {"step": 1}, {"max_steps": 3}):
        (folder / "summary.json").write_text(json.dumps(summary | part))
        assert start.finished(short, last) is None
