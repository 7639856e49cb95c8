"""Fig. 3 from a micro UNIMO-2: mapping against NumPy, files, and the command."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from micro import TOWER, Tool, saved
from PIL import Image

import unimo
from unimo.analysis import grounded_page
from unimo.analysis.grounded_tokens import collect, open_loader
from unimo.errors import CapabilityError, ConfigError
from unimo.inference.evaluation import run_of

SIZES = {
    "name": "unimo2_tiny",
    "text": {**TOWER, "vocab_size": 300},
    "vision": {**TOWER, "image_size": 32, "patch_size": 8},
    "fusion": TOWER,
    "grounding": {"dictionary_size": 24, "num_tokens": 4},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a random model whose dictionary entries are as large as the features mapped to them."""
    folder = saved("pretrain", tmp_path_factory.mktemp("grounded"), model=SIZES)
    from unimo.weights.files import read_safetensors, write_safetensors

    tensors = read_safetensors(folder / "model.safetensors")
    rows = np.random.default_rng(0).standard_normal((24, 16)).astype(np.float32)
    write_safetensors(folder / "model.safetensors", {**tensors, "model.grounding.dictionary": rows})
    return folder


@pytest.fixture(scope="module")
def opened(directory: Path):
    """Return model, processor, and a function that makes loaders of the val split of three scenes."""
    model, processor = unimo.load(directory)

    def loader(*overrides: str, paths: tuple[str, ...] = ()):
        return open_loader(run_of(directory, overrides), processor, paths)

    return model, processor, loader


def reference(model, processor, dataset):
    """Find nearest entry and similarity of each patch [images, 16] and each word, from all data at once."""
    dictionary = model.grounding.dictionary.numpy()
    eta = model.grounding.temperature.item()
    images, texts = {}, []
    for index in range(len(dataset)):
        record = dataset[index]
        images.setdefault(record.image_id, record.image)
        texts.append(record.text)
    batch = {k: paddle.to_tensor(v) for k, v in processor(images=list(images.values()), texts=texts).items()}
    with paddle.no_grad():
        patches = model.encode_image(batch["pixels"]).image.numpy()[:, 1:]
        text = model.encode_text(batch["input_ids"], batch["attention_mask"]).text.numpy()
    ids = batch["input_ids"].numpy()
    is_word = ~np.isin(ids, list(processor.tokenizer.special_ids))
    patch_logits, word_logits = eta * patches @ dictionary.T, eta * text[is_word] @ dictionary.T
    return patch_logits, word_logits, ids[is_word]


def test_every_patch_and_word_goes_to_the_largest_similarity(opened) -> None:
    model, processor, loader = opened
    batches = loader("train.eval_batch_size=5")
    atlas = collect(model, batches, tokens=24, nearest=3)
    patches, words, ids = reference(model, processor, batches.dataset)
    assert (atlas.num_patches, atlas.num_words) == (3 * 16, len(ids))
    patch_use = np.bincount(patches.argmax(-1).ravel(), minlength=24)
    word_use = np.bincount(words.argmax(-1), minlength=24)
    assert (atlas.used_by_patches, atlas.used_by_words) == ((patch_use > 0).sum(), (word_use > 0).sum())
    assert atlas.used_by_both == ((patch_use > 0) & (word_use > 0)).sum()
    assert {token.number for token in atlas.tokens} == set(np.flatnonzero(patch_use + word_use))
    for token in atlas.tokens:
        number = token.number
        assert (token.num_patches, token.num_words) == (patch_use[number], word_use[number])
        mine = np.where(patches.argmax(-1) == number, patches.max(-1), -np.inf).max(axis=1)
        expected = np.sort(mine[np.isfinite(mine)])[::-1][:3]
        assert [patch.similarity for patch in token.patches] == pytest.approx(expected, rel=1e-4)
        here = words.argmax(-1) == number
        best = {word: words.max(-1)[here & (ids == word)].max() for word in set(ids[here])}
        names = [processor.tokenizer.decode([w]) for w in sorted(best, key=lambda w: -best[w])][:3]
        assert [word.text for word in token.words] == names
        counts = [(here & (ids == word)).sum() for word in sorted(best, key=lambda w: -best[w])][:3]
        assert [word.count for word in token.words] == counts


@pytest.mark.parametrize("method", ["topk", "one_to_one"])
def test_class_tokens_are_not_shown_where_they_are_grounded_too(directory, opened, method) -> None:
    _, _, loader = opened
    shown = []
    for on in (False, True):
        # The weights have a temperature, which the 1-to-1 map has not.
        model, _ = unimo.load(directory)
        changed = replace(model.config.grounding, method=method, class_tokens=on)
        model.config = replace(model.config, grounding=changed)
        model.grounding.config = changed
        atlas = collect(model, loader("train.eval_batch_size=5"), tokens=24, nearest=3)
        shown.append([(t.number, t.num_patches, [word.text for word in t.words]) for t in atlas.tokens])
    assert shown[0] == shown[1] and shown[0]


def test_batches_do_not_change_the_result_and_an_image_counts_once(opened) -> None:
    model, _, loader = opened
    whole = collect(model, loader("train.eval_batch_size=64"), nearest=4)
    parts = collect(model, loader("train.eval_batch_size=3"), nearest=4)
    assert [(t.number, t.num_patches, t.num_words) for t in whole.tokens] == [
        (t.number, t.num_patches, t.num_words) for t in parts.tokens
    ]
    short = collect(model, loader("train.eval_batch_size=4"), max_batches=1)
    assert short.num_patches == 16  # four captions of one image


def test_chosen_ids_come_in_the_order_given(opened) -> None:
    model, _, loader = opened
    atlas = collect(model, loader(), ids=[5, 2], nearest=2)
    assert [token.number for token in atlas.tokens] == [5, 2]
    with pytest.raises(ConfigError, match="no grounded token 24: the dictionary has 0 to 23"):
        collect(model, loader(), ids=[24])
    with pytest.raises(ConfigError, match="nearest is 0"):
        collect(model, loader(), nearest=0)


def test_one_to_one_map_uses_distances(opened, tmp_path: Path) -> None:
    grounding = {"dictionary_size": 24, "method": "one_to_one"}
    folder = saved("pretrain", tmp_path, model={**SIZES, "grounding": grounding})
    model, processor = unimo.load(folder)
    loader = open_loader(run_of(folder), processor)
    atlas = collect(model, loader, tokens=24)
    rows = model.grounding.dictionary.numpy()
    first = next(iter(loader))
    with paddle.no_grad():
        states = model.encode_image(paddle.to_tensor(first.images[:1])).image.numpy()[0, 1:]
    nearest = ((states[:, None] - rows) ** 2).sum(-1).argmin(1)
    assert set(nearest) <= {token.number for token in atlas.tokens}
    assert all(patch.similarity <= 0 for token in atlas.tokens for patch in token.patches)


def test_a_model_without_a_dictionary_is_refused(opened) -> None:
    _, _, loader = opened
    with pytest.raises(CapabilityError, match="no grounded dictionary to show; models that can.*unimo2_base"):
        collect(unimo.create_model("unimo3_tiny"), loader())
    plain = unimo.create_model("unimo2_tiny", grounding={"enabled": False})
    with pytest.raises(CapabilityError, match="unless grounding.enabled=false"):
        collect(plain, loader())


def test_command_writes_a_picture_and_a_page(tool: Tool, directory: Path, tmp_path: Path) -> None:
    options = ("--model", directory, "--out", tmp_path / "fig", "--tokens", 3, "--nearest", 2)
    code, out, err = tool("visualize", "grounded-tokens", *options)
    assert code == 0, err
    assert re.match(r"48 patches use \d+ of 24 grounded tokens \(\d+%\)", out)
    assert "%|" not in err  # no bar without a terminal
    page = (tmp_path / "fig" / "grounded_tokens.html").read_text(encoding="utf8")
    pictures = page.count('src="data:image/png;base64,')
    assert page.count("<section") == 3 and 3 <= pictures <= 6
    assert not re.search(r'(src|href)="(?!data:)', page)  # no external resources
    with Image.open(tmp_path / "fig" / "grounded_tokens.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
        colors = np.asarray(picture).reshape(-1, 3)
    assert (colors == grounded_page.FRAME).all(axis=1).sum() >= pictures * 60  # a frame in each


def test_words_cannot_break_the_page(opened) -> None:
    model, _, loader = opened
    atlas = collect(model, loader(), tokens=1)
    word = atlas.tokens[0].words[0]
    odd = type(word)("<b>&", word.similarity, 7)
    token = type(atlas.tokens[0])(**{**vars(atlas.tokens[0]), "words": (odd,)})
    page = grounded_page.make_page(type(atlas)(**{**vars(atlas), "tokens": (token,)}), "a <model>")
    assert "&lt;b&gt;&amp; <small>&times;7" in page and "a &lt;model&gt;" in page and "<b>" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "nowhere"), "no model directory at nowhere"),
        (("--ids", "3", "--tokens", "2"), "not both"),
        (("--ids", "99"), "no grounded token 99"),
        (("--split", "tset"), "no split 'tset'"),
        (("--data", "nowhere"), "nowhere"),
        (("model.text.dropout=1",), "cannot be overridden"),
    ],
)
def test_wrong_input_is_one_message(
    tool: Tool, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = tool("visualize", "grounded-tokens", "--model", directory, *options)
    assert code == 2 and out == ""
    assert message in err and "Traceback" not in err
