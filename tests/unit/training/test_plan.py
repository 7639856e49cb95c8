"""Plan of a run: table, numbers in plan.json, hints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from micro import Tool, make_run, make_task, saved
from micro_unimo2 import MODEL as UNIMO2
from paddle_launch import run_ranks

from unimo.config import list_recipes
from unimo.data.readers.image_folder import PromptDataset
from unimo.data.readers.jsonl import JsonlDataset
from unimo.data.scenes.dataset import SceneShapes, open_scenes
from unimo.nn.products import count_products
from unimo.registry import TASKS, papers
from unimo.settings import RunConfig, ScenesConfig, load_run_config
from unimo.training.callbacks import Pacing
from unimo.training.hints import hints_of, too_long
from unimo.training.loop import take_step
from unimo.training.pace import Pace, duration, events
from unimo.training.plan import Disk, Memory, Plan, StepSize, parts_of
from unimo.training.plan_table import format_plan
from unimo.training.run import assemble, open_run, plan_only, train
from unimo.training.state import TrainState
from unimo.training.trial import count_tokens

ROOT = Path(__file__).resolve().parents[3]
TINY = [(name, kind) for kind in TASKS for name in list_recipes(kind) if name.endswith("_tiny")]
QUICK = [
    *("data.scenes.train_images=16", "data.scenes.val_images=4", "data.num_workers=0"),
    *("train.batch_size=4", "train.micro_batch_size=2", "train.device=cpu"),
]


@contextlib.contextmanager
def assembled(run: RunConfig) -> Iterator[tuple[TrainState, Plan]]:
    with open_run(run) as opened:
        yield assemble(*opened)


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "plan.json").read_text())


def made(model: str, task: str = "pretrain", **changes: Any) -> Plan:
    """A plan of no run."""
    values: dict[str, Any] = {
        "start": "scratch",
        "first_step": 0,
        "last_step": 100,
        "parameters": (),
        "data": (),
        "step": StepSize(4096, 1, 128, 32, 1, 1, 1),
        "memory": None,
        "time": None,
        "disk": Disk(1, 1, 2),
    }
    return Plan(model=model, task=task, **(values | changes))


def test_the_plan_of_a_run_and_its_file(tmp_path: Path) -> None:
    run = make_run("pretrain", tmp_path, train={"micro_batch_size": 2, "max_steps": 30, "save_every": 10})
    text = plan_only(run)
    found = read(tmp_path)
    with assembled(run) as (state, _):
        parameters = sum(parameter.size for parameter in state.task.parameters())
    assert sum(part["parameters"] for part in found["parameters"]) == parameters
    assert [part["part"] for part in found["parameters"]][:3] == ["text tower", "image tower", "fusion"]
    assert found["parameters"][-1]["part"] == "heads"
    assert {part["weights"] for part in found["parameters"]} == {"random"}
    train_row, val_row = found["data"]
    assert train_row["corpus"] == "scenes" and train_row["is_built_in"] and train_row["share"] == 1.0
    assert (train_row["records"], train_row["pictures"], train_row["texts"]) == (48, 12, 48)
    assert (val_row["use"], val_row["split"], val_row["records"]) == ("evaluate", "val", 12)
    step = found["step"]
    assert (step["samples"], step["ranks"], step["rounds"], step["micro_batch_samples"]) == (8, 1, 4, 2)
    assert step["image_tokens"] == 8 * 4 and 8 * 3 < step["text_tokens"] <= 8 * 20
    assert step["operations"] > 1e6
    time = found["time"]
    assert time["basis"].startswith("guess") and (time["steps"], time["checkpoints"]) == (30, 3)
    assert time["evaluations"] == 1 and time["step_seconds"] >= 4 * time["round_seconds"] > 0
    assert time["run_seconds"] >= 30 * time["step_seconds"]
    memory = found["memory"]
    assert memory["parameters_bytes"] == 4 * parameters and memory["activations_bytes"] > 0
    assert memory["process_bytes"] > 2**20 * 50
    parts = sum(memory[f"{part}_bytes"] for part in ("process", "parameters", "gradients", "optimizer"))
    assert parts < memory["peak_bytes"] < memory["machine_bytes"]
    disk = found["disk"]
    trainable = sum(part["trainable"] for part in found["parameters"])
    assert disk["checkpoint_bytes"] == 4 * parameters + 8 * trainable
    assert disk["needed_bytes"] == 3 * disk["checkpoint_bytes"] + 4 * parameters < disk["free_bytes"]
    assert found["hints"] == []
    for words in ("scenes (built in)", "1 rank x 4 rounds x 2", "guess", "FLOP", "checkpoint"):
        assert words in text
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(("name", "kind"), TINY)
def test_every_paper_and_task_has_a_plan(name: str, kind: str, tmp_path: Path) -> None:
    plan_only(load_run_config(name, kind, [*QUICK, f"output_dir={tmp_path}"]))
    found = read(tmp_path)
    assert (found["model"], found["task"]) == (name, kind)
    assert found["step"]["operations"] > 0 and found["time"]["run_seconds"] > 0
    reads_texts = kind not in ("image_classification", "segmentation")
    assert (found["step"]["text_tokens"] > 0) == reads_texts
    assert (found["step"]["image_tokens"] > 0) == (kind not in ("text_classification", "seq2seq"))
    shares = sum(corpus["share"] for corpus in found["data"])
    assert shares == pytest.approx(1.0)
    assert len({part["part"] for part in found["parameters"]}) == len(found["parameters"]) > 2


def test_a_plan_changes_nothing_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are those of a run that never tried samples."""
    run = {"model": UNIMO2, "train": {"micro_batch_size": 4, "max_steps": 2}}
    losses = []
    for name, tries in (("with", True), ("without", False)):
        if not tries:
            monkeypatch.setattr("unimo.training.plan.try_samples", lambda state: None)
        train(make_run("pretrain", tmp_path / name, **run))
        rows = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        losses.append([(row["step"], row.get("loss"), row.get("mlm_loss")) for row in rows])
    assert losses[0] == losses[1]
    assert read(tmp_path / "without")["time"] is None
    measured = read(tmp_path / "with")["time"]
    assert (measured["basis"], measured["steps"]) == ("measured over a step", 1)
    assert 0 < measured["round_seconds"] < measured["step_seconds"]


def test_a_run_that_goes_on_says_from_where(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "unimo"):
        train(make_run("pretrain", tmp_path, train={"max_steps": 2}))
        assert caplog.text.count("plan: unimo3_tiny pretrain, 2 steps") == 1
        assert caplog.text.count("time, measured over a step: round") == 1
        caplog.clear()
        train(make_run("pretrain", tmp_path, train={"max_steps": 5}))
    assert "goes on after step 2, 3 steps left" in caplog.text
    assert "text tower" not in caplog.text
    found = read(tmp_path)
    assert (found["first_step"], found["last_step"], found["time"]["steps"]) == (2, 5, 2)
    assert "step_00000002" in found["start"]


def test_loaded_and_new_parts(tmp_path: Path) -> None:
    saved("pretrain", tmp_path / "pre")
    start = f"{tmp_path}/pre/model"
    plan_only(make_run("vqa", tmp_path / "vqa", init_from=start))
    parts = {part["part"].partition(":")[0]: part["weights"] for part in read(tmp_path / "vqa")["parameters"]}
    assert parts.pop("heads") == "random"
    assert set(parts.values()) == {f"init_from={start}"}


def test_loaded_towers_say_from_where() -> None:
    task, _, _ = make_task(make_run("pretrain"))
    config = task.model.config
    task.model.config = dataclasses.replace(config, text=dataclasses.replace(config.text, init="weights/r"))
    weights = {part.part: part.weights for part in parts_of(task, "scratch")}
    assert (weights["text tower"], weights["image tower"], weights["heads"]) == (
        "weights/r",
        "random",
        "random",
    )


def test_frozen_parameters_are_counted_apart() -> None:
    task, _, _ = make_task(make_run("pretrain"))
    for parameter in task.model.text.parameters():
        parameter.stop_gradient = True
    text = parts_of(task, "scratch")[0]
    assert text.parameters > 0 and text.trainable == 0


def test_rates_of_layers_are_said(tmp_path: Path) -> None:
    optim = {"layer_decay": 0.5, "lr_multipliers": {"cross_modal": 1.0, "heads": 2.0}}
    with assembled(make_run("vqa", tmp_path, optim=optim)) as (state, plan):
        layers = max(depth for name, _ in state.task.named_parameters() if (depth := state.task.depth(name)))
    assert plan.rates == (0.5 ** (layers + 1), 2.0)
    assert f"  rates   {plan.rates[0]:.3g} to 2 of optim.lr, by layer" in format_plan(plan).splitlines()


def test_published_sizes_are_those_that_are_not_tiny() -> None:
    for paper in papers():
        assert {name for name in paper.sizes if "_tiny" not in name} == set(paper.published)


def test_fine_tuning_of_a_paper_from_scratch_is_a_warning() -> None:
    (hint,) = hints_of(made("unimo3_base", "vqa"))
    assert "--init DIR" in hint
    assert hints_of(made("unimo3_tiny", "vqa")) == []


def test_a_run_of_years_is_told_what_to_do_here() -> None:
    slow = Pace("measured", 104.0, 13_320.0, 100_000)
    (hint,) = too_long(made("unimo3_base", time=slow))
    assert hint.startswith("3.7 h a step, 42 years in all") and "8 A100 GPUs" in hint
    assert "unimo3_tiny, or train.batch_size=16 train.max_steps=1661 (a day)" in hint
    (other,) = too_long(made("meter_base", time=slow))
    assert "meter_tiny" in other
    assert too_long(made("unimo3_base", time=Pace("measured", 1.0, 1.0, 1000))) == []
    assert too_long(made("unimo3_base")) == []


def test_too_little_memory_is_a_warning() -> None:
    memory = Memory(30 * 10**9, 24 * 10**9, 0, 0, 0, 0, 29 * 10**9)
    (hint,) = hints_of(made("unimo3_tiny", memory=memory))
    assert "32 needs 30.0 GB, and there are 24.0 GB" in hint and "train.micro_batch_size=16" in hint


def test_parts_of_the_memory_add_up_to_its_peak() -> None:
    memory = Memory(20 * 10**9, 24 * 10**9, 10**9, 10**9, 10**9, 10**9, 5 * 10**9, 8 * 10**9, 3 * 10**9)
    text = format_plan(made("unimo3_tiny", memory=memory))
    assert "20.0 GB of 24.0 GB" in text and "evaluation 8.0 GB + heap 5.0 GB" in text
    assert "activations" not in text


def test_the_first_round_says_what_the_run_will_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = made("unimo3_base", time=Pace("guess", 1.0, 128.0, 100))
    with assembled(make_run("pretrain", tmp_path, train={"micro_batch_size": 2})) as (state, _):
        told = Pacing(plan)
        with caplog.at_level(logging.INFO, "unimo"):
            told.on_round(state, "training", 1, 4)
            assert "time" not in caplog.text  # when it began is not known
            told._round_ended -= 1000.0
            told.on_round(state, "training", 2, 4)
            told.on_round(state, "training", 3, 4)
    assert caplog.text.count("time, measured over a round: round 17 min, step 1.5 days") == 1
    assert caplog.text.count("148 days in all on this machine") == 1
    found = read(tmp_path)
    assert found["time"]["basis"] == "measured over a round" and "148 days" in found["hints"][-1]


def test_too_little_disk_is_a_warning() -> None:
    (hint,) = hints_of(made("unimo3_tiny", disk=Disk(4, 13 * 10**9, 10**9)))
    assert "need 13.0 GB, and 1.0 GB are free" in hint and "output_dir=" in hint


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "0.012 s"),
        (12, "12 s"),
        (90, "1.5 min"),
        (13_320, "3.7 h"),
        (2e5, "2.3 days"),
        (1.4e9, "44 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("every", "done", "total", "count"),
    [(0, 0, 10, 1), (5, 0, 10, 2), (4, 0, 10, 3), (4, 8, 10, 1), (4, 7, 10, 2), (20, 0, 10, 1)],
)
def test_events_of_a_run(every: int, done: int, total: int, count: int) -> None:
    assert events(every, done, total) == count


def test_evaluation_and_checkpoints_are_told_where_they_matter() -> None:
    pace = Pace("guess", 1.0, 10.0, 100, evaluation_seconds=50.0, evaluations=10, checkpoint_seconds=1.0)
    assert pace.run_seconds == 1500 and "evaluation at least 8.3 min" in str(pace)
    assert "checkpoints" not in str(pace)
    rounds = Pace("guess", 1.0, 10.0, 100, evaluation_seconds=50.0).after_round(0.5)
    assert (rounds.round_seconds, rounds.step_seconds, rounds.evaluation_seconds) == (0.5, 5.0, 25.0)
    steps = rounds.after_step(6.0, 8)
    assert (steps.round_seconds, steps.step_seconds, steps.evaluation_seconds) == (0.6, 6.0, 30.0)
    assert (rounds.steps, steps.steps, rounds.after_step(6.0, 1).round_seconds) == (100, 99, 6.0)


def test_tokens_of_a_batch_are_those_without_padding(tmp_path: Path) -> None:
    with assembled(make_run("pretrain", tmp_path)) as (state, _):
        batch = next(iter(state.loader))
        state.loader.close()
    texts, patches = count_tokens(batch, 16)
    assert texts == batch.attention_mask.sum() and patches == 8 * 4
    assert count_tokens(batch) == (texts, 0)


def test_counted_operations_are_those_of_real_steps(tmp_path: Path) -> None:
    run = make_run("pretrain", tmp_path, model=UNIMO2, train={"micro_batch_size": 4})
    with assembled(run) as (state, plan), count_products() as found:
        state.layer.train()
        take_step(state, iter(state.loader))
        state.loader.close()
    assert plan.step.operations == pytest.approx(found.training, rel=0.1)


def test_several_ranks_print_one_plan(tmp_path: Path) -> None:
    words = ["unimo2_tiny", "--plan", *QUICK, "train.batch_size=32", "train.micro_batch_size=8"]
    assert run_ranks(2, tmp_path, words, script=ROOT / "tools/pretrain.py") == 0
    assert (tmp_path / "launcher.log").read_text().count("plan: unimo2_tiny pretrain") == 1
    step = read(tmp_path)["step"]
    assert (step["ranks"], step["rounds"], step["micro_batch_samples"]) == (2, 2, 8)


def test_fine_tuning_prints_its_plan_and_stops(tool: Tool, tmp_path: Path) -> None:
    words = ("--task", "vqa", "--model", "unimo3_tiny", "--init", "none", *QUICK, f"output_dir={tmp_path}")
    code, out, err = tool("finetune", *words, "--plan")
    assert code == 0, err
    assert out.startswith("plan: unimo3_tiny vqa, ") and "heads" in out
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {"plan.json"}


def test_images_and_texts_of_corpora_are_counted(tmp_path: Path) -> None:
    """A whole corpus has counts of images and texts, a part of one a count of texts alone."""
    config = ScenesConfig(train_images=10, val_images=10, captions_per_image=3)
    counts = {
        kind: (dataset.count_images(), dataset.count_texts())
        for kind in ("pairs", "vqa", "texts", "images")
        for dataset in [open_scenes(kind, "train", config)]
    }
    assert counts == {"pairs": (10, 30), "vqa": (10, 60), "texts": (0, 30), "images": (10, 0)}
    part = open_scenes("pairs", "rest_val", config)
    assert (part.count_images(), part.count_texts()) == (None, 6)
    shapes = SceneShapes("train", config)
    assert (shapes.count_images(), shapes.count_texts()) == (10, 0)
    prompted = PromptDataset(shapes, "a {}")
    assert (prompted.count_images(), prompted.count_texts()) == (10, 10)
    lines = tmp_path / "pairs.jsonl"
    lines.write_text('{"image": "a.png", "texts": ["x", "y"]}\n' * 2)
    (tmp_path / "a.png").write_bytes(b"x")
    found = JsonlDataset(lines, "pairs")
    assert (found.count_images(), found.count_texts()) == (None, 4)
