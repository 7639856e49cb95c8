import errno
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import make_run, make_state, train

from unimo.errors import CheckpointError
from unimo.training import checkpoint
from unimo.weights import files as weights


def test_keeps_the_last_and_says_which_files(tmp_path: Path) -> None:
    train(make_run(tmp_path))
    folders = checkpoint.list_complete(tmp_path / "checkpoints")
    assert [folder.name for folder in folders] == ["step_00000008", "step_00000012"]
    state = json.loads((folders[-1] / "state.json").read_text())
    assert state["step"] == 12
    assert set(state["files"]) == {"model.safetensors", "optimizer.safetensors"}
    assert state["model"] == "small"
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_truncated_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_run(tmp_path))
    broken = tmp_path / "checkpoints/step_00000012/optimizer.safetensors"
    broken.write_bytes(broken.read_bytes()[:-10])
    assert checkpoint.find_last(tmp_path) == tmp_path / "checkpoints/step_00000008"
    assert "step_00000012 is not complete" in caplog.text


def test_unfinished_save_is_ignored_and_removed(tmp_path: Path) -> None:
    unfinished = tmp_path / "checkpoints/.step_00000020.writing"
    unfinished.mkdir(parents=True)
    assert checkpoint.find_last(tmp_path) is None
    checkpoint.remove_unfinished(tmp_path)
    assert not unfinished.exists()


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    run = make_run(tmp_path, train={"max_steps": 4})
    train(run)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    original = checkpoint.write_safetensors

    def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
        if path.name == file:
            monkeypatch.setattr(weights, "save_file", full)
        original(path, tensors)

    monkeypatch.setattr(checkpoint, "write_safetensors", write)
    if file == "state.json":
        monkeypatch.setattr(checkpoint, "write_text", full)
    with pytest.raises(CheckpointError, match="No space left on device.*Older checkpoints are intact"):
        train(make_run(tmp_path, train={"max_steps": 8}))
    monkeypatch.undo()
    assert checkpoint.find_last(tmp_path).name == "step_00000004"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000004"]
    assert train(make_run(tmp_path, train={"max_steps": 8})).step == 8


def test_other_model_is_refused_by_field(tmp_path: Path) -> None:
    train(make_run(tmp_path))
    with pytest.raises(CheckpointError, match=r"another model: model.dropout was 0.1, is 0.5"):
        train(make_run(tmp_path, model={"dropout": 0.5}))


def test_other_settings_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_run(tmp_path))
    with caplog.at_level(logging.WARNING):
        train(make_run(tmp_path, optim={"lr": 0.5}))
    assert "optim.lr was 0.01, is 0.5" in caplog.text


def test_other_data_are_refused(tmp_path: Path) -> None:
    train(make_run(tmp_path))
    state = make_state(make_run(tmp_path, seed=3))
    with pytest.raises(CheckpointError, match="seed"):
        checkpoint.restore(state, checkpoint.find_last(tmp_path))


def test_resume_means_a_checkpoint_or_an_output_folder(tmp_path: Path) -> None:
    train(make_run(tmp_path))
    last = tmp_path / "checkpoints/step_00000012"
    assert checkpoint.resolve(str(tmp_path)) == last
    assert checkpoint.resolve(str(last)) == last
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        checkpoint.resolve(str(tmp_path / "nowhere"))


def test_mis_shaped_tensor_is_named(tmp_path: Path) -> None:
    train(make_run(tmp_path))
    folder = tmp_path / "checkpoints/step_00000012"
    tensors = weights.read_safetensors(folder / "model.safetensors")
    tensors["head.weight"] = np.zeros((3, 3), np.float32)
    weights.write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"head.weight \(file \[3, 3\], model \[8, 1\]\)"):
        checkpoint.restore(make_state(make_run(tmp_path)), folder)


def test_state_is_plain_json(tmp_path: Path) -> None:
    train(make_run(tmp_path))
    state = json.loads((tmp_path / "checkpoints/step_00000012/state.json").read_text())
    assert state["loaders"][0]["sampler"]["step"] == 12
    assert state["world_size"] == 1
