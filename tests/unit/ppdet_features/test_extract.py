"""Extraction with a plain detector: batches, files, going on, ranks, and pictures that cannot be used."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from plain_detector import SPECIAL, draw_pictures, plain_extractor, prepare

from ppdet_features.extract import ExtractionSettings, extract, load_extractor
from unimo.data.image_list import open_images
from unimo.data.images.open import open_image
from unimo.data.regions.store import RegionStore, shard_path
from unimo.data.scenes.dataset import ScenesDataset
from unimo.errors import ConfigError, DataError
from unimo.jobs import Shard
from unimo.progress import Progress
from unimo.settings import ScenesConfig

SETTINGS = ExtractionSettings(batch_size=3, look_ahead=5, images_per_shard=4, max_bad_rate=1.0)
ALONE = Shard(0, 1)


def run(pictures: Path, out: Path, part: Shard = ALONE, extractor=None, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    made = extractor or plain_extractor()
    return extract(
        open_images(str(pictures)), made, out, settings, part, partial(Progress, "images", quiet=True)
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def pictures(tmp_path) -> Path:
    return draw_pictures(tmp_path / "pictures", 14)


def test_every_picture_is_there_once_with_boxes_in_its_own_pixels(pictures, tmp_path):
    assert run(pictures, tmp_path / "out") == {"images": 14, "regions": 56, "skipped": 0}
    store = RegionStore(tmp_path / "out")
    assert [image.image_id for image in store.images()] == [f"{n:02d}.png" for n in range(14)]
    for image in store.images():
        picture = open_image(pictures / image.image_id)
        width, height = picture.size
        assert (image.regions.width, image.regions.height) == (width, height)
        np.testing.assert_array_equal(image.regions.boxes[3], [width / 2, height / 2, width, height])
        corner = prepare(picture)[:, :height, :width].mean((1, 2))
        np.testing.assert_array_equal(image.regions.features[0], corner.astype(np.float16))


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"look_ahead": 1}, {"num_workers": 0}])
def test_grouping_and_threads_do_not_change_what_comes_out(pictures, tmp_path, changes):
    run(pictures, tmp_path / "one")
    run(pictures, tmp_path / "two", **changes)
    pairs = zip(RegionStore(tmp_path / "one").images(), RegionStore(tmp_path / "two").images(), strict=True)
    for one, two in pairs:
        assert one.image_id == two.image_id
        np.testing.assert_allclose(one.regions.features, two.regions.features, atol=1e-5)


def test_pictures_of_one_size_run_together(pictures, tmp_path):
    extractor = plain_extractor()
    run(pictures, tmp_path / "out", extractor=extractor, images_per_shard=14, look_ahead=14)
    sizes = [Image.open(path).size for path in pictures.iterdir()]
    assert sum(extractor.detector.batches) == 14
    assert len(extractor.detector.batches) == sum(-(-sizes.count(size) // 3) for size in set(sizes))


def test_a_killed_job_goes_on_and_gives_the_same_bytes(pictures, tmp_path):
    run(pictures, tmp_path / "whole")
    out = tmp_path / "out"

    class Killed(BaseException):
        pass

    for stop in (2, 3, 1):  # pictures into a file, and at once after one
        extractor = plain_extractor()
        detect, left = extractor.detector.detect, stop

        def failing(images, detect=detect):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return detect(images)

        extractor.detector.detect = failing
        with pytest.raises(Killed):
            run(pictures, out, extractor=extractor)
        (out / ".regions-00003.safetensors.1.tmp").write_text("half a file")
    extractor = plain_extractor()
    assert run(pictures, out, extractor=extractor)["images"] == 14
    assert content(out) == content(tmp_path / "whole")
    assert run(pictures, out)["images"] == 14  # and once more, with nothing left to do
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ranks_write_what_one_writes(pictures, tmp_path, order):
    run(pictures, tmp_path / "whole")
    out = tmp_path / "out"
    assert run(pictures, out, Shard(order[0], 2)) is None
    with pytest.raises(DataError, match="has not ended"):
        RegionStore(out)
    assert run(pictures, out, Shard(order[1], 2)) == {"images": 14, "regions": 56, "skipped": 0}
    assert content(out) == content(tmp_path / "whole")


def test_more_ranks_than_files(tmp_path):
    pictures = draw_pictures(tmp_path / "pictures", 2)
    assert run(pictures, tmp_path / "out", Shard(1, 2)) is None
    assert run(pictures, tmp_path / "out", Shard(0, 2))["images"] == 2


def test_another_job_is_refused(pictures, tmp_path):
    run(pictures, tmp_path / "out")
    with pytest.raises(DataError, match="batch_size 3 there, 2 here"):
        run(pictures, tmp_path / "out", batch_size=2)
    with pytest.raises(DataError, match="weights 'none' there, 'others' here"):
        made_by = {"detector": "plain", "weights": "others"}
        run(pictures, tmp_path / "out", extractor=dataclasses.replace(plain_extractor(), made_by=made_by))
    (pictures / "03.png").unlink()
    with pytest.raises(DataError, match="list"):
        run(pictures, tmp_path / "out")
    (tmp_path / "out" / "job.json").unlink()
    with pytest.raises(DataError, match="another job"):
        run(pictures, tmp_path / "out")


def test_pictures_that_cannot_be_used_are_listed(pictures, tmp_path, caplog):
    for name, color in SPECIAL.items():
        Image.new("RGB", (14, 14), color).save(pictures / f"{name}.png")
    data = (pictures / "05.png").read_bytes()
    (pictures / "cut.png").write_bytes(data[: len(data) // 2])
    assert run(pictures, tmp_path / "out") == {"images": 14, "regions": 56, "skipped": 4}
    store = RegionStore(tmp_path / "out")
    reasons = {entry.image_id: entry.reason for entry in store.skipped}
    assert "damaged" in reasons["cut.png"]
    assert "no regions" in reasons["nothing.png"]
    assert "not finite" in reasons["nan.png"]
    assert "outside of its 14 x 14 pixels" in reasons["outside.png"]
    assert sum("skipped" in message for message in caplog.messages) == 1
    assert [line["image_id"] for line in map(json.loads, open(store.folder / "labels.jsonl"))] == [
        image.image_id for image in store.images()
    ]


def test_too_many_bad_pictures_end_the_job_and_keep_the_files(tmp_path):
    pictures = draw_pictures(tmp_path / "pictures", 9)
    (pictures / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 of 10 records .* --max-bad-rate=0.05"):
        run(pictures, tmp_path / "out", max_bad_rate=0.05)
    extractor = plain_extractor()
    assert run(pictures, tmp_path / "out", extractor=extractor, max_bad_rate=0.2)["images"] == 9
    assert extractor.detector.batches == []


def test_bad_pictures_that_lie_together_are_judged_by_the_whole_list(tmp_path):
    pictures = draw_pictures(tmp_path / "pictures", 220)
    for number in range(96, 100):  # the last ones by name
        (pictures / f"{number}.png").write_bytes(b"no picture")
    out, changes = tmp_path / "out", {"images_per_shard": 110, "max_bad_rate": 0.02}
    assert run(pictures, out, **changes)["skipped"] == 4
    shard_path(out, 1).unlink()
    assert run(pictures, out, **changes)["skipped"] == 4
    for number in range(5):
        (pictures / f"{number:02d}.png").write_bytes(b"no picture")
    extractor = plain_extractor()
    with pytest.raises(DataError, match="5 of 220 records .* --max-bad-rate=0.02"):
        run(pictures, tmp_path / "stopped", extractor=extractor, **changes)
    assert sum(extractor.detector.batches) < 50  # nothing that follows could help


def test_what_names_a_detector_is_what_its_regions_depend_on(tmp_path, root):
    config = yaml.safe_load((root / "ppdet_features" / "configs" / "scenes_tiny.yaml").read_text())

    def made_by(**changes):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({**config, **changes}))
        return load_extractor(str(tmp_path / "c.yaml"), None).made_by

    same = made_by()
    assert made_by(Training={"steps": 7}, BBoxAssigner={"fg_fraction": 0.25}) == same
    for key, value in (
        ("RegionSelection", {"max_boxes": 7, "min_boxes": 4}),
        ("class_names", ["circle", "square", "triangle", "star"]),
    ):
        other = made_by(**{key: value})
        assert {name for name in same if same[name] != other[name]} == {
            {"class_names": "names"}.get(key, key)
        }


def test_each_image_of_a_corpus_of_captions_once(tmp_path):
    pictures = draw_pictures(tmp_path / "images", 3)
    lines = [{"image": f"images/{n:02d}.png", "text": text} for text in ("one", "two") for n in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "broken\n")
    images = open_images(str(tmp_path / "train.jsonl"))
    names = [images.image_id(number) for number in range(len(images))]
    assert names == [*(f"images/{n:02d}.png" for n in range(3)), "train[6]"]
    assert images.source(2) == pictures / "02.png"


def test_each_image_of_sentences_about_two_images_once():
    images = open_images("scenes", "nlvr2", "train+val", 2)
    records = [
        record for split in ("train", "val") for record in ScenesDataset("nlvr2", split, ScenesConfig(2, 2))
    ]
    shown = {
        picture.image_id: picture.images[0]
        for record in records
        for picture in (record.picture(0), record.picture(1))
    }
    assert len(images) == len(shown) == 2 * 2 * 4  # splits, sentences, images of a sentence
    assert {images.image_id(i): images.source(i) for i in range(len(images))} == shown


def test_a_folder_is_taken_with_all_its_subfolders(tmp_path, caplog):
    names = ["01.png", "holiday/02.png", "train/03.png", "val/04.png"]
    for path, name in zip(sorted(draw_pictures(tmp_path, 4).glob("*.png")), names, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        path.rename(tmp_path / f"{name}.new")
    for name in names:
        (tmp_path / f"{name}.new").rename(tmp_path / name)
    for name in ("phone.HEIC", "train/readme.txt", ".hidden.txt"):
        (tmp_path / name).write_text("no picture")
    images = open_images(str(tmp_path))
    assert [images.image_id(number) for number in range(len(images))] == names
    assert "2 files are no pictures by their endings: 1 .heic, 1 .txt" in caplog.text
    images = open_images(str(tmp_path), split="train+val")
    assert [images.image_id(number) for number in range(len(images))] == names[2:]


def test_scenes_have_the_ids_that_training_reads():
    pairs = open_images("scenes", "pairs", "train+val", scenes_images=3)
    assert [pairs.image_id(n) for n in range(6)] == [f"{s}-{n}" for s in ("train", "val") for n in range(3)]
    assert open_images("scenes", "images", "val", 2).image_id(1) == "images-val-1"
    assert open_images("scenes", "labels", "train", 2).image_id(1) == "shapes-train-1"
    with pytest.raises(ConfigError, match="--split"):
        open_images("scenes", "labels")


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="batch_size 0: expected 1 or more; try 8"):
        ExtractionSettings(batch_size=0)


def test_the_complaint_about_another_job_stays_short(pictures, tmp_path):
    run(pictures, tmp_path / "out")
    made_by = {"detector": "x" * 100_000, "weights": "none"}
    with pytest.raises(DataError, match="detector 'plain' there, 'xxx") as refused:
        run(pictures, tmp_path / "out", extractor=dataclasses.replace(plain_extractor(), made_by=made_by))
    assert len(str(refused.value)) < 500
