"""Runs of the detector: killed, ended by a signal, a second one in the folder, two ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from killed import DieAt, KilledError
from micro_detector import SCENES, micro_config, write_coco

from ppdet_features.annotated_images import AnnotatedImages, CocoImages, ScenesImages
from ppdet_features.config import DetectorConfig, dump_config, load_config
from ppdet_features.detector import FasterRCNN
from ppdet_features.training import DetectorRun, build, train
from unimo import cli
from unimo.config import parse_overrides
from unimo.errors import CheckpointError
from unimo.training import callbacks, checkpoint
from unimo.training.loop import carry_out, only_run_in
from unimo.training.state import TrainState
from unimo.weights.files import read_safetensors, write_safetensors
from unimo.weights.layers import tensors_of

TOOL = Path(__file__).resolve().parents[3] / "ppdet_features" / "train_detector.py"
TIMED = ("samples_per_second", "step_seconds", "data_wait", "memory_mb", "peak_memory_mb")
WORDS = ["ResNet.width=4", "ResNet.ch_in=4", "Training.batch_size=2", "Training.log_every=1"]


def rows(output: Path) -> list[dict[str, Any]]:
    """Lines of log.jsonl without what depends on the clock."""
    lines = (output / "log.jsonl").read_text().splitlines()
    return [{key: v for key, v in json.loads(line).items() if key not in TIMED} for line in lines]


def build_seeded(config: DetectorConfig, pictures: AnnotatedImages, output: Path) -> TrainState:
    """The state that `train` begins with."""
    paddle.seed(config.train.seed)
    return build(FasterRCNN(config), pictures, DetectorRun.of(config, output), quiet=True)


class StopAt(callbacks.Callback):
    """Ends the run cleanly after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_logged(self, state: TrainState) -> None:
        if state.step >= self.step:
            state.stop_reason = "test"


@pytest.mark.parametrize("log_every", [1, 3])
def test_a_broken_run_equals_an_unbroken_one(tmp_path: Path, log_every: int):
    config = micro_config(Training={"steps": 6, "batch_size": 2, "save_every": 2, "log_every": log_every})
    pictures, broken, whole = ScenesImages("train", 5, config), tmp_path / "broken", tmp_path / "whole"
    assert train(config, pictures, whole, quiet=True)["step"] == 6
    state = build_seeded(config, pictures, broken)
    state.callbacks.append(DieAt(5))
    with only_run_in(broken), pytest.raises(KilledError):
        carry_out(state, None, dump_config(config))
    assert checkpoint.find_last(broken).name == "step_00000004"
    assert train(config, pictures, broken, quiet=True)["step"] == 6
    assert [row["step"] for row in rows(broken)] == sorted({1, *range(log_every, 7, log_every)})
    assert rows(broken) == rows(whole)
    for path in ("model.safetensors", "checkpoints/step_00000006/optimizer.safetensors"):
        assert (broken / path).read_bytes() == (whole / path).read_bytes()


def test_a_training_says_what_it_will_cost(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = micro_config(Training={"steps": 3, "batch_size": 2})
    with caplog.at_level("INFO"):
        train(config, ScenesImages("train", 5, config), tmp_path)
    assert caplog.text.count("plan: FasterRCNN, 3 steps") == 1
    assert caplog.text.count("time, measured over a step") == 1
    plan = json.loads((tmp_path / "plan.json").read_text())
    detector = FasterRCNN(config)
    counts = [sum(part[key] for part in plan["parameters"]) for key in ("parameters", "trainable")]
    every = list(detector.parameters())
    assert counts[0] == sum(parameter.size for parameter in every)
    assert counts[1] == sum(parameter.size for parameter in every if not parameter.stop_gradient)
    assert {"backbone"} < {part["part"] for part in plan["parameters"]}
    assert (plan["data"][0]["records"], plan["step"]["samples"]) == (5, 2)
    assert plan["step"]["operations"] > 0 and plan["time"]["steps"] == 2


def test_a_folder_of_another_detector_or_other_pictures_is_refused(tmp_path: Path):
    config = micro_config(Training={"steps": 1, "batch_size": 2})
    train(config, ScenesImages("train", 5, config), tmp_path, quiet=True)
    before = (tmp_path / "config.yaml").read_bytes()
    other = micro_config(ResNet={"width": 8}, Training={"steps": 2, "batch_size": 2})
    with pytest.raises(CheckpointError, match="another run: model.resnet.width is 4 there, 8 now; .* --out "):
        train(other, ScenesImages("train", 5, other), tmp_path, quiet=True)
    faster = micro_config(Training={"steps": 1, "batch_size": 2, "learning_rate": 1.0})
    with pytest.raises(CheckpointError, match="another run: optim.lr is .* there, 1.0 now"):
        train(faster, ScenesImages("train", 5, faster), tmp_path, quiet=True)
    with pytest.raises(CheckpointError, match="are not those of this run|other samples"):
        train(config, ScenesImages("train", 4, config), tmp_path, quiet=True)
    written = (tmp_path / "model.safetensors").stat().st_mtime_ns
    again = train(config, ScenesImages("train", 5, config), tmp_path, quiet=True)
    assert again == json.loads((tmp_path / "metrics.json").read_text())
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == written
    longer = micro_config(Training={"steps": 2, "batch_size": 2})
    with pytest.raises(CheckpointError, match="'images': 5.* are not those of this run .*'images': 4"):
        train(longer, ScenesImages("train", 4, longer), tmp_path, quiet=True)
    assert (tmp_path / "config.yaml").read_bytes() == before
    assert train(longer, ScenesImages("train", 5, longer), tmp_path, quiet=True)["step"] == 2


@pytest.mark.parametrize("replaced", ["1.png", "boxes.json"])
def test_replaced_pictures_and_boxes_are_refused(tmp_path: Path, replaced: str):
    config = micro_config(Training={"steps": 1, "batch_size": 2})
    write_coco(tmp_path, ScenesImages("train", 3, config), 3)
    boxes, output = tmp_path / "boxes.json", tmp_path / "run"
    train(config, CocoImages(boxes, tmp_path, config), output, quiet=True)
    path, longer = tmp_path / replaced, micro_config(Training={"steps": 2, "batch_size": 2})
    before = path.read_bytes()
    if path == boxes:
        path.write_bytes(before.replace(b'"category_id": 0', b'"category_id": 1'))
    else:
        path.write_bytes((tmp_path / "2.png").read_bytes())
    with pytest.raises(CheckpointError, match="^images: other samples"):
        train(longer, CocoImages(boxes, tmp_path, longer), output, quiet=True)
    path.write_bytes(before)
    assert train(longer, CocoImages(boxes, tmp_path, longer), output, quiet=True)["step"] == 2


def test_minutes_end_training_and_the_detector_is_written(tmp_path: Path):
    config = micro_config(Training={"steps": 10**6, "batch_size": 2})
    metrics = train(config, ScenesImages("train", 4, config), tmp_path, minutes=0.0, quiet=True)
    assert (metrics["step"], metrics["stopped_by"]) == (1, "max_minutes")
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert read_safetensors(tmp_path / "model.safetensors")


def start(output: Path, *words: str) -> subprocess.Popen[str]:
    """The tool in its own process, on pictures of `scenes` without evaluation."""
    command = [sys.executable, str(TOOL), "--config", str(SCENES), "--out", str(output), "--quiet"]
    boxes = ["--annotations", str(output.parent / "boxes.json"), "--images", str(output.parent)]
    return subprocess.Popen(
        [*command, *boxes, *WORDS, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rows(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if (output / "log.jsonl").exists() and len(rows(output)) >= count:
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"no {count} rows in time: {process.communicate()[1]}")


def test_processes_that_are_killed_refused_and_terminated(tmp_path: Path):
    config = micro_config()
    write_coco(tmp_path, ScenesImages("train", 5, config), 5)
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    endless, saving = "Training.steps=1000000", "Training.save_every=4"
    first = start(broken, endless, saving)
    wait_for_rows(broken, 6, first)
    second = start(broken, endless, saving)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 2 and f"another process is training in {broken}" in errors
    first.send_signal(signal.SIGKILL)
    first.communicate()
    resumed = start(broken, endless, saving)
    saved = int(checkpoint.find_last(broken).name[5:])
    # The log may hold later rows of the killed process; a new checkpoint is of the resumed one.
    deadline = time.monotonic() + 120
    while int(checkpoint.find_last(broken).name[5:]) <= saved:
        assert resumed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    resumed.send_signal(signal.SIGTERM)
    printed, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == cli.STOPPED, errors
    metrics = json.loads(printed.splitlines()[-1])
    assert metrics["stopped_by"] == "SIGTERM" and "the same command resumes training" in errors
    assert int(checkpoint.find_last(broken).name[5:]) == metrics["step"] >= saved + 3
    assert not (broken / "model.safetensors").exists()
    config = load_config(SCENES, parse_overrides([*WORDS, endless]))
    state = build_seeded(config, CocoImages(tmp_path / "boxes.json", tmp_path, config), whole)
    state.callbacks.append(StopAt(metrics["step"]))
    with only_run_in(whole):
        carry_out(state, None, "")
    assert [row["step"] for row in rows(broken)] == list(range(1, metrics["step"] + 1))
    assert rows(broken) == rows(whole)


def test_two_ranks_train_as_one(tmp_path: Path):
    """With fixed norms, without draws and attributes; else statistics and shares are those of each rank."""
    words = [
        *WORDS,
        "num_attributes=0",
        "attribute_names=null",
        "ResNet.freeze_norm=true",
        "Res5Head.freeze_norm=true",
        "RPNHead.rpn_target_assign.use_random=false",
        "BBoxAssigner.use_random=false",
        "Training.steps=4",
        "Training.batch_size=4",
        "Training.warmup=1",
    ]
    config = load_config(SCENES, parse_overrides(words))
    write_coco(tmp_path, ScenesImages("train", 6, config), 6)
    paddle.seed(0)
    write_safetensors(tmp_path / "start.safetensors", tensors_of(FasterRCNN(config)))
    found = []
    for ranks in (1, 2):
        output = tmp_path / f"ranks_{ranks}"
        command = [sys.executable, *(["-m", "unimo.training.launch"] if ranks > 1 else []), str(TOOL)]
        command += ["--config", str(SCENES), "--out", str(output), "--init", "start.safetensors"]
        command += ["--annotations", "boxes.json", "--images", ".", *words]
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "NPROC_PER_NODE": str(ranks)}
        environ["PYTHONPATH"] = str(TOOL.parent.parent)
        done = subprocess.run(
            command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count('"step": 4') == 1
        found.append((rows(output), read_safetensors(output / "model.safetensors")))
    (alone, wanted), (together, others) = found
    assert [row["step"] for row in together] == [1, 2, 3, 4]
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    for name, value in wanted.items():
        np.testing.assert_allclose(others[name], value, atol=1e-4, err_msg=name)
