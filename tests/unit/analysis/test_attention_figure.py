"""Attention between words and picture: the numbers are the model's, and stand at their words and places."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from micro import TOWER, Tool, saved
from micro_unimo import UNIMO
from PIL import Image

import unimo
from unimo.analysis import attention_page
from unimo.analysis.attention import (
    Attention,
    Selection,
    choose,
    collect,
    find_part,
    grid_boxes,
    nearest_part,
    read_between,
    select,
)
from unimo.analysis.attention_picture import MARK, draw, heat
from unimo.data.processor import Processor, ProcessorConfig
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import CapabilityError, ConfigError

TEXT = "a small red circle ."
UNIMO2 = {
    "name": "unimo2_tiny",
    "text": {**TOWER, "vocab_size": 300},
    "vision": {**TOWER, "image_size": 32, "patch_size": 8},
    "fusion": {**TOWER, "num_layers": 3},
    "grounding": {"dictionary_size": 24, "num_tokens": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a random UNIMO on 2 x 2 regions, a UNIMO-3 on patches, and a picture of four colours."""
    place = tmp_path_factory.mktemp("attention")
    saved("pretrain", place / "regions", **UNIMO)
    saved("pretrain", place / "patches")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 60, 3)).astype(np.uint8)).save(place / "picture.png")
    return place


opened = functools.cache(unimo.load)


def of(folder: Path, name: str, text: str = TEXT, **chosen) -> Attention:
    return collect(name, *opened(folder / name), folder / "picture.png", text, **chosen)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def test_one_head_of_one_sequence_is_recomputed_by_hand(folder: Path) -> None:
    """UNIMO's first layer, head 2: softmax(q k / sqrt(d)) over [IMG], four regions and seven tokens."""
    found = of(folder, "regions", layer=1, head=2)
    model, processor = opened(folder / "regions")
    batch = processor(images=str(folder / "picture.png"), texts=TEXT)
    regions = {key: paddle.to_tensor(value) for key, value in batch["regions"].items()}
    with paddle.no_grad():
        image = model.encode_image(regions).image.numpy()[0]
        text = model.encode_text(*(paddle.to_tensor(batch[k]) for k in ("input_ids", "attention_mask"))).text
    states = np.concatenate([image, text.numpy()[0]])
    layer = model.transformer.layers[0].attention.qkv
    packed = states @ layer.weight.numpy() + layer.bias.numpy()
    query, key = packed[:, 8:16], packed[:, 16 + 8 : 16 + 16]  # width 16, two heads of 8
    weights = softmax(query @ key.T / np.sqrt(8))
    assert weights.shape == (12, 12) and found.words == ("a", "small", "red", "circle", ".")
    np.testing.assert_allclose(found.of_words, weights[6:11, :5], atol=1e-6)
    np.testing.assert_allclose(found.of_parts[:, :5], weights[1:5, 6:11], atol=1e-6)
    np.testing.assert_allclose(found.of_parts[:, 5], weights[1:5, [5, 11]].sum(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.boxes, grid_boxes(2))
    np.testing.assert_allclose(found.boxes[1], [0.5, 0, 1, 0.5])


def test_both_directions_of_co_attention_and_their_means(folder: Path) -> None:
    found = of(folder, "patches")
    assert found.chosen == "mean of layers 1 to 2, mean of 2 heads" and found.grid == 2
    np.testing.assert_allclose(found.of_words.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(found.of_parts.sum(axis=1), 1.0, atol=1e-5)
    each = [[of(folder, "patches", layer=layer, head=head) for head in (1, 2)] for layer in (1, 2)]
    for table in ("of_words", "of_parts"):
        mean = np.mean([[getattr(one, table) for one in heads] for heads in each], axis=(0, 1))
        np.testing.assert_allclose(getattr(found, table), mean, atol=1e-6)


@pytest.mark.parametrize("mask_padding", [True, False])
def test_grounded_tokens_are_the_way_from_words_to_patches(mask_padding: bool) -> None:
    grounding = {**UNIMO2["grounding"], "mask_padding": mask_padding}
    paddle.seed(0)
    model = unimo.create_model(**{**UNIMO2, "grounding": grounding})
    model.eval()
    pixels = paddle.to_tensor(np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype("float32"))
    ids = paddle.to_tensor([[0, 7, 8, 9, 2]])
    with paddle.no_grad():
        text, image = model.encode_text(ids, paddle.ones_like(ids)), model.encode_image(pixels)
        maps = model.fuse(text, image, attentions=True).attentions
    maps = {name: weights.numpy() for name, weights in maps.items()}
    found, over = read_between(model, maps, {"image": 17, "grounded": 4, "text": 5}, "text", "image")
    assert over and sorted(found) == [2, 3]
    words = maps["fusion.text.3"][0, 1]  # [5, grounded and text], with the image before them in the release
    to_grounded = words[:, :4] if mask_padding else words[:, 17:21]
    below = maps["fusion.grounded.2"][0].mean(axis=0)[:, :17]
    np.testing.assert_allclose(choose(found, 3, 2, ""), to_grounded @ below, atol=1e-7)
    back, _ = read_between(model, maps, {"image": 17, "grounded": 4, "text": 5}, "image", "text")
    expected = maps["fusion.image.2"][0, 0][:, 17:] @ maps["fusion.grounded.1"][0].mean(axis=0)[:, 21:]
    np.testing.assert_allclose(choose(back, 2, 1, ""), expected, atol=1e-7)


def test_pieces_of_a_word_are_joined(tmp_path: Path, folder: Path) -> None:
    """Rows of the pieces are averaged, columns added; the text has capitals and a word out of vocabulary."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "##dish", "dog", "!"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    reader = Processor(load_tokenizer(tmp_path), ProcessorConfig(image_size=32, max_text_len=8))
    model, _ = opened(folder / "patches")
    given = model, reader, folder / "picture.png"
    found = collect("m", *given, "A Reddish ?? dog !", layer=2, head=1)
    assert found.words == ("A", "Reddish", "?", "?", "dog")  # the rest is cut
    with paddle.no_grad():
        batch = reader(images=str(folder / "picture.png"), texts="A Reddish ?? dog !")
        ids, mask = paddle.to_tensor(batch["input_ids"]), paddle.to_tensor(batch["attention_mask"])
        image = model.encode_image(paddle.to_tensor(batch["pixels"]))
        maps = model.fuse(model.encode_text(ids, mask), image, attentions=True).attentions
    over = maps["fusion.text_cross.2"].numpy()[0, 0]
    read = maps["fusion.image_cross.2"].numpy()[0, 0]
    np.testing.assert_allclose(found.of_words[1], over[2:4].mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(found.of_words[4], over[6], atol=1e-7)
    np.testing.assert_allclose(found.of_parts[:, 1], read[1:, 2:4].sum(axis=1), atol=1e-7)
    np.testing.assert_allclose(found.of_parts[:, 5], read[1:, [0, 7]].sum(axis=1), atol=1e-7)


def made(grid: int = 2, words: tuple[str, ...] = ("a", "red", "</script>"), **changes) -> Attention:
    """An attention that was made up: word 1 looks at part 2, part 1 at word 1."""
    of_words = np.full((len(words), 1 + grid**2), 0.1)
    of_parts = np.full((grid**2, len(words) + 1), 0.1)
    of_words[1, 3], of_parts[1, 1], of_parts[3, 0] = 0.4, 0.5, 0.3
    picture = Image.new("RGB", (64, 64), "white")
    values = ("made", "layer 1, head 1 of 2", picture, grid_boxes(grid), grid, words)
    return Attention(*values, **{"of_words": of_words, "of_parts": of_parts, **changes})


def test_the_strongest_are_drawn_unless_something_is_chosen() -> None:
    both = [made(), made(grid=4)]
    assert [each.words for each in select(both)] == [(0, 1, 2), (0, 1, 2)]
    assert select(both)[0].parts == (1, 3, 0) and select(both, word="RED") == [Selection((1,), ())] * 2
    assert select(both, word="3")[0].words == (2,) and select(both, patch=(2, 1))[0] == Selection((), (2,))
    assert nearest_part(made(), made(grid=4), 15) == 3
    long = made(words=("a", "red", "!", *map(str, range(20))))
    assert len(select([long])[0].words) == 12 and 2 not in select([long])[0].words


def test_heat_lies_on_the_part_and_the_outline_around_it() -> None:
    found = made()
    pixels = np.asarray(heat(found, found.of_words[1, 1:], 64)).astype(int)
    redness = (pixels[..., 0] - pixels[..., 2]).reshape(2, 32, 2, 32).transpose(0, 2, 1, 3).reshape(4, -1)
    assert redness[2].min() > 100 and np.delete(redness, 2, axis=0).max() == 0
    picture = np.asarray(draw([found], [Selection((), (1,))]))
    assert ((picture == MARK).all(axis=2).sum()) > 4 * 70


def test_regions_are_framed_and_named_where_there_is_room() -> None:
    found = replace(made(), grid=0, picture=Image.new("RGB", (400, 400), "black"))
    found = replace(found, boxes=found.boxes * 0.5 + 0.5)  # the lower right quarter
    large, small = (np.asarray(heat(found, found.of_words[1, 1:], side)).astype(int) for side in (400, 150))
    for pixels in (large, small):
        half = len(pixels) // 2
        assert (pixels[: half - 1] == pixels[0, 0]).all() and (
            pixels[half:, half:, 0] > pixels[0, 0, 0]
        ).any()
    assert (large == 255).all(axis=2).any() and not (small == 255).all(axis=2).any()  # labels are white


def test_the_page_holds_the_numbers_and_a_text_cannot_break_it() -> None:
    blind = made(of_words=None)
    page = attention_page.make_page([made(), blind], select([made(), blind]), "<source>")
    assert page.count("</script>") == 1 and "&lt;source&gt;" in page and "no explanation by itself" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    held = json.loads(re.search(r"const MODELS = (.*);", page)[1])
    np.testing.assert_allclose(held[0]["of_words"], made().of_words)
    np.testing.assert_allclose(held[1]["of_parts"], made().of_parts)
    assert held[0]["words"][2] == "</script>" and held[0]["word"] == 1 and held[1]["of_words"] is None
    draw([blind], select([blind]))


def test_command_draws_two_models_beside_each_other(tool: Tool, folder: Path, tmp_path: Path) -> None:
    pair = ("--image", folder / "picture.png", "--text", TEXT, "--out", tmp_path / "fig")
    models = ("--model", folder / "regions", "--model", folder / "patches")
    code, out, err = tool("visualize", "attention", *models, *pair, "--layer", 2, "--head", 1)
    assert code == 0, err
    assert out.splitlines()[:2] == [f"{name}: layer 2, head 1 of 2" for name in ("regions", "patches")]
    page = (tmp_path / "fig" / "attention.html").read_text(encoding="utf8")
    assert page.count("<section") == 2 and page.count("<rect") == 8 and page.count("<button") == 10
    with Image.open(tmp_path / "fig" / "attention.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
    code, _, err = tool("visualize", "attention", "--model", folder / "regions", *pair, "data.regions=")
    assert code == 2 and "regions (unimo_tiny) reads regions of pictures, not pixels; name some, e.g." in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--word", "blue"), "--word blue: patches reads the words 1 a, 2 small, 3 red, 4 circle, 5 .; give"),
        (("--word", "6"), "--word 6"),
        (("--patch", "1,3"), "--patch 1,3: patches reads patches in rows and columns 1 to 2"),
        (("--patch", "3"), "expected ROW,COL such as 2,3"),
        (("--region", "1"), "--region 1: patches reads patches"),
        (("--region", "1", "--patch", "1,1"), "--patch 1,1 and --region 1: expected one of them"),
        (("--layer", "3"), "--layer 3: patches has layers 1 to 2, or mean"),
        (("--head", "9"), "--head 9: patches has heads 1 to 2, or mean"),
        (("--head", "all"), "expected int"),
        (("--text", ""), "give --image FILE and --text"),
        (("model.mode=two",), "cannot be overridden"),
        (("data.regions=grid",), "patches (unimo3_tiny) reads pixels of pictures, not regions; leave out"),
        (("one", "two"), "3 models; expected one"),
    ],
)
def test_wrong_input_is_one_message(
    tool: Tool, folder: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    for name in ("one", "two"):
        if name in options and not Path(name).exists():
            Path(name).symlink_to("patches")
    pair = ("--image", "picture.png", "--text", TEXT)
    code, out, err = tool("visualize", "attention", "--model", "patches", *pair, *options)
    assert code == 2 and out == "" and message in err and "Traceback" not in err


def test_models_that_cannot_be_drawn_say_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = opened(folder / "patches")
    monkeypatch.setattr(type(model), "fuse", lambda self, *given, **options: unimo.nn.outputs.Encoded())
    with pytest.raises(CapabilityError, match="returns no attentions between text and picture; give a model"):
        collect("m", model, processor, folder / "picture.png", TEXT)
    with pytest.raises(ConfigError, match="m reads regions 1 to 4; try --region 1"):
        find_part(replace(made(), grid=0, model="m"), (1, 1), None)
