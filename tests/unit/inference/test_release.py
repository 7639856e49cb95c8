"""A released UNIMO-2 in small becomes a model directory, and computes what the released code computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from release_numpy import Release
from released_folder import WIDTH, projections, random_release, random_values, write_folder

import unimo
from unimo.data.scenes.dataset import ScenesDataset
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import CheckpointError, ConfigError
from unimo.inference.loading import load_task, read_model_config, start_from
from unimo.inference.release import convert_release
from unimo.tasks.base import to_tensors
from unimo.tasks.classification.batches import TextBatch
from unimo.tasks.retrieval.task import RetrievalConfig, RetrievalTask
from unimo.weights.files import read_safetensors

TOLERANCE = 1e-4
TEXTS = ("a red circle is above a small square .", "there is a blue cross")


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return random_release(load_tokenizer("scenes").vocab_size)


@pytest.fixture(scope="module")
def folder(tensors, tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("release") / "UNIMO-2", tensors)


@pytest.fixture(scope="module")
def directory(folder) -> Path:
    out = folder.parent / "weights" / "unimo2"
    done = convert_release("unimo2-release", folder, "scenes", out)
    stored = read_safetensors(out / "model.safetensors")
    assert done.tensors == len([name for name in stored if "vcl_head" not in name])
    return out


@pytest.fixture(scope="module")
def both(tensors, directory):
    """Our task, the release in NumPy, and inputs: pixels and the ids of texts."""
    task, processor = load_task(directory)
    pictures = [ScenesDataset("pairs", "val")[index].image for index in (0, 4)]
    pixels = processor(images=pictures)["pixels"]
    return task, Release(tensors), pixels, [processor.ids(text) for text in TEXTS]


def row(array: np.ndarray) -> paddle.Tensor:
    """A batch of one."""
    return paddle.to_tensor(np.asarray(array)[None])


def encoded(model, pixels, ids):
    mask = np.ones(len(ids), "int64")
    return model.encode_text(row(ids), row(mask), layers=True), model.encode_image(row(pixels), layers=True)


def close(found: paddle.Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    difference = np.abs(found.numpy().reshape(expected.shape) - expected).max()
    assert difference < tolerance, difference
    assert np.abs(expected).max() > 500 * tolerance  # else anything would be close


@pytest.mark.parametrize("sample", [0, 1])
def test_encoders_at_every_layer(both, sample):
    task, release, pixels, ids = both
    with paddle.no_grad():
        text, image = encoded(task.model, pixels[sample], ids[sample])
    words, patches = release.text(np.array(ids[sample])), release.image(pixels[sample])
    assert len(words) == len(text.text_layers) == 3 and len(patches) == len(image.image_layers) + 1 == 5
    for found, expected in zip(text.text_layers, words, strict=True):
        close(found, expected)
    for found, expected in zip((*image.image_layers, image.image), patches, strict=True):
        close(found, expected)


@pytest.mark.parametrize("sample", [0, 1])
def test_grounding_fusion_and_heads_of_pairs(both, sample):
    task, release, pixels, ids = both
    words, patches = release.text(np.array(ids[sample]))[-1], release.image(pixels[sample])[-1]
    chosen, scores = release.ground(patches, words)
    states, pooled = release.pair(patches, words)
    with paddle.no_grad():
        text, image = encoded(task.model, pixels[sample], ids[sample])
        grounding = task.model.ground(text, image)
        fused = task.model.fuse(text, image)
        itm = task.objective.itm_head(fused.pooled)
        logits = task.objective.mlm_head(fused.fused_text)
    close(grounding.scores, scores)
    assert set(grounding.ids.numpy()[0].tolist()) == set(chosen.tolist()) and len(chosen) == 100
    assert grounding.ids.numpy()[0].tolist() == chosen.tolist()
    joined = task.model.fusion.join(image.image, grounding.tokens, text.text)
    close(joined, states[0])
    image_rows, last = len(patches), states[-1]
    close(fused.fused_image, last[:image_rows])
    close(fused.grounded, last[image_rows : image_rows + 100])
    close(fused.fused_text, last[image_rows + 100 :])
    close(fused.pooled, pooled)
    close(itm, release.linear(pooled, "grounded.img_text_matching_fc"))
    close(logits, release.words(last[image_rows + 100 :]))


@pytest.mark.parametrize("more", [0, 5])
def test_padded_texts_are_read_as_the_release_reads_them(both, more):
    """Its mask is an outer product, and padding counts in the choice of tokens."""
    task, release, pixels, texts = both
    longest = max(map(len, texts)) + more
    ids = np.stack([np.pad(row, (0, longest - len(row)), constant_values=1) for row in texts])
    mask = np.stack([np.arange(longest) < len(row) for row in texts]).astype("int64")
    with paddle.no_grad():
        text = task.model.encode_text(paddle.to_tensor(ids), paddle.to_tensor(mask), layers=True)
        image = task.model.encode_image(paddle.to_tensor(pixels))
        grounding = task.model.ground(text, image)
        fused, pooled = task.model.fuse(text, image), task.model.fuse(text, image, outputs="pooled").pooled
    for sample, row in enumerate(texts):
        padding = longest - len(row)
        words, patches = release.text(np.array(row), padding=padding), release.image(pixels[sample])[-1]
        for found, expected in zip(text.text_layers, words, strict=True):
            close(found[sample], expected)
        chosen, scores = release.ground(patches, words[-1])
        close(grounding.scores[sample], scores)
        assert grounding.ids.numpy()[sample].tolist() == chosen.tolist()
        states, product = release.pair(patches, words[-1], padding)
        close(fused.fused_text[sample], states[-1][len(patches) + 100 :])
        close(fused.fused_image[sample], states[-1][: len(patches)])
        close(pooled[sample], product)
        itm = release.linear(product, "grounded.img_text_matching_fc")
        close(task.objective.itm_head(pooled)[sample], itm)


def test_padded_texts_alone_are_read_as_the_release_reads_them(both):
    task, release, _, texts = both
    (row, padding), tokens = (texts[1], 6), 100
    ids = np.pad(row, (0, padding), constant_values=1)[None]
    mask = np.repeat([[1, 0]], [len(row), padding], axis=1)
    words = release.text(np.array(row), padding=padding)[-1]
    real = np.repeat([1.0, 0.0], [tokens + len(row), padding])
    sequence = np.concatenate([release.tokens(release.ground(words)[0]), words])
    expected = release.fuse(sequence, np.outer(real, real))[-1]
    with paddle.no_grad():
        fused = task.model.fuse(task.model.encode_text(paddle.to_tensor(ids), paddle.to_tensor(mask)), None)
    close(fused.fused_text, expected[tokens:])
    close(fused.pooled, np.maximum(release.linear(expected[tokens], "grounded.pooled_fc_text"), 0))


def test_options_of_the_release_that_its_scripts_leave_off(tensors, tmp_path):
    """`with_grounding_projection`, `with_grounding_pos`, another K, heads of another width; a padded text."""
    theirs = tensors | projections()
    write_folder(tmp_path / "in", theirs)
    config = tmp_path / "config.json"
    config.write_text('{"num_attention_heads": 4}')
    options = [f"model.grounding.{word}" for word in ("project=true", "positions=true", "num_tokens=30")]
    convert_release(
        "unimo2-release", tmp_path / "in", "scenes", tmp_path / "out", "pretrain", options, config
    )
    task, processor = load_task(tmp_path / "out")
    release = Release(theirs, num_tokens=30, head_size=32, project=True, positions=True)
    pixels = processor(images=[ScenesDataset("pairs", "val")[0].image])["pixels"]
    batch = processor(texts=list(TEXTS))
    ids, mask = batch["input_ids"][1:], batch["attention_mask"][1:]
    padding = int((mask == 0).sum())
    assert padding > 0
    words = release.text(ids[0, : len(ids[0]) - padding], padding=padding)[-1]
    patches = release.image(pixels[0])[-1]
    states, pooled = release.pair(patches, words, padding)
    with paddle.no_grad():
        text = task.model.encode_text(paddle.to_tensor(ids), paddle.to_tensor(mask))
        image = task.model.encode_image(paddle.to_tensor(pixels))
        grounding, fused = task.model.ground(text, image), task.model.fuse(text, image)
    chosen, scores = release.ground(patches, words)
    close(grounding.scores, scores)
    assert grounding.ids.numpy()[0].tolist() == chosen.tolist() and len(chosen) == 30
    close(fused.grounded, states[-1][len(patches) : len(patches) + 30])
    close(fused.pooled, pooled)


def test_a_text_classifier(tensors, tmp_path):
    """Two texts of different lengths; what their fine-tuning saves of a text alone has no vision tower."""
    left = ("vit.", "grounded.pooled_fc_image", "grounded.img_text", "grounded.mask")
    theirs = {name: value for name, value in tensors.items() if not name.startswith(left)}
    theirs |= random_values({"cls_out_w": (WIDTH, 2), "cls_out_b": (2,)}, 5)
    write_folder(tmp_path / "in", theirs)
    name = "text_classification"
    convert_release("unimo2-release", tmp_path / "in", "scenes", tmp_path / "out", name)
    task, processor = load_task(tmp_path / "out")
    assert task.config.dataset == "sst2" and task.model.config.vision.image_size == 224
    release, batch = Release(theirs), processor(texts=list(TEXTS))
    with paddle.no_grad():
        named = {"sample_ids": ["0", "1"], "parts": ["", ""], "question_ids": [None, None]}
        logits = task.logits(TextBatch(**to_tensors(batch), **named))
    for sample, row in enumerate(map(processor.ids, TEXTS)):
        padding = batch["input_ids"].shape[1] - len(row)
        words = release.text(np.array(row), padding=padding)[-1]
        real = np.repeat([1.0, 0.0], [100 + len(row), padding])
        tokens = release.tokens(release.ground(words)[0])
        first = release.fuse(np.concatenate([tokens, words]), np.outer(real, real))[-1][100]
        pooled = np.maximum(release.linear(first, "grounded.pooled_fc_text"), 0)
        close(logits[sample], pooled @ theirs["cls_out_w"] + theirs["cls_out_b"])


def test_one_layer_of_the_grounded_transformer(both):
    task, release, pixels, ids = both
    words, patches = release.text(np.array(ids[0]))[-1], release.image(pixels[0])[-1]
    states, _ = release.pair(patches, words)
    layers = task.model.fusion.layers
    task.model.fusion.layers = layers[:1]
    try:
        with paddle.no_grad():
            fused = task.model.fuse(*encoded(task.model, pixels[0], ids[0]))
    finally:
        task.model.fusion.layers = layers
    close(paddle.concat([fused.fused_image, fused.grounded, fused.fused_text], axis=1), states[1])


def test_scores_of_retrieval(both, directory):
    """Every text with every image: the matching logit plus 0.3 times the contrastive score."""
    task, release, pixels, ids = both
    retrieval = RetrievalTask.create(task.model, RetrievalConfig(loss="circle"))
    assert start_from(retrieval, directory) == []
    retrieval.eval()
    patches = [release.image(pixels[sample])[-1] for sample in (0, 1)]
    words = [release.text(np.array(ids[sample]))[-1] for sample in (0, 1)]
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
    with paddle.no_grad():
        found = [retrieval.match_scores(*encoded(task.model, pixels[i], ids[t])) for t, i in pairs]
    close(paddle.concat(found), np.array([release.retrieval(patches[i], words[t]) for t, i in pairs]))


def test_single_texts_and_images_choose_their_own_tokens(both):
    task, release, pixels, ids = both
    words, patches = release.text(np.array(ids[0]))[-1], release.image(pixels[0])[-1]
    with paddle.no_grad():
        text, image = encoded(task.model, pixels[0], ids[0])
        for part, rows, which in ((text, words, "text"), (image, patches, "image")):
            chosen, _ = release.ground(rows)
            tokens = release.tokens(chosen)
            parts = [tokens, rows] if which == "text" else [rows, tokens]
            total = len(rows) + len(tokens)
            expected = release.fuse(np.concatenate(parts), np.ones((total, total)))[-1]
            expected = expected[len(tokens) :] if which == "text" else expected[: len(rows)]
            fused = task.model.fuse(*((part, None) if which == "text" else (None, part)))
            close(getattr(fused, f"fused_{which}"), expected)


def test_captions(both):
    task, release, pixels, ids = both
    patches = release.image(pixels[1])[-1]
    expected = release.caption(patches, release.text(np.array(ids[1]), causal=True)[-1])
    with paddle.no_grad():
        image = task.model.encode_image(row(pixels[1]))
        mask = np.ones(len(ids[1]), "int64")
        close(task.model.decode(image, row(ids[1]), row(mask)), expected)


@pytest.mark.parametrize("step_by_step", [False, True])
def test_captions_behind_object_tags(both, step_by_step):
    """Tags have positions of their own, and the image does not read them; two images, 4 tags and 2."""
    task, release, pixels, ids = both
    tags, places, count = (
        np.array([[9, 8, 7, 6], [5, 4, 1, 1]]),
        np.array([[2, 3, 2, 9], [2, 3, 1, 1]]),
        (4, 2),
    )
    if step_by_step:  # their decoder reads padding of tags, so each image stands alone
        batches = [slice(0, 1), slice(1, 2)]
    else:
        batches = [slice(0, 2)]
    length = min(map(len, ids))
    texts = np.array([row[:length] for row in ids])
    for rows in batches:
        most = max(count[rows])
        mask = (np.arange(most) < np.array(count[rows])[:, None]).astype("int64")
        inputs = (paddle.to_tensor(part) for part in (tags[rows, :most], mask, places[rows, :most]))
        with paddle.no_grad():
            source = task.model.add_tags(task.model.encode_image(paddle.to_tensor(pixels[rows])), *inputs)
            written = paddle.to_tensor(texts[rows])
            if step_by_step:
                state, found = task.model.start_decoding(source), []
                for position in range(length):
                    states, state = task.model.step(state, written[:, position])
                    found.append(states)
                found = paddle.stack(found, axis=1)
            else:
                found = task.model.decode(source, written, paddle.ones_like(written))
        for row, sample in enumerate(range(2)[rows]):
            named = slice(0, count[sample])
            patches = release.image(pixels[sample])[-1]
            parts = tags[sample, named], places[sample, named], texts[sample]
            close(found[row], release.tagged_caption(patches, *parts))


def test_the_model_directory_says_what_it_is(directory):
    content = read_model_config(directory)
    assert content["task"]["name"] == "pretrain" and content["model"]["name"] == "unimo2_base"
    assert content["processor"]["eval_transform"] == content["data"]["eval_transform"] == "vit"
    assert content["processor"]["image_size"] == 48 and content["processor"]["max_text_len"] == 32
    model, processor = unimo.load(directory)
    assert model.config.fusion.caption_sees_image and not model.config.grounding.mask_padding
    assert processor(images=np_picture())["pixels"].max() == 1.0
    assert unimo.load(directory, image_size=64)[0].vision.grid == 4


def np_picture():
    from PIL import Image

    return Image.new("RGB", (20, 10), "white")


def test_zero_shot_and_fine_tuning_start_from_it(directory, tool, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    words = ("retrieval", "--model", directory, "--zero-shot", "data.scenes.val_images=1", "train.device=cpu")
    code, out, err = tool("evaluate", "--task", *words)
    assert code == 0, err
    assert json.loads(out)["zero_shot"] is True
    small = ("data.image_size=48", "data.max_text_len=20", "data.scenes.train_images=8", "train.device=cpu")
    small += (
        "data.scenes.val_images=1",
        "train.max_steps=1",
        "train.batch_size=4",
        "train.micro_batch_size=0",
    )
    caplog.set_level("INFO", logger="unimo")
    code, _, err = tool("finetune", "--task", "retrieval", "--init", directory, *small, "output_dir=out")
    assert code == 0, err
    assert "randomly initialised" not in caplog.text  # neither the matching head nor heads of a first stage
    kept = read_model_config("out")["model"]
    assert kept["vision"]["patch_padding"] == 7 and kept["grounding"]["mask_padding"] is False


def test_absent_heads_are_not_written(tensors, tmp_path, caplog):
    heads = ("grounded.pooled", "grounded.img_text")
    core = {name: value for name, value in tensors.items() if not name.startswith(heads)}
    convert_release("unimo2-release", write_folder(tmp_path / "in", core), "scenes", tmp_path / "out")
    assert "no weights for model.text_pooler, model.image_pooler, objective.itm_head" in caplog.text
    stored = read_safetensors(tmp_path / "out" / "model.safetensors")
    assert "model.text_pooler.dense.weight" in stored and "objective.mlm_head.dense.weight" in stored
    assert not any(name.startswith("objective.itm_head") for name in stored)
    unimo.load(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"missing: objective.itm_head.weight"):
        load_task(tmp_path / "out")


def test_what_cannot_be_converted(folder, directory, shared, tmp_path):
    with pytest.raises(ConfigError, match="unknown release 'unimo2'; nearest: unimo2-release"):
        convert_release("unimo2", folder, "scenes", tmp_path / "out")
    words = shared / "data" / "tokenizer" / "unimo_en"
    with pytest.raises(CheckpointError, match="has 50265 tokens, the weights have"):
        convert_release("unimo2-release", folder, words, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="exists and is not a model directory"):
        convert_release("unimo2-release", folder, "scenes", folder)
    assert (folder / "vq_emb").is_file()
    before = (directory / "model.safetensors").read_bytes()
    convert_release("unimo2-release", folder, "scenes", directory)  # an older one is replaced, by the same
    assert (directory / "model.safetensors").read_bytes() == before
