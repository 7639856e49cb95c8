"""Files beside the corpora that samples are made of: a run does not go on with others, and says which."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from micro import make_run
from micro_unimo import MODEL
from picture_files import write_pictures
from region_samples import WIDTHS, sample, write_store

from unimo.data.regions.tsv import write_tsv
from unimo.data.tokenizers import build_word_tokenizer
from unimo.errors import CheckpointError
from unimo.settings import RunConfig
from unimo.training.run import train

WORDS = "a dog cat cow on grass snow".split()
IMAGES = [f"{number}.jpg" for number in range(6)]


def stored(seed: int, images: list[str]) -> list:
    return [sample(image, seed + number) for number, image in enumerate(images)]


def write_extras(folder: Path, job: str, word: str) -> None:
    lines = [
        {
            "id": f"train:{number}#0",
            "positives": [{"text": f"{word} on grass"}],
            "negatives": {"word": [{"text": f"a {word}"}]},
            "texts": [{"text": f"{word} on snow"}],
            "images": [{"image_id": IMAGES[(number + len(word)) % 6]}],
        }
        for number in range(1, 7)
    ]
    (folder / f"{job}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_pairs(folder: Path) -> None:
    write_pictures(folder / "pairs", IMAGES)
    rows = [{"image": image, "image_id": image, "text": f"a {WORDS[at]}"} for at, image in enumerate(IMAGES)]
    (folder / "pairs/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def unimo(folder: Path) -> RunConfig:
    """A run of pairs with regions from a store and a TSV file, extras, and a tokenizer of its own."""
    write_pairs(folder)
    write_store(folder / "store", stored(0, IMAGES[:4]))
    write_tsv(folder / "rest.tsv", stored(4, IMAGES[4:]))
    for job in ("rewrites", "texts", "images"):
        write_extras(folder, job, "dog")
    build_word_tokenizer(WORDS).save(folder / "words")
    return make_run(
        "pretrain",
        folder / "run",
        model=MODEL | {"regions": {"feature_size": WIDTHS.features, "num_classes": WIDTHS.classes}},
        data={
            "pairs": [{"path": str(folder / "pairs"), "name": "mine"}],
            "regions": f"{folder / 'store'},{folder / 'rest.tsv'}",
            "tokenizer": str(folder / "words"),
        },
        task={"augment": {job: str(folder / f"{job}.jsonl") for job in ("rewrites", "texts", "images")}},
        train={"max_steps": 2, "save_every": 1, "batch_size": 4},
    )


def vqa(folder: Path) -> RunConfig:
    """A run of questions whose answers stand in a file."""
    write_pictures(folder / "questions", IMAGES)
    rows = [
        {
            "image": image,
            "image_id": image,
            "question": "what is a dog ?",
            "question_id": at,
            "answers": {"cat": 1.0},
        }
        for at, image in enumerate(IMAGES)
    ]
    (folder / "questions/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "questions/answers.json").write_text(json.dumps(["cat", "cow"]))
    return make_run(
        "vqa",
        folder / "run",
        data={"path": [{"path": str(folder / "questions"), "name": "mine"}]},
        train={"max_steps": 2, "save_every": 1, "batch_size": 4},
    )


def caption(folder: Path) -> RunConfig:
    """A run of captions behind object tags."""
    write_pairs(folder)
    write_tags(folder, 5)
    build_word_tokenizer(WORDS).save(folder / "words")
    return make_run(
        "caption",
        folder / "run",
        model=MODEL,
        task={"tags": str(folder / "tags.ids"), "java": False},
        data={
            "path": [{"path": str(folder / "pairs"), "name": "mine"}],
            "regions": "grid:2:2",
            "tokenizer": str(folder / "words"),
        },
        train={"max_steps": 2, "save_every": 1, "batch_size": 4},
    )


def write_tags(folder: Path, token: int) -> None:
    (folder / "tags.ids").write_text("".join(f"{image};{token};0;2\n" for image in IMAGES))


def other_features(folder: Path) -> None:
    shutil.rmtree(folder / "store")
    write_store(folder / "store", stored(10, IMAGES[:4]))


def other_probabilities(folder: Path) -> None:
    shutil.rmtree(folder / "store")
    images = stored(0, IMAGES[:3])
    changed = sample(IMAGES[3], 3, class_probs=np.full((2, 3), 0.25))
    write_store(folder / "store", [*images, changed])


def swapped_words(folder: Path) -> None:
    path = folder / "words/tokenizer.json"
    content = json.loads(path.read_text())
    ids = content["model"]["vocab"]
    ids["snow"], ids["on"] = ids["on"], ids["snow"]
    path.write_text(json.dumps(content))


CHANGES: dict[str, tuple[Callable[[Path], RunConfig], str, Callable[[Path], object]]] = {
    "store": (unimo, "data.regions for mine", other_features),
    "one picture": (unimo, "data.regions for mine", other_probabilities),
    "tsv": (
        unimo,
        "data.regions for mine",
        lambda folder: write_tsv(folder / "rest.tsv", stored(9, IMAGES[4:])),
    ),
    "rewrites": (
        unimo,
        "task.augment.rewrites for mine",
        lambda folder: write_extras(folder, "rewrites", "cat"),
    ),
    "texts": (unimo, "task.augment.texts for mine", lambda folder: write_extras(folder, "texts", "cat")),
    "images": (unimo, "task.augment.images for mine", lambda folder: write_extras(folder, "images", "snow")),
    "tokenizer": (unimo, "data.tokenizer", swapped_words),
    "tags": (caption, "task.tags for mine", lambda folder: write_tags(folder, 6)),
    "answers": (
        vqa,
        "answers of the task",
        lambda folder: (folder / "questions/answers.json").write_text(json.dumps(["cow", "cat"])),
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """A function that returns the folder and the run of one that was stopped after a step; made once each."""
    made: dict[Callable[[Path], RunConfig], tuple[Path, RunConfig]] = {}

    def get(make: Callable[[Path], RunConfig]) -> tuple[Path, RunConfig]:
        if make not in made:
            folder = tmp_path_factory.mktemp(make.__name__)
            run = make(folder)
            train(run)
            shutil.rmtree(folder / "run/checkpoints/step_00000002")
            made[make] = folder, run
        return made[make]

    return get


@pytest.mark.parametrize("name", CHANGES)
def test_replaced_file_is_refused_by_name(tmp_path: Path, trained: Callable, name: str) -> None:
    make, named, change = CHANGES[name]
    folder, run = trained(make)
    saved = shutil.copytree(folder, tmp_path / "before")
    change(folder)
    try:
        with pytest.raises(CheckpointError, match=rf"^{named}: other samples, or other parts of them"):
            train(run)
    finally:
        shutil.rmtree(folder)
        shutil.copytree(saved, folder)


@pytest.mark.parametrize("make", [unimo, caption, vqa])
def test_with_the_same_files_the_run_goes_on(trained: Callable, make: Callable[[Path], RunConfig]) -> None:
    assert train(trained(make)[1])["steps_now"] == 1
