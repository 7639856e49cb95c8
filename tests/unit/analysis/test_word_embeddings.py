"""Word embeddings: neighbours against NumPy, words of several tokens, the image, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from micro import TOWER, Tool, saved
from micro_unimo2 import MODEL
from PIL import Image
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

import unimo
from unimo.analysis import word_embeddings
from unimo.analysis.show import titles_of
from unimo.analysis.word_embeddings import Lexicon, headline, only_there, open_lexicon, to_plain
from unimo.data.tokenizers import Tokenizer, load_tokenizer
from unimo.errors import CapabilityError, ConfigError

UNIMO = {
    "name": "unimo_tiny",
    "text": {**TOWER, "vocab_size": 300},
    "regions": {"feature_size": 48, "num_classes": 0},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("scenes")


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((tokenizer.vocab_size, 8)).astype(np.float32)


def byte_level() -> Tokenizer:
    """Make a vocabulary in which ` ab` and ` cat` are words, `ab` and `urger` parts of words."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "c", "t", "Ġ", "Ġa", "Ġab", "ab", "Ġc", "at", "Ġcat"]
    tokens += ["ĠCat", "Ġ7", "C", "ĠC", "<mask>"]
    merges = [
        ("Ġ", "a"),
        ("Ġa", "b"),
        ("a", "b"),
        ("Ġ", "c"),
        ("a", "t"),
        ("Ġc", "at"),
        ("Ġ", "C"),
        ("ĠC", "at"),
    ]
    backend = Backend(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


def test_nearest_words_are_those_with_the_largest_cosines(tokenizer: Tokenizer, rows: np.ndarray) -> None:
    found = Lexicon("m", rows, tokenizer).around("red", nearest=5, context=20)
    names = tokenizer.backend.get_vocab()
    words = {name: i for name, i in names.items() if name.isalpha() and i not in tokenizer.special_ids}
    red = rows[names["red"]]
    cosines = {
        name: float(rows[i] @ red / np.linalg.norm(rows[i]) / np.linalg.norm(red))
        for name, i in words.items()
        if name != "red"
    }
    best = sorted(cosines, key=lambda name: -cosines[name])
    assert [near.text for near in found.words] == best[:20]
    assert [near.text for near in found.neighbours] == best[:5]
    assert [near.similarity for near in found.words] == pytest.approx(
        [cosines[w] for w in best[:20]], abs=1e-6
    )


def test_the_plane_is_that_of_the_two_main_components(tokenizer: Tokenizer, rows: np.ndarray) -> None:
    found = Lexicon("m", rows, tokenizer).around("red", nearest=5, context=20)
    ids = tokenizer.backend.get_vocab()
    table = np.stack([rows[ids[name]] for name in ("red", *(near.text for near in found.words))]).astype(
        float
    )
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    table -= table.mean(axis=0)
    values = np.linalg.svd(table, compute_uv=False)
    places = np.array([found.place, *(near.place for near in found.words)])
    np.testing.assert_allclose(np.linalg.norm(places, axis=0), values[:2], rtol=1e-6)
    assert found.variance == pytest.approx((values[:2] ** 2).sum() / (values**2).sum())


def test_a_word_of_several_tokens_is_their_mean() -> None:
    tokenizer = byte_level()
    rows = np.random.default_rng(1).standard_normal((tokenizer.vocab_size, 6))
    lexicon = Lexicon("m", rows, tokenizer)
    assert lexicon.texts == ["a", "ab", "c", "cat"]  # whole words, one spelling of each, no numbers
    found = lexicon.around("abat", nearest=2)
    ids = tokenizer.backend.get_vocab()
    assert found.tokens == ("ab", "at")
    assert "ab" not in [near.text for near in found.words]  # a part of the centre
    mean = (rows[ids["Ġab"]] + rows[ids["at"]]) / 2
    expected = mean @ rows[ids["Ġcat"]] / np.linalg.norm(mean) / np.linalg.norm(rows[ids["Ġcat"]])
    assert {near.text: near.similarity for near in found.words}["cat"] == pytest.approx(expected)
    assert "abat (mean of ab + at)" in headline(found)
    assert to_plain([[found]])["abat"][0]["mean_of_tokens"] is True


def test_unknown_words_and_numbers_are_refused(tokenizer: Tokenizer, rows: np.ndarray) -> None:
    lexicon = Lexicon("run_a", rows, tokenizer)
    with pytest.raises(ConfigError, match="run_a does not know the word 'hamburger'; it knows e.g. "):
        lexicon.around("hamburger")
    with pytest.raises(ConfigError, match="an empty word"):
        lexicon.around(" ")
    with pytest.raises(ConfigError, match="1 nearest words of 150: expected 2 to 150"):
        lexicon.around("red", nearest=1)


def test_words_that_only_one_model_finds(tokenizer: Tokenizer, rows: np.ndarray) -> None:
    other = rows.copy()
    ids = tokenizer.backend.get_vocab()
    other[ids["circle"]] = other[ids["red"]] * 2
    panels = [Lexicon(name, table, tokenizer).around("red", 4) for name, table in (("a", rows), ("b", other))]
    near = [{one.text for one in panel.neighbours} for panel in panels]
    assert only_there(panels) == [near[0] - near[1], near[1] - near[0]] and "circle" in near[1]
    plain = to_plain([panels])["red"]
    assert plain[1]["neighbours"][0]["word"] == "circle"
    assert plain[1]["neighbours"][0]["cosine"] == pytest.approx(1, abs=1e-4)
    flags = [{one["word"] for one in part["neighbours"] if one["only_here"]} for part in plain]
    assert flags == only_there(panels)
    assert only_there(panels[:1]) == [near[0]]
    assert not any(one["only_here"] for one in to_plain([panels[:1]])["red"][0]["neighbours"])


def test_picture_has_a_panel_for_each_word_and_model(tokenizer: Tokenizer, rows: np.ndarray) -> None:
    lexicons = [Lexicon("a", rows, tokenizer), Lexicon("b", rows[:, ::-1] + 0.5, tokenizer)]
    panels = [[lexicon.around(word, 4) for lexicon in lexicons] for word in ("red", "circle")]
    picture = word_embeddings.draw(panels)
    side = word_embeddings.SIDE * word_embeddings.DPI
    assert picture.size == (2 * side, 2 * side + 0.4 * word_embeddings.DPI)
    pixels = np.asarray(picture)
    middle = pixels.shape[1] // 2
    centre = np.array([0xD6, 0x27, 0x28])
    for half in (pixels[:, :middle], pixels[:, middle:]):
        assert (half == centre).all(axis=2).sum() > 60  # a centre in each column


def test_models_are_called_by_their_runs() -> None:
    paths = [Path("/o/full/model"), Path("/o/without/model")]
    assert titles_of(paths) == ["full", "without"]
    assert titles_of([Path("/o/a_0/pretrain/model"), Path("/o/a_1/pretrain/model")]) == [
        "a_0/pretrain",
        "a_1/pretrain",
    ]
    assert titles_of(paths[:1] * 2) == ["full", "full"]


def test_command_for_every_kind_of_model(tool: Tool, tmp_path: Path) -> None:
    unimo3 = saved("pretrain", tmp_path / "three")
    unimo2 = saved("pretrain", tmp_path / "two", model=MODEL)
    first = saved("pretrain", tmp_path / "one", model=UNIMO, data={"regions": "grid:2:4"})
    out_folder = tmp_path / "figure"
    words = ("--words", "red,circle", "--nearest", 3, "--out", out_folder)
    code, out, err = tool("visualize", "word-embeddings", "--model", first, unimo2, "--model", unimo3, *words)
    assert code == 0, err
    assert len([line for line in out.splitlines() if ", red: " in line]) == 3
    content = json.loads((out_folder / "word_embeddings.json").read_text(encoding="utf8"))
    assert [part["model"] for part in content["circle"]] == ["one", "three", "two"]
    with Image.open(out_folder / "word_embeddings.png") as picture:
        assert picture.size[0] > picture.size[1] > 1000  # three columns, two rows
    code, out, err = tool("visualize", "word-embeddings", "--model", first, "--words", "hamburger")
    assert code == 2 and not out and "one does not know the word 'hamburger'" in err
    code, out, err = tool("visualize", "word-embeddings", "--model", first, "data.path=x")
    assert code == 2 and "without settings" in err


def test_a_model_without_words_is_refused() -> None:
    from paddle import nn

    class Wordless(nn.Layer):
        config = unimo.registry.model_config("unimo_tiny")

    with pytest.raises(CapabilityError, match="no word embeddings"):
        open_lexicon("odd", Wordless(), None)
