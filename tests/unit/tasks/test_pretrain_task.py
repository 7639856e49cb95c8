"""Pre-training task: held-out figures equal the objective's losses, and masks are fixed."""

import numpy as np
import pytest
from micro import make_run, make_task

from unimo.tasks.base import to_tensors


@pytest.mark.parametrize("false_images", ["batch", "dataset"])
def test_evaluation_of_one_batch_equals_the_losses(false_images: str) -> None:
    run = make_run("pretrain", task={"false_images": false_images, "mlm_probability": 0.4})
    task, _, data = make_task(run)
    task.eval()
    batch = next(iter(data.eval_loader("val", run, batch_size=8)))
    losses, report = task.losses(to_tensors(batch))
    metrics = task.evaluate([batch])
    for name in ("mlm", "itm"):
        assert metrics[f"{name}_loss"] == pytest.approx(losses[name].item(), rel=1e-4)
        assert metrics[f"{name}_accuracy"] == pytest.approx(report[f"{name}_accuracy"].item(), rel=1e-4)


def test_masks_of_evaluation_are_fixed_and_follow_the_seed() -> None:
    run = make_run("pretrain", task={"mlm_probability": 0.4})
    _, _, data = make_task(run)
    first, again = (next(iter(data.eval_loader("val", run))).mlm_input_ids for _ in range(2))
    assert np.array_equal(first, again)
    other = next(iter(data.eval_loader("val", make_run("pretrain", seed=5)))).mlm_input_ids
    assert not np.array_equal(first, other)


def test_batch_without_a_masked_token_counts_for_itm_alone() -> None:
    run = make_run("pretrain", task={"mlm_probability": 0.0})
    task, _, data = make_task(run)
    batch = next(iter(data.eval_loader("val", run, batch_size=4)))
    batch.mlm_positions = batch.mlm_labels = np.zeros(0, np.int64)
    assert set(task.evaluate([batch])) == {"itm_loss", "itm_accuracy"}
