import json
import logging
from pathlib import Path

import pytest
from small_run import SmallData, SmallTask, make_run, train

from unimo.errors import ConfigError, DataError, SplitError, TrainingError
from unimo.training import callbacks, checkpoint
from unimo.training.callbacks.metrics_file import cut_after


def test_non_finite_loss_names_the_samples_and_is_never_saved(tmp_path: Path) -> None:
    clean = train(make_run(tmp_path / "clean", train={"save_every": 1, "keep_checkpoints": 100}))
    assert clean.step == 12
    run = make_run(tmp_path / "bad", task={"nonfinite_id": "b/3"}, train={"save_every": 1, "log_every": 100})
    with pytest.raises(TrainingError, match="is not finite .*b/3") as caught:
        train(run)
    found = json.loads((tmp_path / "bad/nonfinite_batch.json").read_text())
    assert f"step {found['step']} " in str(caught.value)
    assert len(found["sample_ids"]) == 8
    last = checkpoint.find_last(tmp_path / "bad")
    assert (int(last.name[5:]) if last else 0) == found["step"] - 1


def test_lines_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3, "loss": 0.1}\n{"step": 6, "loss": 0.30000000000000004}\n{"step": 9}\n{"st')
    assert [row["step"] for row in cut_after(path, 6)] == [3, 6]
    assert path.read_text() == '{"step": 3, "loss": 0.1}\n{"step": 6, "loss": 0.30000000000000004}\n'
    assert cut_after(tmp_path / "absent.jsonl", 6) == []


def test_throughput_adds_speed_and_memory(tmp_path: Path) -> None:
    train(make_run(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["step"] == 6)
    assert row["samples_per_second"] == pytest.approx(8 / row["step_seconds"])
    assert 0 <= row["data_wait"] <= 1
    assert row["lr"] == pytest.approx(0.01 * (1 - 4 / 11))
    assert 50 < row["memory_mb"] <= row["peak_memory_mb"] + 1


@pytest.mark.parametrize(("metric", "kept"), [("accuracy", [2, 6]), ("val_loss", [2, 4])])
def test_best_model_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, kept: list[int]
) -> None:
    scores = iter([0.5, 0.4, 0.6, 0.5, 0.5, 0.5])
    saved: list[int] = []
    monkeypatch.setattr(SmallTask, "evaluate", lambda *_, **__: {metric: next(scores)})
    monkeypatch.setattr("unimo.inference.saving.save_model", lambda *_: saved.append(len(saved)))
    state = train(make_run(tmp_path, train={"eval_every": 2, "select_metric": metric}))
    assert state.best["step"] == kept[-1]
    assert len(saved) == len(kept)


def test_unknown_select_metric_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="select_metric='weight_sums'.*nearest: weight_sum"):
        train(make_run(tmp_path, train={"select_metric": "weight_sums"}))


@pytest.mark.parametrize("metric", ["meteor", "spice"])
def test_a_metric_whose_program_is_missing_is_found_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    monkeypatch.setattr("unimo.metrics.caption.find_evaluation", lambda: None)
    monkeypatch.setattr(SmallTask, "evaluate", lambda *_: pytest.fail("evaluated"))
    monkeypatch.setattr("unimo.training.loop.take_step", lambda *_: pytest.fail("trained"))
    with pytest.raises(ConfigError, match=rf'select_metric={metric} needs Java and pip .*"\.\[caption\]"'):
        train(make_run(tmp_path, train={"select_metric": metric}))


def test_progress_writes_plain_lines_without_a_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="unimo"):
        train(make_run(tmp_path), [callbacks.Progress()])
    assert "step 1/12 steps  loss " in caplog.text and "step 6/12 steps  loss " in caplog.text
    assert "samples_per_second" in caplog.text
    assert "ETA 00:00" in caplog.text


def test_visualdl_curves_can_be_read(tmp_path: Path) -> None:
    from visualdl import LogReader

    train(make_run(tmp_path), [callbacks.VisualDL()])
    file = next((tmp_path / "vdl").glob("*.log"))
    scalars = LogReader(file_path=str(file)).get_data("scalar", "train/loss")
    assert [item.id for item in scalars] == [1, 3, 6, 9, 12]


def test_run_without_a_val_split_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise SplitError("no split val in X")

    monkeypatch.setattr(SmallData, "eval_loader", missing)
    assert train(make_run(tmp_path / "a")).step == 12
    assert "no evaluation during this run: no split val in X" in caplog.text
    with pytest.raises(SplitError, match="no split val"):
        train(make_run(tmp_path / "b", train={"select_metric": "accuracy"}))


def test_run_with_a_val_split_that_cannot_be_read_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise DataError("val has classes that train does not have")

    monkeypatch.setattr(SmallData, "eval_loader", broken)
    with pytest.raises(DataError, match="val has classes"):
        train(make_run(tmp_path))
