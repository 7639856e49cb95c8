"""Every evaluation can be ended before each batch, and before each part of what comes after them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from micro import make_run, make_task
from micro_unimo import UNIMO

from unimo.registry import TASKS
from unimo.tasks.retrieval.matching import MatchingTask

WRITING: dict[str, Any] = {"size": 2, "min_length": 1, "max_length": 4}
CHANGES: dict[str, dict[str, Any]] = {
    "retrieval": {"task": {"candidates": 2, "fusion_batch_size": 2}},
    "caption": {**UNIMO, "task": {"java": False, "beam": WRITING}},
    "seq2seq": {"model": UNIMO["model"], "task": {"metrics": ["exact"], "beam": WRITING}},
    "text_classification": {"model": UNIMO["model"], "task": {"dataset": "sst2"}},
    "image_classification": UNIMO,
    "nlvr2": {"model": {"name": "unimo3_tiny", "vision": {"types": 2}}},
}


class EndedError(Exception):
    """Stands for a signal."""


class Watch:
    """Notes what was computed before each look, and ends an evaluation at one of them."""

    def __init__(self, end_at: int = -1) -> None:
        self.end_at, self.computed, self.between = end_at, 0, []

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.between.append(self.computed)
            self.computed = 0
            if len(self.between) == self.end_at:
                raise EndedError
            yield item


@pytest.mark.parametrize("name", TASKS)
def test_no_more_than_a_batch_or_part_is_computed_between_two_looks(name: str, monkeypatch) -> None:
    run = make_run(name, **CHANGES.get(name, {}))
    task, _, data = make_task(run)
    batches = list(data.eval_loader("val", run, batch_size=1))[:3]
    watch = Watch()

    def count(method: str) -> None:
        original = getattr(task, method)

        def counted(*arguments: Any) -> Any:
            watch.computed += 1
            return original(*arguments)

        monkeypatch.setattr(task, method, counted)

    if isinstance(task, MatchingTask):
        count("match_scores")
        count("text_vectors")
    else:
        count("predict")
    expected = task.evaluate(iter(batches))
    watch.computed = 0
    assert task.evaluate(iter(batches), watch=watch) == expected
    assert max(watch.between) == 1 and watch.computed == 1 and len(watch.between) >= 3
    if name == "retrieval":
        assert len(watch.between) > 3  # after the batches, parts of two pairs
    task.train()
    for end_at in (1, 2, len(watch.between)):
        with pytest.raises(EndedError):
            task.evaluate(iter(batches), watch=Watch(end_at))
        assert task.training
