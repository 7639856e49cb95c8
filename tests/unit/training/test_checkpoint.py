import errno
import hashlib
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import DieAt, KilledError
from small_run import VectorData, make_run, make_state, train

from unimo.data.record import Record
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
            monkeypatch.setattr(weights, "replacing", full)
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


def flip(path: Path, place: int, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)


FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "digests.sha256"]
DAMAGE = {
    "first byte": lambda path: flip(path, 0),
    "a bit in the middle": lambda path: flip(path, path.stat().st_size // 2, 0),
    "last byte": lambda path: flip(path, -1, 7),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(make_run(folder))
    return folder


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_any_damage_is_found_and_the_checkpoint_before_is_taken(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, kind: str
) -> None:
    folders = shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints")
    DAMAGE[kind](folders / "step_00000012" / file)
    assert checkpoint.find_last(tmp_path) == folders / "step_00000008"
    assert "step_00000012 is damaged; it is ignored" in caplog.text
    with pytest.raises(
        CheckpointError, match="step_00000012 (is damaged|holds no complete|is not a complete)"
    ):
        checkpoint.resolve(str(folders / "step_00000012"))


def test_an_additional_file_is_damage_too(finished: Path, tmp_path: Path) -> None:
    folders = shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints")
    (folders / "step_00000012/optimizer-00000-of-00002.safetensors").write_bytes(b"")
    assert checkpoint.find_last(tmp_path) == folders / "step_00000008"


def test_a_run_goes_on_before_the_damage_and_ends_as_if_there_were_none(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = shutil.copytree(finished, tmp_path / "run")
    flip(output / "checkpoints/step_00000012/model.safetensors", 200)
    run = make_run(output, train={"keep_checkpoints": 1})
    assert train(run).step == 12
    names = sorted(path.name for path in (output / "checkpoints").iterdir())
    assert names == ["damaged_step_00000012", "step_00000012"]  # the damaged one did not push out the others
    for name in ("model.safetensors", "optimizer.safetensors"):
        path = Path("checkpoints/step_00000012") / name
        assert (output / path).read_bytes() == (finished / path).read_bytes()
    assert "is called damaged_step_00000012 now" in caplog.text


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(finished: Path, tmp_path: Path) -> None:
    output = shutil.copytree(finished, tmp_path / "run")
    for folder in (output / "checkpoints").iterdir():
        flip(folder / "optimizer.safetensors", -5)
    before = (output / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="all 2 checkpoints in .* are damaged .*bring back a copy"):
        train(make_run(output))
    assert (output / "metrics.jsonl").read_bytes() == before


def test_digests_are_those_of_sha256sum(finished: Path) -> None:
    folder = finished / "checkpoints/step_00000012"
    lines = (folder / "digests.sha256").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["model.safetensors", "optimizer.safetensors", "state.json"]
    content = (folder / "state.json").read_bytes()
    assert lines[-1] == f"{hashlib.sha256(content).hexdigest()}  state.json"


@pytest.mark.parametrize("corpus", ["a", "b"])
def test_replaced_data_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str
) -> None:
    with pytest.raises(KilledError):
        train(make_run(tmp_path), [DieAt(6)])
    original = VectorData.__getitem__

    def replaced(self: VectorData, index: int) -> Record:
        record = original(self, index)
        return replace(record, text="7") if (self.name, index) == (corpus, 3) else record

    monkeypatch.setattr(VectorData, "__getitem__", replaced)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(
        CheckpointError, match=rf"^{corpus}: other samples, or .* than when .*step_00000004.*init_from="
    ):
        train(make_run(tmp_path))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    monkeypatch.undo()
    assert train(make_run(tmp_path)).step == 12
