"""`scenes` for classification: labels are true and balanced, words are in the vocabulary."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from unimo.data.readers.glue import TASKS
from unimo.data.scenes.dataset import SceneShapes
from unimo.data.scenes.scene import SHAPES
from unimo.data.scenes.texts import SceneTexts
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import ConfigError
from unimo.settings import ScenesConfig

SIZE = ScenesConfig(train_images=400, val_images=40)


def test_pictures_have_one_object_of_the_named_shape() -> None:
    data = SceneShapes("train", SIZE)
    assert len(data) == 400
    for index in range(20):
        record, scene = data[index], data.scene(index)
        assert len(scene.objects) == 1 and scene.objects[0] in data._whole.scene(index).objects
        assert record.label_name == scene.objects[0].shape == SHAPES[record.label]
        pixels = np.asarray(Image.open(io.BytesIO(record.image))).reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) == 2
    shares = Counter(data[index].label for index in range(400))
    assert sorted(shares) == [0, 1, 2, 3] and min(shares.values()) > 70
    assert data[3].image == SceneShapes("train", SIZE)[3].image == data.image_source(3)


@pytest.mark.parametrize("task", TASKS)
def test_texts_have_known_words_and_balanced_labels(task) -> None:
    data, tokenizer = SceneTexts(task, "train", SIZE), load_tokenizer("scenes")
    records = [data[index] for index in range(400)]
    for record in records[:50]:
        for text in filter(None, (record.text, record.text_pair)):
            assert tokenizer.unk_token_id not in tokenizer.encode(text, 64), text
    if task == "stsb":
        assert {record.score for record in records} == {0.0, 1.25, 2.5, 3.75, 5.0}
        assert all((record.text == record.text_pair) == (record.score == 5.0) for record in records)
    else:
        shares = Counter(record.label for record in records)
        assert sorted(shares) == list(range(len(TASKS[task].classes)))
        assert min(shares.values()) > 0.7 * 400 / len(shares)
    assert (records[0].text_pair is None) == (task in ("sst2", "cola"))


def test_wrong_order_keeps_the_words() -> None:
    data = SceneTexts("cola", "val", SIZE)
    wrong = [record.text for record in data if record.label == 0]
    assert wrong and all(text.count(".") == 1 and not text.startswith("there is a large") for text in wrong)
    assert all(record.text.endswith(" .") for record in data if record.label == 1)


def test_unknown_split() -> None:
    for opener in (SceneShapes, lambda split: SceneTexts("cola", split)):
        with pytest.raises(ConfigError, match="no split 'dev'"):
            opener("dev")
