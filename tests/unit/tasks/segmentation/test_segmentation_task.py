"""Segmentation: what learns, windows, scores and answers, with every family that reads images alone."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from micro import make_run, make_task, saved
from micro_semvlp import SEMVLP
from micro_unimo2 import MODEL as UNIMO2
from PIL import Image
from small_vlmo import small_config

from unimo.data.images.open import open_class_map
from unimo.data.prepare.writer import SCHEMAS, ArrowWriter
from unimo.data.processor import Processor
from unimo.data.record import Record
from unimo.data.scenes.dataset import encode, open_scenes, pixel_classes
from unimo.data.scenes.scene import CANVAS
from unimo.errors import CapabilityError, CheckpointError, ConfigError, DataError, RecordError
from unimo.inference.evaluation import measure
from unimo.inference.loading import load_task
from unimo.inference.pipeline import Pipeline
from unimo.inference.saving import save_model
from unimo.metrics.segmentation import confusion, scores
from unimo.registry import task_class
from unimo.settings import RunConfig, ScenesConfig
from unimo.tasks.base import to_tensors
from unimo.tasks.segmentation.batches import SegmentationCollator
from unimo.tasks.segmentation.sliding import slide, window_starts
from unimo.tasks.segmentation.task import RATIOS, SegmentationTask
from unimo.training.state import keeping_statistics

FAMILIES = ("unimo3", "unimo2", "vlmo")


def run_of(family: str, **changes: Any) -> RunConfig:
    if family == "vlmo":
        return dataclasses.replace(make_run("segmentation", **changes), model=small_config())
    return make_run("segmentation", **changes, **({"model": UNIMO2} if family == "unimo2" else {}))


def setting(family: str = "unimo3", **task: Any) -> tuple[RunConfig, SegmentationTask, Processor, Any]:
    run = run_of(family, task=task)
    return run, *make_task(run)


@pytest.mark.parametrize("family", FAMILIES)
def test_image_paths_and_heads_learn(family: str) -> None:
    run, task, _, data = setting(family)
    batch = to_tensors(next(data.train_loader(run)))
    loss, values = task(batch)
    assert loss.item() == pytest.approx(values["segmentation"].item() + 0.4 * values["auxiliary"].item())
    loss.backward()
    touched = {name for name, parameter in task.named_parameters() if parameter.grad is not None}
    assert touched == {name for name, parameter in task.named_parameters() if not parameter.stop_gradient}
    parts = {name.split(".")[1] for name in touched if name.startswith("model.")}
    assert parts == (
        {"patch_embedding", "class_embedding", "type_embedding", "relative_positions", "blocks"}
        if family == "vlmo"
        else {"vision"}
    )
    assert not any("ln_post" in name or ".text." in name for name in touched)
    assert {task.lr_group(name) for name in touched} == {"towers", "heads"}


def test_layers_above_the_last_that_is_read_do_not_learn() -> None:
    run, task, _, data = setting("vlmo", layers=[1, 1, 2, 2])
    task(to_tensors(next(data.train_loader(run))))[0].backward()
    learned = {name for name, parameter in task.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, parameter in task.named_parameters() if not parameter.stop_gradient}
    assert {name.split(".")[2] for name in learned if name.startswith("model.blocks.")} == {"0", "1"}


def test_the_loss_is_a_mean_over_all_pixels_and_those_without_class_count_as_zero() -> None:
    run, task, _, data = setting()
    task.eval()
    batch = next(data.train_loader(run))
    batch.class_maps[:3] = 255
    batch.class_maps[3:, :7] = 255
    batch = to_tensors(batch)
    logits = task.logits(batch.images).numpy().astype(np.float64)
    truth = batch.class_maps.numpy()
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    right = np.take_along_axis(logs, np.where(truth == 255, 0, truth)[:, None], axis=1)[:, 0]
    expected = -right[truth != 255].sum() / truth.size
    losses, reported = task.losses(batch)
    assert losses["segmentation"].item() == pytest.approx(expected, rel=1e-5)
    hits = (logits.argmax(1) == truth)[truth != 255].mean()
    assert reported["pixel_accuracy"].item() == pytest.approx(100 * hits, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_are_the_states_of_the_patches(family: str) -> None:
    run, task, _, data = setting(family)
    task.eval()
    model, images = task.model, to_tensors(next(data.train_loader(run))).images
    depth, width = model.map_sizes
    first, last = model.image_maps(images, [1, depth])
    side = run.data.image_size // run.model.vision.patch_size
    assert first.shape == last.shape == [8, width, side, side]
    if family == "vlmo":
        fused = model.fuse(None, model.encode_image(images)).fused_image[:, 1:]
        found = model.norm(last.flatten(2).transpose([0, 2, 1]))
        np.testing.assert_allclose(found.numpy(), fused.numpy(), atol=1e-5)
    else:
        layers = model.encode_image(images, layers=True).image_layers
        for found, layer in ((first, layers[1]), (last, layers[depth])):
            expected = layer[:, 1:].numpy().reshape(8, side, side, width).transpose(0, 3, 1, 2)
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(12, (4, 6, 8, 12)), (24, (8, 12, 16, 24)), (4, (1, 2, 3, 4)), (3, (1, 2, 2, 3)), (2, (1, 1, 1, 2))],
)
def test_layers_follow_the_depth(depth: int, layers: tuple[int, ...]) -> None:
    run = make_run("segmentation", model={"name": "unimo3_tiny", "vision": {"num_layers": depth}})
    task, _, _ = make_task(run)
    assert task.layers == layers


@pytest.mark.parametrize("layers", [[1, 2], [2, 1, 2, 2], [1, 1, 2, 3]])
def test_other_layers_are_refused(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"task\.layers"):
        make_task(make_run("segmentation", task={"layers": layers}))


def test_windows_cover_a_picture_as_beit_lays_them() -> None:
    assert window_starts(512, 512, 341) == [0]
    assert window_starts(683, 512, 341) == [0, 171]
    assert window_starts(1195, 512, 341) == [0, 341, 682, 683]


def test_one_window_is_the_plain_pass_and_others_are_averaged() -> None:
    run, task, _, data = setting()
    task.eval()
    images = to_tensors(next(data.train_loader(run))).images
    assert (slide(task.logits, images, 32, 21) == task.logits(images)).all()
    # Each window scores its pixels by its number, so each pixel tells the mean of the windows that show it.
    numbers = iter(range(9))
    picture = paddle.zeros([1, 3, 4, 6])
    found = slide(lambda part: paddle.full([1, 1, 4, 4], float(next(numbers))), picture, 4, 2)
    assert found[0, 0, 0].tolist() == [0, 0, 0.5, 0.5, 1, 1]


def cut(content: bytes, width: int, height: int) -> bytes:
    """The upper left part of a picture or map."""
    return encode(Image.open(io.BytesIO(content)).crop((0, 0, width, height)))


@pytest.mark.parametrize(
    ("scales", "shapes"),
    [
        ("single", [(43, 32)]),
        ("multi", [(43, 32), (43, 32), (43, 32), (53, 40), (64, 48), (75, 56)]),
    ],
)
def test_pictures_are_tested_at_their_own_shape(scales: str, shapes: list[tuple[int, int]]) -> None:
    run, task, processor, data = setting("vlmo", scales=scales)
    task.eval()
    whole = data.open_split(run.data.path[0], "val")[0]
    part = {"images": (cut(whole.images[0], 48, 64),), "class_map": cut(whole.class_map, 48, 64)}
    collator, rng = SegmentationCollator(processor, task.classes, RATIOS[scales], False), None

    def maps_of(*records: Record) -> list[np.ndarray]:
        batch = collator.collate([collator.prepare(record, rng) for record in records], rng)
        assert [view.shape[1:] for view in batch.pictures[0].values()] == shapes or len(records) == 1
        with paddle.no_grad():
            return task.class_maps(to_tensors(batch))

    both = maps_of(dataclasses.replace(whole, **part), whole)
    assert [found.shape for found in both] == [(64, 48), (CANVAS, CANVAS)]
    assert (maps_of(whole)[0] == both[1]).mean() > 0.999  # alone as beside others


def test_scores_are_those_of_the_maps_and_predictions_are_files(tmp_path: Path) -> None:
    run, task, _, data = setting()
    found: list[dict[str, Any]] = []
    metrics = task.evaluate(data.eval_loader("val", run), found.append)
    truth = [open_class_map(record.class_map) for record in data.open_split(run.data.path[0], "val")]
    maps = [each for prediction in found for each in prediction["class_maps"]]
    assert metrics == scores(sum(confusion(*pair, 5) for pair in zip(truth, maps, strict=True)))
    rows = [row for prediction in found for row in prediction["records"]]
    task.write_records(tmp_path / "maps.zip", rows)
    with zipfile.ZipFile(tmp_path / "maps.zip") as archive:
        assert archive.namelist() == ["val-0.png", "val-1.png", "val-2.png"]
        for name, each in zip(archive.namelist(), maps, strict=True):
            assert (np.asarray(Image.open(io.BytesIO(archive.read(name)))) == each + 1).all()


def test_a_saved_model_answers_with_the_pixels_of_each_class(tmp_path: Path) -> None:
    pipeline = Pipeline(saved("segmentation", tmp_path))
    noise = np.random.default_rng(0).integers(0, 256, (50, 90, 3)).astype(np.uint8)
    answers = pipeline.ask(Image.fromarray(noise))
    assert sum(answer.mask.astype(int) for answer in answers).tolist() == np.ones((50, 90), int).tolist()
    assert [answer.probability for answer in answers] == [answer.mask.mean() for answer in answers]
    assert answers == sorted(answers, key=lambda answer: -answer.probability)
    assert {answer.text for answer in answers} <= set(pixel_classes())
    path = tmp_path / "large.jpg"
    Image.fromarray(noise).resize((400, 300)).save(path)
    assert pipeline.ask(path)[0].mask.shape == (300, 400)  # not the size that classifiers decode at


def test_statistics_of_batch_norms_are_saved_and_no_trial_changes_them(tmp_path: Path) -> None:
    run, task, processor, data = setting()
    batch = to_tensors(next(data.train_loader(run)))
    before = task.head.pooled[1]._mean.numpy()
    with keeping_statistics(task):
        task(batch)
        assert np.abs(task.head.pooled[1]._mean.numpy() - before).max() > 0
    assert (task.head.pooled[1]._mean.numpy() == before).all()
    task(batch)
    folder = save_model(task, processor, tmp_path / "model", {}, run)
    again, _ = load_task(folder)
    task.eval()
    again.eval()
    assert (again.logits(batch.images) == task.logits(batch.images)).all()


@pytest.mark.parametrize("names", [None, [], ["a"], ["a", "a"], "ab", [1, 2]])
def test_a_model_without_classes_is_refused(names: Any) -> None:
    run, task, _, _ = setting()
    with pytest.raises(CheckpointError, match="metadata.classes: expected a JSON list of 2 to 255"):
        task_class("segmentation").create(task.model, run.task, {"classes": names})


def test_a_model_of_regions_is_refused() -> None:
    with pytest.raises(CapabilityError, match="image_alone.*unimo2_tiny"):
        make_task(make_run("segmentation", **SEMVLP))


def table(folder: Path, spoilt: int = 0, how: str = "", count: int = 6, name: str = "own_train") -> Path:
    """A table of scenes, the first maps of which are spoilt."""
    records = list(open_scenes("segmentation", "train", ScenesConfig(train_images=count)))
    with ArrowWriter(folder, name, SCHEMAS["segmentation"]) as writer:
        for number, record in enumerate(records):
            drawn = np.array(Image.open(io.BytesIO(record.class_map)))
            if number < spoilt:
                drawn = {"size": drawn[:40], "number": drawn + 5, "16 bits": drawn.astype(np.uint16)}[how]
            buffer = io.BytesIO()
            Image.fromarray(drawn).save(buffer, "PNG")
            writer.write({"image": record.images[0], "class_map": buffer.getvalue(), "image_id": str(number)})
    (folder / "classes.json").write_text(json.dumps(pixel_classes()))
    return folder


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("size", "the map is 64 x 40 pixels, its picture 64 x 64"),
        ("number", "the map has the numbers 5.*no classes; expected 0 to 4, or 255"),
        ("16 bits", "expected one number of 8 bits"),
    ],
)
def test_spoilt_maps_are_broken_records(
    tmp_path: Path, how: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = table(tmp_path, 1, how)
    run = make_run("segmentation", data={"path": [str(folder)], "max_bad_rate": 0.5})
    task, processor, data = make_task(run)
    with pytest.raises(RecordError, match=message):
        data.collator(False).prepare(data.open_split(run.data.path[0], "train")[0], None)
    evaluation = measure(task, data, "train", run)
    assert evaluation.samples == 5 and caplog.text.count("skipped") == 1
    more = table(tmp_path / "more", 3, how, count=101)
    strict = make_run("segmentation", data={"path": [str(more)]}, train={"eval_batch_size": 64})
    with pytest.raises(DataError, match="broken"):
        measure(task, task_class("segmentation").open_data(strict, processor), "train", strict)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no classes", "no file classes.json in .*prepare_data.py ade20k"),
        ("not names", r"classes.json: expected a JSON list of 2 to 255 different names"),
        ("empty", "holds no segmentation data: .*prepare_data.py ade20k; found classes.json"),
        ("no maps", "holds no segmentation data: expected \\*.arrow with a column `class_map`"),
        ("two sets", "has other classes than"),
    ],
)
def test_other_data_are_refused(tmp_path: Path, change: str, message: str) -> None:
    folder, paths = table(tmp_path / "own"), [str(tmp_path / "own")]
    if change == "no classes":
        (folder / "classes.json").unlink()
    elif change == "not names":
        (folder / "classes.json").write_text('{"a": 1}')
    elif change == "two sets":
        (folder / "classes.json").write_text('["a", "b", "c", "d", "e"]')
        paths.append("scenes")
    elif change == "empty":
        (folder / "own_train.arrow").unlink()
    else:
        with ArrowWriter(folder, "own_train", SCHEMAS["pairs"]) as writer:
            writer.write({"image": b"", "caption": ["a"], "image_id": "0", "split": "train"})
    run = make_run("segmentation", data={"path": paths})
    with pytest.raises(DataError, match=message):
        next(make_task(run)[2].train_loader(run))


def test_data_of_other_classes_than_the_models_are_refused(tmp_path: Path) -> None:
    folder = table(tmp_path)
    (folder / "classes.json").write_text('["a", "b", "c", "d", "e"]')
    run, _, processor, _ = setting()
    other = make_run("segmentation", data={"path": [str(folder)]})
    with pytest.raises(ConfigError, match="give data of its classes"):
        task_class("segmentation").open_data(other, processor, {"classes": pixel_classes()})
