"""The built-in corpus: determinism, truth of its texts, and accuracy without looking at images."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from unimo.data.scenes.dataset import ScenesDataset, answers, vocabulary
from unimo.data.scenes.language import CONTRADICTION, ENTAILMENT, hypotheses, questions
from unimo.data.scenes.scene import COLORS, PLACES, SHAPES, Scene, SceneObject, make_scene, render
from unimo.errors import ConfigError
from unimo.settings import ScenesConfig


@pytest.mark.parametrize("kind", ["pairs", "vqa", "gqa", "entailment"])
def test_a_record_is_a_function_of_seed_split_and_index(kind):
    first, again = ScenesDataset(kind, "val"), ScenesDataset(kind, "val")
    assert all(first[i] == again[i] for i in (0, 7, 100))
    other = ScenesDataset(kind, "val", ScenesConfig(seed=1))
    assert any(first[i].image != other[i].image for i in range(0, 30, 6))
    train = ScenesDataset(kind, "train")
    assert all(first[i].image != train[i].image for i in range(0, 30, 6))


def test_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="known: train, val, test"):
        ScenesDataset("vqa", "dev")


def test_every_word_is_in_the_vocabulary_and_every_answer_is_a_class():
    words, classes = set(vocabulary()), set(answers())
    for kind in ("pairs", "vqa", "gqa", "entailment"):
        data = ScenesDataset(kind, "train")
        for index in range(0, 1500):
            record = data[index]
            assert set(record.text.split()) <= words
            assert set(record.answer_scores) <= classes
    assert len(answers()) == len(classes)


def test_pixels_have_the_colour_that_the_scene_says():
    scene = Scene(
        (SceneObject("square", "red", "large", "top left", (4, 4, 28, 28)),), background=(120, 120, 120)
    )
    pixels = np.asarray(render(scene))
    assert tuple(pixels[16, 16]) == COLORS["red"]
    assert tuple(pixels[48, 48]) == (120, 120, 120)


def test_every_shape_looks_different():
    def draw(shape: str) -> np.ndarray:
        item = SceneObject(shape, "red", "small", "top left", (9, 9, 23, 23))
        return np.asarray(render(Scene((item,), (120, 120, 120))), dtype=int)

    drawn = {shape: draw(shape) for shape in SHAPES}
    for a in SHAPES:
        for b in SHAPES:
            if a < b:
                assert (drawn[a] != drawn[b]).any(axis=2).sum() >= 20, (a, b)


def test_answers_are_true_of_the_scene():
    for seed in range(300):
        scene = make_scene(np.random.default_rng(seed))
        for question in questions(scene, 8, np.random.default_rng(seed)):
            named = [o for o in scene.objects if f"{o.color} {o.shape}" in question.text]
            if question.kind == "count":
                assert question.answer == str(len(scene.objects))
            elif question.kind == "existence":
                assert question.answer == ("yes" if named else "no")
            elif question.kind in ("size", "place"):
                assert [question.answer] == [getattr(o, question.kind) for o in named]
            elif question.kind == "what_is_at":
                there = [o for o in scene.objects if o.place in question.text]
                expected = {there[0].color, there[0].shape} if there else {"nothing"}
                assert question.answer in expected


def test_hypotheses_have_the_label_that_the_scene_gives_them():
    for seed in range(200):
        scene = make_scene(np.random.default_rng(seed))
        true = {f"there is a {o.color} {o.shape} at the {o.place} ." for o in scene.objects}
        for text, label in hypotheses(scene, 6, np.random.default_rng(seed)):
            if label == ENTAILMENT:
                assert text in true
            elif label == CONTRADICTION:
                assert text.startswith("there is a") and text not in true


def test_guessing_the_commonest_answer_of_each_kind_stays_below_40_percent():
    data = ScenesDataset("vqa", "val")
    counts: dict[str, Counter] = defaultdict(Counter)
    for index in range(2400):
        record = data[index]
        counts[record.question_type][next(iter(record.answer_scores))] += 1
    guessed = sum(counter.most_common(1)[0][1] for counter in counts.values())
    assert len(counts) == 8
    assert guessed / 2400 < 0.40


def test_objects_stay_inside_their_quarter():
    for seed in range(200):
        for item in make_scene(np.random.default_rng(seed)).objects:
            x1, y1, x2, y2 = item.box
            assert 32 * item.column <= x1 and x2 <= 32 * item.column + 32
            assert 32 * item.row <= y1 and y2 <= 32 * item.row + 32
            assert item.place == PLACES[2 * item.row + item.column]


def test_image_source_is_the_image_of_the_record():
    data = ScenesDataset("pairs", "test")
    assert data.image_source(9) == data[9].image
    assert isinstance(render(data.scene(2)), Image.Image)


def test_texts_and_images_alone_are_of_other_scenes_than_the_pairs():
    config = ScenesConfig(train_images=200)
    pairs, texts, images = (ScenesDataset(kind, "train", config) for kind in ("pairs", "texts", "images"))
    assert (len(texts), len(images)) == (800, 200)
    assert texts[5].image is None and set(texts[5].text.split()) <= set(vocabulary())
    assert images[5].text is None and len(images[5].image) == len(pairs[20].image)
    shown = {pairs[index].image for index in range(0, 800, 4)}
    assert not shown & {images[index].image for index in range(200)}
    assert [texts[index].text for index in range(40)] != [pairs[index].text for index in range(40)]
    val = ScenesDataset("images", "val")
    assert val[5].image != images[5].image
