"""A converted UNIMO computes what the released code computes, on batches with padding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from released_folder import write_folder
from released_unimo import FEATURE, random_release
from unimo_release_numpy import UnimoRelease

import unimo
from unimo.data.loading.batch import PairBatch
from unimo.data.scenes.dataset import ScenesDataset
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import ConfigError
from unimo.inference.loading import load_task, read_model_config
from unimo.inference.release import convert_release
from unimo.tasks.base import to_tensors

TOLERANCE = 1e-5
TEXTS = ("a red circle is above a small square .", "there is a blue cross")
GRID = "grid:2:2"  # features of 12 numbers
SMALL = (f"data.regions={GRID}", "data.max_text_len=32")
OF_TASK = {
    "caption": ("task.beam.max_length=20",),
    "seq2seq": ("task.max_target_len=16", "task.beam.max_length=24"),
}


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return random_release(load_tokenizer("scenes").vocab_size)


@pytest.fixture(scope="module")
def folder(tensors, tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("release") / "unimo_base_en", tensors)


@pytest.fixture(scope="module")
def opened(folder):
    """Task name -> task and processor of the converted folder."""
    found = {}

    def open_task(name: str):
        if name not in found:
            out = folder.parent / name
            words = (*SMALL, *OF_TASK.get(name, ()))
            convert_release("unimo-release", folder, "scenes", out, name, words)
            found[name] = load_task(out)
        return found[name]

    return open_task


@pytest.fixture(scope="module")
def inputs(tensors, opened):
    """The release in NumPy, its embeddings of pictures and texts, and our batch; the second picture has
    three regions, the second text is the shorter."""
    release = UnimoRelease(tensors)
    _, processor = opened("pretrain")
    pictures = [ScenesDataset("pairs", "val")[index].image for index in (0, 4)]
    batch = processor(images=pictures, texts=list(TEXTS))
    assert batch["regions"]["features"].shape == (2, 4, FEATURE)
    images = []
    for row, count in enumerate((4, 3)):
        batch["regions"]["mask"][row, count:] = 0
        features = batch["regions"]["features"][row, :count]
        corners = np.array([[0, 0, 30, 20], [30, 0, 60, 20], [0, 20, 30, 40], [30, 20, 60, 40]])
        images.append(release.image(features, corners[:count], 60, 40))
    texts = [release.text(np.array(processor.ids(text))) for text in TEXTS]
    return release, images, texts, to_tensors(batch)


def close(found: paddle.Tensor, expected: np.ndarray) -> None:
    expected = np.asarray(expected)
    difference = np.abs(found.numpy().reshape(expected.shape) - expected).max()
    assert difference < TOLERANCE, difference
    assert np.abs(expected).max() > 0.02  # else anything would be close


def encoded(model, batch):
    return model.encode_text(batch["input_ids"], batch["attention_mask"]), model.encode_image(
        batch["regions"]
    )


def pairs(batch):
    """The same as a batch of a task."""
    texts = {key: batch[key] for key in ("input_ids", "attention_mask")}
    return PairBatch(sample_ids=["0", "1"], images=batch["regions"], image_group=paddle.arange(2), **texts)


def test_pairs(opened, inputs):
    release, images, texts, batch = inputs
    task, _ = opened("pretrain")
    with paddle.no_grad():
        text, image = encoded(task.model, batch)
        fused = task.model.fuse(text, image)
        words = task.objective.mlm_head(fused.fused_text.flatten(0, 1)).reshape(
            [*fused.fused_text.shape[:2], -1]
        )
        for row in (0, 1):
            states, of_image, of_text = release.pair(images[row], texts[row])
            rows, length = len(images[row]), len(texts[row])
            close(image.image[row, :rows], images[row])
            close(text.text[row, :length], texts[row])
            close(fused.fused_image[row, :rows], states[:rows])
            close(fused.fused_text[row, :length], states[rows:])
            close(fused.pooled[row], of_image * of_text)
            close(words[row, :length], release.words(states[rows:]))


def test_texts_and_images_alone(opened, inputs):
    release, images, texts, batch = inputs
    task, _ = opened("pretrain")
    with paddle.no_grad():
        text, image = encoded(task.model, batch)
        of_texts, of_images = task.model.fuse(text, None), task.model.fuse(None, image)
        for row in (0, 1):
            states = release.encode(texts[row])
            close(of_texts.fused_text[row, : len(states)], states)
            close(of_texts.pooled[row], release.pooled(states, "text"))
            states = release.encode(images[row])
            close(of_images.fused_image[row, : len(states)], states)
            close(of_images.pooled[row], release.pooled(states, "image"))


def test_retrieval_scores(opened, inputs):
    release, images, texts, batch = inputs
    task, _ = opened("retrieval")
    assert task.config.loss == "circle"
    with paddle.no_grad():
        text, image = encoded(task.model, batch)
        rows = paddle.to_tensor([0, 0, 1, 1]), paddle.to_tensor([0, 1, 0, 1])
        logits = task.match_logits(text.select(rows[0]), image.select(rows[1]))
    close(logits[:, 1], [release.score(images[i], texts[t]) for t in (0, 1) for i in (0, 1)])


def test_entailment(opened, inputs):
    release, images, texts, batch = inputs
    with paddle.no_grad():
        logits = opened("entailment")[0].logits(pairs(batch))
    close(logits, [release.entailment(images[row], texts[row]) for row in (0, 1)])


def test_text_classification(opened, inputs):
    release, _, texts, batch = inputs
    with paddle.no_grad():
        logits = opened("text_classification")[0].logits(pairs(batch))
    close(logits, [release.classes(text) for text in texts])


def test_captions(opened, inputs):
    release, images, texts, batch = inputs
    task, _ = opened("caption")
    with paddle.no_grad():
        image = task.model.encode_image(batch["regions"])
        logits = task.lm_head(task.model.decode(image, batch["input_ids"], batch["attention_mask"]))
    for row in (0, 1):
        expected = release.words(release.target(images[row], texts[row]))
        close(logits[row, : len(texts[row])], expected)


def test_captions_behind_object_tags(opened, inputs):
    """Between image and caption, with positions of their own; neither image nor tags read the caption."""
    release, images, texts, batch = inputs
    task, _ = opened("caption")
    tags, places, count = np.array([[9, 8, 7], [6, 1, 1]]), np.array([[2, 3, 7], [5, 1, 1]]), (3, 1)
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    with paddle.no_grad():
        image = task.model.encode_image(batch["regions"])
        source = task.model.add_tags(image, *map(paddle.to_tensor, (tags, mask, places)))
        states = task.model.decode(source, batch["input_ids"], batch["attention_mask"])
        first, _ = task.model.step(task.model.start_decoding(source), batch["input_ids"][:, 0])
    for row in (0, 1):
        named = release.text(tags[row, : count[row]], places[row, : count[row]])
        expected = release.target(np.concatenate([images[row], named]), texts[row])
        close(states[row, : len(texts[row])], expected)
        close(first[row], expected[0])


def test_texts_from_texts(opened, inputs):
    """A source and a target, whose positions begin anew."""
    release, _, texts, batch = inputs
    task, _ = opened("seq2seq")
    assert task.config.end_token == "mask"
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with paddle.no_grad():
        source = task.model.encode_text(ids, mask)
        logits = task.lm_head(task.model.decode(source, ids.flip(0), mask.flip(0)))
    for row in (0, 1):
        other = texts[1 - row]
        close(logits[row, : len(other)], release.words(release.target(texts[row], other)))


def test_the_model_directory_says_what_it_is(opened, folder):
    opened("entailment")
    content = read_model_config(folder.parent / "entailment")
    assert content["model"]["pair_feature"] == "sum" and content["task"]["head"] == "linear"
    assert content["processor"]["regions"] == content["data"]["regions"] == GRID
    model, processor = unimo.load(folder.parent / "entailment")
    assert model.config.regions.feature_size == FEATURE == processor.visual.feature_size


def test_a_source_of_other_features_is_said(folder, tmp_path, caplog):
    out = tmp_path / "out"
    convert_release("unimo-release", folder, "scenes", out, overrides=("data.max_text_len=32",))
    assert "data.regions=grid has features of 768 numbers, the weights read 12" in caplog.text
    model, processor = unimo.load(out)
    batch = to_tensors(processor(images=ScenesDataset("pairs", "val")[0].image))
    with pytest.raises(ConfigError, match="region features have 768 numbers, the model reads 12"):
        model.encode_image(batch["regions"])


def test_fine_tuning_starts_from_it_with_the_settings_of_the_task(
    opened, folder, tool, tmp_path, monkeypatch
):
    opened("pretrain")
    monkeypatch.chdir(tmp_path)
    small = (
        "data.scenes.train_images=8",
        "data.scenes.val_images=1",
        "train.max_steps=1",
        "train.device=cpu",
    )
    small += ("train.batch_size=4", "train.micro_batch_size=0", *SMALL)
    words = ("--init", folder.parent / "pretrain", *small)
    code, _, err = tool("finetune", "--task", "entailment", *words, "output_dir=out")
    assert code == 0, err
    assert read_model_config("out")["model"]["pair_feature"] == "sum"  # of the recipe, not of pre-training
    code, _, err = tool("finetune", "--task", "retrieval", *words, "output_dir=ranked")
    assert code == 0, err
    summary = json.loads(Path("ranked/summary.json").read_text())
    assert summary["started_from"].startswith("init_from=") and "rsum" in summary["metrics"]
