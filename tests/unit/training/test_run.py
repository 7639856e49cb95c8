import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unimo.config import read_yaml
from unimo.errors import CheckpointError, ConfigError
from unimo.settings import RunConfig, load_run_config
from unimo.training.loop import only_run_in
from unimo.training.run import train
from unimo.training.start import log_use_of_scenes
from unimo.training.summary import format_summary
from unimo.weights.files import read_safetensors

PART = "{hidden_size: 16, num_heads: 2, intermediate_size: 32, num_layers: 2}"
WORDS = [
    f"model.text={PART}",
    f"model.vision={PART}",
    f"model.fusion={PART}",
    "model.vision.patch_size=16",
    "data.image_size=32",
    "data.scenes.train_images=8",
    "data.scenes.val_images=4",
    "train.batch_size=4",
    "train.eval_batch_size=4",
    "train.max_steps=2",
    "train.log_every=1",
    "train.device=cpu",
]


def tiny(kind: str, output: Path, *words: str, **under: Any) -> RunConfig:
    return load_run_config("unimo3_tiny", kind, [*WORDS, f"output_dir={output}", *words], **under)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("pretrained")
    train(tiny("pretrain", output))
    return output


def test_a_run_leaves_what_the_contract_says(pretrained: Path) -> None:
    summary = json.loads((pretrained / "summary.json").read_text())
    assert (summary["step"], summary["started_from"]) == (2, "scratch")
    assert {"mlm_loss", "itm_accuracy"} <= set(summary["metrics"])
    assert summary["records"][0]["read"] == {"scenes": 8}
    assert "tools/finetune.py --task vqa" in format_summary(summary)
    assert {path.name for path in (pretrained / "model").iterdir()} >= {
        "config.yaml",
        "model.safetensors",
        "tokenizer.json",
        "metrics.json",
    }
    config = read_yaml(pretrained / "config.yaml")
    assert config["model"]["vision"]["image_size"] == 32
    assert config["train"]["max_steps"] == 2


def test_vocabulary_from_scratch_is_that_of_the_tokenizer(pretrained: Path) -> None:
    size = read_yaml(pretrained / "config.yaml")["model"]["text"]["vocab_size"]
    tensors = read_safetensors(pretrained / "model/model.safetensors")
    assert 50 < size < 1000
    assert tensors["model.text.embeddings.word.weight"].shape[0] == size
    with pytest.raises(ConfigError, match="model.text.vocab_size is 7"):
        train(tiny("pretrain", pretrained.parent / "other", "model.text.vocab_size=7"))


def test_same_command_again_says_that_the_run_is_finished(
    pretrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in pretrained.rglob("*") if path.name != ".lock"}
    with caplog.at_level("INFO", logger="unimo"):
        summary = train(tiny("pretrain", pretrained))
    assert summary["steps_now"] == 0
    assert f"{pretrained} is finished; nothing is trained" in caplog.text
    said = format_summary(summary)
    assert "To go on: the same command with train.max_steps=4." in said and "Next:" in said
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_more_steps_go_on_from_the_last_checkpoint(
    pretrained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(pretrained, tmp_path / "copy")
    with caplog.at_level("INFO", logger="unimo"):
        summary = train(tiny("pretrain", copy, "train.max_steps=3", "train.log_every=2"))
    assert (summary["steps_now"], summary["step"]) == (1, 3)
    assert "starting from last checkpoint" in caplog.text
    assert "train.max_steps was 2, is 3" in caplog.text


def test_other_settings_in_the_folder_of_a_run_are_refused(pretrained: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        train(tiny("pretrain", pretrained, "optim.lr=0.5", "train.max_steps=1"))
    assert str(caught.value) == (
        f"{pretrained} holds another run: optim.lr is 0.001 there, 0.5 now; 2 steps are done there, "
        f"train.max_steps is 1 now; choose another folder, output_dir={pretrained}_2, or delete {pretrained}"
    )


def test_fine_tuning_starts_from_a_model_directory(
    pretrained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = read_yaml(pretrained / "model/config.yaml")
    run = tiny("vqa", tmp_path, "optim.lr=0", init_from=str(pretrained / "model"), model=config["model"])
    with caplog.at_level("INFO", logger="unimo"):
        train(run)
    assert "starting from init_from=" in caplog.text
    assert "new, randomly initialised: classifier" in caplog.text
    before = read_safetensors(pretrained / "model/model.safetensors")
    after = read_safetensors(tmp_path / "model/model.safetensors")
    shared = [name for name in after if name.startswith("model.")]
    assert shared
    for name in shared:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_the_built_in_corpus_beside_own_data_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def logged(name: str, *words: str) -> str:
        caplog.clear()
        with caplog.at_level("INFO", logger="unimo"):
            log_use_of_scenes(load_run_config(name, "pretrain", words))
        return caplog.text

    assert "no data configured: running on the built-in corpus `scenes`" in logged("unimo_tiny")
    mixed = logged("unimo_tiny", "data.pairs=data/mine", "data.texts=[]", "task.augment.rewrites=")
    assert "`scenes`: data.images task.augment.texts task.augment.images; name your own" in mixed
    assert "leave out: data.images=[] task.augment.texts= task.augment.images=" in mixed
    assert "the vocabulary is that of `scenes`" in mixed and "no data configured" not in mixed
    assert not logged("unimo3_tiny", "data.pairs=data/mine", f"data.tokenizer={tmp_path}")


def test_regions_of_another_detector_are_refused_by_name(tmp_path: Path) -> None:
    part = ("train.max_steps=2", "train.batch_size=8", "train.eval_batch_size=4", "train.device=cpu")
    part += ("data.scenes.train_images=16", "data.scenes.val_images=4", "train.eval_max_batches=1")
    first = train(load_run_config("unimo_tiny", "pretrain", [*part, f"output_dir={tmp_path}/a"]))
    words = [*part, f"output_dir={tmp_path}/b", "data.regions=grid:2:4"]
    next_words = format_summary(first).splitlines()[-1].split()
    assert next_words[5] == f"{tmp_path}/a/model" and next_words[-1] == "data.regions=grid:2:16"
    model = {"name": "unimo_tiny"}
    run = load_run_config("unimo_tiny", "vqa", words, init_from=f"{tmp_path}/a/model", model=model)
    message = "reads regions of 768 numbers .*data.regions=grid.*, those of data.regions=grid:2:4 have 48"
    with pytest.raises(ConfigError, match=message):
        train(run)


def test_output_folder_of_another_task_is_refused(pretrained: Path) -> None:
    with pytest.raises(CheckpointError, match="its task is 'pretrain', this run's is 'vqa'"):
        train(tiny("vqa", pretrained))


def test_a_warmup_longer_than_the_run_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    words = ("optim.warmup=3", "data.pairs=/nowhere/at/all")
    with pytest.raises(ConfigError, match="optim.warmup=3 is 3 steps of a run of train.max_steps=2"):
        train(tiny("pretrain", tmp_path, *words))


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with only_run_in(tmp_path), pytest.raises(CheckpointError, match="another process is training"):
        with only_run_in(tmp_path):
            pass
    with only_run_in(tmp_path):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["unimo3_tinny"], "nearest: unimo3_tiny"),
        (["unimo3_tiny", "train.max_step=5"], "unknown key config.train.max_step; nearest: max_steps"),
        (["unimo3_tiny", "train.precision=bf16", "train.device=cpu"], "silent no-op"),
        (["unimo3_tiny", "data.pairs=/nowhere/at/all"], "/nowhere/at/all"),
        (
            ["unimo2_tiny", "task.phrases=textblob"],
            "unknown key config.task.phrases; known: false_images, masking",
        ),
    ],
)
def test_mistakes_give_one_message_and_code_2(tmp_path: Path, words: list[str], message: str) -> None:
    tool = Path(__file__).resolve().parents[3] / "tools/pretrain.py"
    command = [sys.executable, str(tool), *words, f"output_dir={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def run_tool(*words: str, check: str = "") -> subprocess.CompletedProcess[str]:
    tool = Path(__file__).resolve().parents[3] / "tools/pretrain.py"
    code = f"import runpy, sys; sys.argv = ['pretrain.py', *{words!r}]\n"
    code += f"try:\n    runpy.run_path({str(tool)!r}, run_name='__main__')\nfinally:\n    {check or 'pass'}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_help_needs_no_paddle() -> None:
    done = run_tool("--help", check="assert 'paddle' not in sys.modules")
    assert done.returncode == 0, done.stderr
    assert "example:" in done.stdout


def test_dry_run_prints_the_resolved_config() -> None:
    done = run_tool("unimo3_base", "--dry-run", "train.max_steps=7")
    assert done.returncode == 0, done.stderr
    assert "max_steps: 7" in done.stdout
    assert "batch_size: 4096" in done.stdout


def test_recomputation_changes_nothing(pretrained: Path, tmp_path: Path) -> None:
    train(tiny("pretrain", tmp_path, "train.recompute=true"))
    lines = [(path / "metrics.jsonl").read_text().splitlines() for path in (pretrained, tmp_path)]
    plain, again = ([json.loads(line).get("loss") for line in part] for part in lines)
    assert again == pytest.approx(plain, abs=1e-6)
