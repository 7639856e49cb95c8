"""Evaluation of a model directory: repeatable, with overrides, blank images and prediction files."""

import contextlib
import json
from pathlib import Path

import pytest
from micro import make_run, make_task, saved

from unimo.data.loading.batch import PairCollator
from unimo.data.loading.loader import EvalLoader
from unimo.errors import ConfigError, DataError
from unimo.inference.evaluation import describe, evaluate, judge_records, write_predictions


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("vqa", tmp_path_factory.mktemp("run"))


def test_equals_the_evaluation_of_the_task_that_was_saved(directory: Path) -> None:
    run = make_run("vqa")
    task, _, data = make_task(run)
    result = evaluate(directory, "val", "vqa")
    assert result.metrics == task.evaluate(data.eval_loader("val", run))
    assert result.samples == 18 == len(result.records)


def test_batch_size_does_not_matter_and_overrides_reach_the_data(directory: Path) -> None:
    whole = evaluate(directory, "val")
    small = evaluate(directory, "val", overrides=["train.eval_batch_size=5"])
    assert small.metrics == pytest.approx(whole.metrics)
    assert evaluate(directory, "val", overrides=["data.scenes.val_images=1"]).samples == 6
    assert evaluate(directory, "val", overrides=["train.eval_max_batches=1"]).samples == 8


def test_blank_images_leave_nothing_to_see(directory: Path) -> None:
    result = evaluate(directory, "val", blank_images=True)
    by_option = evaluate(directory, "val", overrides=["data.blank_images=true"])
    assert result.records == by_option.records
    assert describe(directory, result, True)["blank_images"] is True


def test_server_file(directory: Path, tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "new" / "answers.json", evaluate(directory, "val"))
    rows = json.loads(path.read_text())
    assert [row["question_id"] for row in rows] == list(range(18))
    assert all(set(row) == {"question_id", "answer"} for row in rows)


def test_pretraining_has_no_predictions(tmp_path: Path) -> None:
    result = evaluate(saved("pretrain", tmp_path), "val")
    assert set(result.metrics) == {"mlm_loss", "mlm_accuracy", "itm_loss", "itm_accuracy"}
    with pytest.raises(ConfigError, match="no predictions"):
        write_predictions(tmp_path / "x.json", result)


def test_task_options_of_retrieval(tmp_path: Path) -> None:
    directory = saved("retrieval", tmp_path)
    result = evaluate(directory, "val", overrides=["task.exhaustive=true"])
    assert result.samples == 12 == len(result.records)
    assert result.metrics["rsum"] == pytest.approx(sum(v for k, v in result.metrics.items() if "_" in k))


def test_wrong_task_or_model_override(directory: Path) -> None:
    with pytest.raises(ConfigError, match="trained on 'vqa'"):
        evaluate(directory, "val", "retrieval")
    with pytest.raises(ConfigError, match="belongs to the weights"):
        evaluate(directory, "val", overrides=["model.fusion.hidden_size=8"])
    with pytest.raises(ConfigError, match="nearest: eval_batch_size"):
        evaluate(directory, "val", overrides=["train.eval_batchsize=8"])


def test_records_of_several_ranks_come_in_the_order_of_the_split(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = evaluate(directory, "val", "vqa").records
    # Rank r of three reads every third sample from r on.
    ranks = [(alone[rank::3], len(alone[rank::3])) for rank in range(3)]
    monkeypatch.setattr("unimo.inference.evaluation.gather_objects", lambda value: ranks)
    together = evaluate(directory, "val", "vqa")
    assert together.records == alone and together.samples == len(alone)


@pytest.mark.parametrize(
    ("size", "broken", "message"),
    [
        (8, range(8), "all records of the split val are broken"),
        (150, range(150), "all records|of 100 records"),
        (150, range(0, 150, 2), "(75 of 150|49 of 100) records"),
        (150, [4, 8], "2 of 150 records of memory were broken"),
        (150, [7], ""),
        (60, range(0, 60, 2), ""),
        (9, [], ""),
    ],
)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_broken_records_of_all_ranks_are_judged_together(
    size, broken, message, ranks, corpus_class, processor, monkeypatch
) -> None:
    corpus = corpus_class(size=size, broken=broken)
    loaders = [
        EvalLoader(corpus, PairCollator(processor, False), 4, rank, ranks, num_workers=0, max_bad_rate=0.01)
        for rank in range(ranks)
    ]
    for loader in loaders:
        # A rank that sees too many alone ends at once, one that is alone with nothing whole too.
        with contextlib.suppress(DataError):
            list(loader)
    states = [loader.counter.state_dict() for loader in loaders]
    monkeypatch.setattr("unimo.inference.evaluation.gather_objects", lambda value: states)
    for loader in loaders:
        with pytest.raises(DataError, match=message) if message else contextlib.nullcontext():
            judge_records(loader, "val")
