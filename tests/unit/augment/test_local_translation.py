"""Back-translation with local models: tiny Marian models with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unimo.augment.corpus import Caption
from unimo.augment.translation import LocalTranslator
from unimo.errors import CapabilityError, DataError

CAPTIONS = [Caption("s1", "i1", "a dog runs on a hill ."), Caption("s2", "i2", "two cats sit near a lake .")]
WIDTH = 16


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train sentence pieces on a small corpus."""
    spm = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "text.txt").write_text("a dog runs on a hill .\ntwo cats sit near a lake .\n" * 30)
    spm.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "a"),
        vocab_size=45,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder / "a.model"


def marian(folder: Path, pieces: Path, seed: int) -> Path:
    """Write a model of one layer with random weights in Marian's format."""
    import sentencepiece

    folder.mkdir(parents=True)
    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    words = ["</s>", "<unk>", *(model.id_to_piece(at) for at in range(3, model.get_piece_size()))]
    (folder / "vocab.yml").write_text(
        "".join(f"{json.dumps(w, ensure_ascii=False)}: {at}\n" for at, w in enumerate(words))
    )
    (folder / "decoder.yml").write_text("models:\n  - model.npz\nvocabs:\n  - vocab.yml\n  - vocab.yml\n")
    rng = np.random.default_rng(seed)

    def table(*shape: int) -> np.ndarray:
        return rng.normal(0, 1, shape).astype(np.float32)

    weights = {"Wemb": table(len(words), WIDTH), "decoder_ff_logit_out_b": table(1, len(words))}
    for scope in ("encoder_l1_self", "decoder_l1_self", "decoder_l1_context"):
        for name in "qkvo":
            weights |= {f"{scope}_W{name}": table(WIDTH, WIDTH), f"{scope}_b{name}": table(1, WIDTH)}
        weights |= {f"{scope}_Wo_ln_scale": table(1, WIDTH), f"{scope}_Wo_ln_bias": table(1, WIDTH)}
    for scope in ("encoder_l1_ffn", "decoder_l1_ffn"):
        weights |= {f"{scope}_W1": table(WIDTH, 32), f"{scope}_b1": table(1, 32)}
        weights |= {f"{scope}_W2": table(32, WIDTH), f"{scope}_b2": table(1, WIDTH)}
        weights |= {f"{scope}_ffn_ln_scale": table(1, WIDTH), f"{scope}_ffn_ln_bias": table(1, WIDTH)}
    config = {
        "type": "transformer", "enc-depth": 1, "dec-depth": 1, "transformer-heads": 2,
        "transformer-ffn-activation": "relu", "transformer-preprocess": "", "transformer-postprocess": "dan",
        "transformer-postprocess-emb": "d", "transformer-decoder-autoreg": "self-attention",
        "transformer-no-projection": False, "transformer-guided-alignment-layer": "last",
    }  # fmt: skip
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items())
    np.savez(
        folder / "model.npz",
        **{"special:model.yml": np.frombuffer(text.encode() + b"\0", np.int8)},
        **weights,
    )
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(pieces.read_bytes())
    return folder


def test_models_of_marian_are_converted_once_and_translate(pieces: Path, tmp_path: Path):
    ctranslate2 = pytest.importorskip("ctranslate2")
    import sentencepiece

    for seed, way in enumerate(("en-fr", "fr-en", "en-es", "es-en")):
        marian(tmp_path / "models" / f"opus-mt-{way}", pieces, seed)
    work = tmp_path / "work" / "converted"
    translator = LocalTranslator(tmp_path / "models", work.parent)
    assert translator.via == ("fr", "es")  # no model for zh
    found = translator(CAPTIONS)
    # With random weights the result may be empty, or the same for both languages.
    assert any(found) and {row["via"] for rows in found for row in rows} <= {"fr", "es"}
    assert sorted(path.name for path in work.glob("opus*")) == [
        f"opus-mt-{way}" for way in ("en-es", "en-fr", "es-en", "fr-en")
    ]
    # The first direction by hand: pieces, end of sentence added by the converted config, joined pieces.
    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    there = ctranslate2.Translator(str(work / "opus-mt-en-fr"))
    lines = there.translate_batch([model.encode(CAPTIONS[0].text, out_type=str)], beam_size=4)
    wanted = model.decode(lines[0].hypotheses[0])
    assert wanted and translator.translate([CAPTIONS[0].text], "en", "fr") == [" ".join(wanted.split())]
    times = {path: path.stat().st_mtime_ns for path in work.rglob("model.bin")}
    again = LocalTranslator(tmp_path / "models", work.parent)
    assert again(CAPTIONS) == found and times == {path: path.stat().st_mtime_ns for path in times}
    ready = LocalTranslator(work, tmp_path / "none")  # converted models can be used directly
    assert ready(CAPTIONS) == found and not (tmp_path / "none").exists()


class Echo:
    """Stands in for CTranslate2: returns its input and records it."""

    asked: list[list[list[str]]] = []

    def __init__(self, folder: str, device: str) -> None:
        self.folder = folder

    def translate_batch(self, lines: list[list[str]], **_: object) -> list:
        Echo.asked.append(lines)
        return [type("Result", (), {"hypotheses": [line[1:-1]]}) for line in lines]


def test_prefix_and_end_of_sentence(pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unimo.augment.translation._library", _libraries)
    for way in ("en-zh", "zh-en"):
        folder = tmp_path / way
        folder.mkdir()
        (folder / "model.bin").write_bytes(b"weights")
        (folder / "prefix.txt").write_text(">>cmn_Hans<<\n")
        for name in ("source.spm", "target.spm"):
            (folder / name).write_bytes(pieces.read_bytes())
    translator = LocalTranslator(tmp_path, tmp_path / "work")
    Echo.asked = []
    assert translator(CAPTIONS) == [[], []]  # unchanged texts are no positives
    assert len(Echo.asked) == 2 and all(
        line[0] == ">>cmn_Hans<<" and line[-1] == "</s>" for line in Echo.asked[0]
    )
    assert len(translator.translate(["a dog " * 5000], "en", "zh")[0]) < 2000
    (tmp_path / "en-zh" / "config.json").write_text('{"add_source_eos": true}')
    LocalTranslator(tmp_path, tmp_path / "work").translate(["a dog"], "en", "zh")
    assert Echo.asked[-1][0][-1] != "</s>"


def _libraries(name: str) -> object:
    import importlib

    return (
        type("Library", (), {"Translator": Echo}) if name == "ctranslate2" else importlib.import_module(name)
    )


def test_missing_and_broken_models(tmp_path: Path, pieces: Path):
    (tmp_path / "opus-mt-en-fr").mkdir()
    (tmp_path / "opus-mt-en-fr" / "model.bin").write_bytes(b"x")
    with pytest.raises(DataError, match="no folder has a model and a name that ends in .*fr-en"):
        LocalTranslator(tmp_path, tmp_path)
    pytest.importorskip("ctranslate2")
    (tmp_path / "opus-mt-fr-en").mkdir()
    (tmp_path / "opus-mt-fr-en" / "decoder.yml").write_text("models: [none.npz]\nvocabs: [a.yml]\n")
    translator = LocalTranslator(tmp_path, tmp_path / "work")
    with pytest.raises(DataError, match="opus-mt-en-fr cannot be loaded"):
        translator.translate(["a"], "en", "fr")
    with pytest.raises(DataError, match="opus-mt-fr-en cannot be converted"):
        translator.translate(["a"], "fr", "en")
    (tmp_path / "opus-mt-en-fr" / "source.spm").write_bytes(pieces.read_bytes())
    (tmp_path / "opus-mt-en-fr" / "target.spm").write_bytes(pieces.read_bytes())
    with pytest.raises(DataError, match="opus-mt-en-fr cannot be loaded"):
        translator.translate(["a"], "en", "fr")


def test_the_library_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch):
    from unimo.augment import translation

    with pytest.raises(CapabilityError, match="need no_such_library"):
        translation._library("no_such_library")
