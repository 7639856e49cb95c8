"""Object tags before captions: the file, batches, training and search, for both families that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import micro_unimo
import micro_unimo2
import numpy as np
import paddle
import pytest
from micro import make_run, make_task

from unimo.data.record import Record
from unimo.errors import ConfigError, DataError
from unimo.inference.evaluation import evaluate
from unimo.inference.saving import save_model
from unimo.nn.beam_search import BeamConfig
from unimo.tasks.base import to_tensors
from unimo.tasks.caption.tags import find_tags, read_tags, tag_key

FAMILIES = {"unimo": micro_unimo.UNIMO, "unimo2": {"model": micro_unimo2.MODEL}}
BEAM = {"size": 2, "min_length": 2, "max_length": 12}


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Tags of the pictures of `scenes`: 3, 1, none, 3, 1, none, ... tokens, some with other positions."""
    path = tmp_path_factory.mktemp("tags") / "object_tot.ids"
    lines = []
    for split, count in (("train", 12), ("val", 3)):
        for index in range(count):
            ids = [[10, 11, 12 + index], [20], []][index % 3]
            numbers = (
                " ".join(map(str, ids)),
                " ".join("0" for _ in ids),
                " ".join(str(2 + i) for i in range(len(ids))),
            )
            lines.append(";".join([f"{split}-{index}", *numbers]))
    path.write_text("\n".join(lines) + "\n")
    return path


def make(family: str, tags: Path | str, **changes: Any):
    task = {"java": False, "beam": BEAM, "tags": str(tags), **changes}
    run = make_run("caption", **{**FAMILIES[family], "task": task})
    return run, *make_task(run)


def test_images_are_found_by_number_or_name():
    names = ("COCO_val2014_000000391895.jpg", "000000391895.jpg", "391895", "train/391895.png", 391895)
    assert {tag_key(name) for name in names} == {391895}
    assert tag_key("val-3") == "val-3" != tag_key("val-4")
    found = {391895: (np.array([5], np.int32), np.array([2], np.int32))}
    ids, _ = find_tags(found, Record("1", "coco", image_id="COCO_val2014_000000391895.jpg"))
    assert ids.tolist() == [5] and not len(find_tags(found, Record("1", "coco", image_id="other"))[0])


def test_a_file_is_read_as_it_is_and_cut(tmp_path):
    path = tmp_path / "tags.ids"
    path.write_text("391895;0 7 8 2;0 0 0 0;2 3 4 9\nother ; ; ;\n")
    found = read_tags(path, 3, vocabulary=9, rows=10)
    assert [part.tolist() for part in found[391895]] == [[0, 7, 8], [2, 3, 4]]
    assert [part.tolist() for part in found["other"]] == [[], []]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1;2 3;0 0", "expected `image ; token ids ; sentence ids ; position ids`"),
        ("1;2 x;0 0;2 3", "expected `image ; token ids"),
        ("1;2 3;0 0;2", "expected as many token ids, below 9, as position ids, below 10"),
        ("1;2 9;0 0;2 3", "expected as many token ids, below 9"),
        ("1;2 3;0 0;2 10", "expected as many token ids"),
        ("1;2 -3;0 0;2 3", "expected as many token ids"),
    ],
)
def test_wrong_lines_are_named_and_left_out(tmp_path, line, said, caplog):
    path = tmp_path / "tags.ids"
    path.write_text(f"0;4;0;2\n{line}\n")
    assert list(read_tags(path, 100, vocabulary=9, rows=10)) == [0]
    assert f"task.tags {path}, line 2: {said}" in caplog.text
    path.write_text(f"{line}\n0;4;0;2\n{line}\n")
    with pytest.raises(DataError, match=f"2 of 3 samples of .*task.tags {path}, line 1: {said}"):
        read_tags(path, 100, vocabulary=9, rows=10)


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="cannot read task.tags"):
        read_tags(tmp_path / "none", 100, 9, 10)
    (tmp_path / "empty").write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_tags(tmp_path / "empty", 100, 9, 10)
    with pytest.raises(ConfigError, match="task.max_tags 0: expected 1 or more; try 100"):
        make_run("caption", model=micro_unimo2.MODEL, task={"max_tags": 0})


@pytest.mark.parametrize("train", [True, False])
def test_batches_have_the_tags_of_their_images(file, train):
    run, _, _, data = make("unimo2", file)
    batch = next(data.train_loader(run)) if train else next(iter(data.eval_loader("val", run)))
    assert set(batch.tags) == {"ids", "mask", "positions"} and batch.tags["ids"].shape[1] == 3
    for row, sample in enumerate(batch.sample_ids):  # val-3-0: the fourth picture
        picture = int(sample.split("-")[1])
        expected = [[10, 11, 12 + picture], [20], []][picture % 3]
        length = len(expected)
        assert batch.tags["ids"][row].tolist() == expected + [1] * (3 - length)
        assert batch.tags["mask"][row].tolist() == [1] * length + [0] * (3 - length)
        assert batch.tags["positions"][row].tolist() == [2, 3, 4][:length] + [1] * (3 - length)


def test_a_batch_without_any_tags_is_one_of_images_alone(file):
    _, _, _, data = make("unimo2", file)
    dataset, collator, rng = data.train_datasets()["scenes"], data.collator(True), np.random.default_rng(0)
    prepared = [collator.prepare(dataset[index], rng) for index in (8, 9)]  # of the third picture
    assert collator.collate(prepared, rng).tags is None


def test_a_file_of_other_images_is_refused(tmp_path):
    (tmp_path / "tags.ids").write_text("elsewhere;5;0;2\n")
    run, _, _, data = make("unimo2", tmp_path / "tags.ids")
    said = "task.tags has none for the first 48 samples of scenes, e.g. image 'train-0'; images in it: elsew"
    with pytest.raises(DataError, match=said):
        data.train_loader(run)


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_are_learned_behind_tags(file, family):
    """The loss sees the tags, everything learns, and no image sees those of another."""
    run, task, _, data = make(family, file)
    batch = to_tensors(next(data.train_loader(run)))
    loss, _ = task(batch)
    loss.backward()
    assert [n for n, p in task.named_parameters() if not p.stop_gradient and p.grad is None] == []
    task.eval()
    with paddle.no_grad():
        states = task.model.decode(task.encode(batch), batch.input_ids, batch.attention_mask).numpy()
        batch.tags["ids"] = paddle.where(
            batch.tags["ids"] == 10, paddle.full([], 30, "int64"), batch.tags["ids"]
        )
        moved = task.model.decode(task.encode(batch), batch.input_ids, batch.attention_mask).numpy()
    for row, sample in enumerate(batch.sample_ids):
        assert np.allclose(states[row], moved[row], atol=1e-6) is (int(sample.split("-")[1]) % 3 != 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_search_behind_tags_is_that_of_each_image_alone(file, family):
    run, task, processor, data = make(family, file)
    task.eval()
    batch = to_tensors(next(iter(data.eval_loader("val", run))))
    beam = BeamConfig(3, 0.6, 3, 10)
    with paddle.no_grad():
        together = task.generate(batch, processor.tokenizer, beam)
        for row, hypotheses in enumerate(together):
            part = to_tensors(next(iter(data.eval_loader("val", run))))
            part.images = (
                {k: v[row : row + 1] for k, v in part.images.items()}
                if family == "unimo"
                else part.images[row : row + 1]
            )
            length = int(part.tags["mask"][row].sum())
            part.tags = {k: v[row : row + 1, :length] for k, v in part.tags.items()} if length else None
            (alone,) = task.generate(part, processor.tokenizer, beam)
            assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
            np.testing.assert_allclose([h.score for h in alone], [h.score for h in hypotheses], rtol=1e-4)


def test_a_model_directory_keeps_its_tags(file, tmp_path):
    run, task, processor, _ = make("unimo2", file)
    done = evaluate(save_model(task, processor, tmp_path / "model", run=run), overrides=["train.device=cpu"])
    assert done.run.task.tags == str(file) and len(done.records) == 3
