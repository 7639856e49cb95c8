"""Captions by image: grouping, references from a file, collators, and what is said of missing captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unimo.config import merge_into
from unimo.data.processor import Processor, build_processor
from unimo.data.tokenizers import build_word_tokenizer, load_tokenizer, starts_word
from unimo.errors import DataError
from unimo.settings import RunConfig
from unimo.tasks.caption.batches import CaptionCollator
from unimo.tasks.caption.data import ImageCaptions, read_references, result_image_id
from unimo.tasks.caption.task import CaptionConfig, CaptionTask


def make_run(references: str = "", **data: object) -> RunConfig:
    values = {
        "data": {"image_size": 16, "scenes": {"train_images": 6, "val_images": 5}, **data},
        "train": {"batch_size": 6},
    }
    return merge_into(RunConfig(task=CaptionConfig(references=references)), values)


@pytest.fixture(scope="module")
def scenes_processor() -> Processor:
    return build_processor(make_run().data, load_tokenizer("scenes"))


def test_training_reads_captions_and_evaluation_images(scenes_processor: Processor):
    run = make_run()
    data = CaptionTask.open_data(run, scenes_processor)
    assert len(data.train_datasets()["scenes"]) == 24
    images = data.eval_dataset("val")
    assert len(images) == 5
    pairs = [data.open_split(run.data.path[0], "val")[index] for index in range(20)]
    for number, record in enumerate(images):
        assert record.image_id == f"val-{number}"
        assert record.references == tuple(pair.text for pair in pairs[4 * number : 4 * number + 4])
    assert len(data.eval_dataset("train")) == 6


def test_objects_are_those_of_the_pictures(scenes_processor: Processor):
    for record in CaptionTask.open_data(make_run(), scenes_processor).eval_dataset("val"):
        said = " ".join(record.references)
        named = {(color, shape) for color, shape in record.objects if f"{color} {shape}" in said}
        assert named, said


def test_evaluation_batches(scenes_processor: Processor):
    run = make_run()
    batch = next(iter(CaptionTask.open_data(run, scenes_processor).eval_loader("val", run, batch_size=3)))
    fields = {"images", "sample_ids", "image_ids", "references", "objects", "tokenizer"}
    assert {name for name, value in vars(batch).items() if value is not None} == fields
    assert batch.images.shape == (3, 3, 16, 16)
    assert batch.image_ids == ["val-0", "val-1", "val-2"]
    assert batch.tokenizer is scenes_processor.tokenizer


def test_every_token_but_the_last_predicts_the_next(corpus_class: type, processor: Processor):
    corpus, rng = corpus_class(size=5), np.random.default_rng(0)
    collator = CaptionCollator(processor, train=False)
    batch = collator.collate([collator.prepare(corpus[index], rng) for index in range(5)], rng)
    rows = [processor.ids(corpus[index].text) for index in range(5)]
    assert batch.input_ids.shape == (5, max(map(len, rows)) - 1)
    flat = batch.input_ids.reshape(-1)
    expected = [(token, following) for ids in rows for token, following in zip(ids, ids[1:], strict=False)]
    told = zip(flat[batch.target_positions].tolist(), batch.target_labels.tolist(), strict=True)
    assert list(told) == expected
    assert batch.attention_mask.sum() == len(expected)
    assert (flat != processor.tokenizer.eos_token_id).all()


def test_broken_samples_stay_for_the_loader_to_count(corpus_class: type):
    images = ImageCaptions(corpus_class(size=8, broken=(3, 6, 7)))
    # Image 1 has lost one of its captions, image 3 both.
    assert [len(images._texts[row]) for row in range(len(images))] == [2, 1, 0, 2, 0, 0]
    with pytest.raises(DataError, match="record 6 is broken"):
        images[4]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("COCO_val2014_000000391895.jpg", 391895),
        ("000000391895.jpg", 391895),
        ("COCO_train2014_000000000009", 9),
        (391895, 391895),
        ("1001773457_577c3a7d70.jpg", "1001773457_577c3a7d70.jpg"),
        ("391895", "391895"),
    ],
)
def test_ids_of_coco_images_are_numbers(name: int | str, number: int | str):
    assert result_image_id(name) == number


def write_references(path: Path, images: list[str]) -> Path:
    rows = [{"image_id": image, "caption": f"caption {k}"} for image in images for k in (0, 1)]
    path.write_text(json.dumps({"annotations": rows}))
    return path


def test_references_of_a_file_take_the_place_of_the_captions(tmp_path: Path, scenes_processor: Processor):
    file = write_references(tmp_path / "captions.json", [f"val-{i}" for i in range(7)])
    images = CaptionTask.open_data(make_run(str(file)), scenes_processor).eval_dataset("val")
    assert {record.references for record in images} == {("caption 0", "caption 1")}
    assert images[2].objects


def test_missing_references_are_named(tmp_path: Path, scenes_processor: Processor):
    file = write_references(tmp_path / "captions.json", ["val-0", "val-1", "val-3"])
    data = CaptionTask.open_data(make_run(str(file)), scenes_processor)
    with pytest.raises(DataError, match=r"no captions for 2 of 5 images, e\.g\. val-2, val-4.*val-0, val-1"):
        data.eval_dataset("val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "a list `annotations`"),
        ("{", "not valid JSON"),
        ('{"annotations": [{"image_id": 1, "caption": "a"}, {"image_id": 2}, 3]}', "annotation 1: expected"),
        ('{"annotations": [{"image_id": 1, "caption": " "}]}', "not empty"),
        (None, "No such file"),
    ],
)
def test_unusable_files_of_references(tmp_path: Path, content: str | None, message: str):
    file = tmp_path / "captions.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_references(file)


def test_tokens_that_start_words(shared: Path):
    words = build_word_tokenizer(["dog", "runs"])
    assert starts_word(words).tolist() == [False] * 4 + [True, True] + [False]
    bpe = load_tokenizer(shared / "data/tokenizer/unimo_en")
    ids = bpe.backend.encode(" a skateboarder ollies", add_special_tokens=False)
    begins = starts_word(bpe)[ids.ids].tolist()
    expected = [word != before for word, before in zip(ids.word_ids, [None, *ids.word_ids], strict=False)]
    assert begins == expected and sum(begins) == 3 < len(begins)
