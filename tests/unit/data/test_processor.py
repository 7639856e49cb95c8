"""The processor: inputs, outputs, and messages about invalid inputs."""

import numpy as np
import pytest
import yaml
from PIL import Image

from unimo.data.processor import Processor, ProcessorConfig, build_processor, load_processor
from unimo.data.tokenizers import build_word_tokenizer
from unimo.errors import ConfigError, DataError, RecordError
from unimo.settings import DataConfig


def test_images_of_all_kinds_agree(processor, make_image, tmp_path):
    data = make_image()
    path = tmp_path / "a.png"
    path.write_bytes(data)
    pixels = processor(images=[data, path, str(path), Image.open(path)])["pixels"]
    assert pixels.shape == (4, 3, 16, 16) and pixels.dtype == np.float32
    for other in pixels[1:]:
        np.testing.assert_array_equal(other, pixels[0])


def test_texts_are_padded_to_the_longest(processor):
    batch = processor(texts=["a red star", "the"])
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["input_ids"][1].tolist()[3:] == [1, 1]
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == np.int64


def test_one_of_each(processor, make_image):
    batch = processor(images=make_image(), texts="a red star")
    assert batch["pixels"].shape[0] == batch["input_ids"].shape[0] == 1


def test_long_texts_are_cut(processor):
    assert processor(texts="a " * 50)["input_ids"].shape == (1, 12)


def test_alpha_of_a_given_picture(processor):
    assert processor(images=Image.new("LA", (5, 5)))["pixels"].shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("text", "message"), [("", "empty"), (" \n", "empty"), (None, "NoneType"), ("caf\udce9", "not UTF-8")]
)
def test_texts_that_are_none(processor, text, message):
    with pytest.raises(RecordError, match=message):
        processor(texts=[text])


def test_training_transform_is_asked_for(make_image):
    processor = Processor(build_word_tokenizer(["a"]), ProcessorConfig(16, train_transform="blip_randaug"))
    data = make_image()
    train = [processor.pixels(data, np.random.default_rng(seed), train=True) for seed in range(8)]
    assert any((pixels != train[0]).any() for pixels in train)
    np.testing.assert_array_equal(processor.pixels(data, np.random.default_rng(5)), processor.pixels(data))


def test_blank_images_say_nothing_but_broken_ones_are_still_found(make_image):
    processor = Processor(build_word_tokenizer(["a"]), ProcessorConfig(16, blank_images=True))
    red, blue = processor.pixels(make_image((250, 0, 0))), processor.pixels(make_image((0, 0, 250)))
    np.testing.assert_array_equal(red, blue)
    with pytest.raises(RecordError):
        processor.pixels(make_image()[:60])


def test_save_and_load(processor, make_image, tmp_path):
    (tmp_path / "config.yaml").write_text("model: {name: unimo3_tiny}\n")
    processor.save(tmp_path)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert content["model"] == {"name": "unimo3_tiny"}
    assert content["processor"]["image_size"] == 16
    again = load_processor(tmp_path)
    assert again.config == processor.config
    first, second = (p(images=make_image(), texts="a blue star ?") for p in (processor, again))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    assert load_processor(tmp_path, image_size=32).config.image_size == 32


def test_load_from_a_folder_without_one(tmp_path):
    with pytest.raises(DataError, match="processor"):
        load_processor(tmp_path)


def test_fields_come_from_the_run():
    data = DataConfig(image_size=64, max_text_len=20, train_transform="clip_randaug", blank_images=True)
    config = build_processor(data, build_word_tokenizer(["a"])).config
    assert (config.image_size, config.max_text_len) == (64, 20)
    assert (config.train_transform, config.eval_transform, config.blank_images) == (
        "clip_randaug",
        "clip",
        True,
    )


@pytest.mark.parametrize(("size", "length"), [(0, 50), (16, 2)])
def test_impossible_sizes(size, length):
    with pytest.raises(ConfigError, match="data.(image_size|max_text_len) [02]: expected"):
        Processor(build_word_tokenizer(["a"]), ProcessorConfig(size, length))
