"""Corpora whose words a tokenizer does not know: refused in training, said in evaluation."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from micro import make_run, saved
from tokenizers import models, pre_tokenizers

from unimo.data.loading import known_words
from unimo.data.loading.known_words import check_known_words, count_known_words
from unimo.data.readers.generation import GenerationRecord
from unimo.data.record import Record
from unimo.data.tokenizers import Tokenizer, build_word_tokenizer, load_tokenizer
from unimo.errors import DataError, RecordError
from unimo.inference.evaluation import evaluate
from unimo.training.run import train

ENGLISH = ["two dogs run over the grass", "a man holds a camera"]


def records(texts: Sequence[str]) -> list[Record]:
    return [Record(str(number), "mine", text=text) for number, text in enumerate(texts)]


def bytes_only() -> Tokenizer:
    """Byte-level BPE without a single merge."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {name: index for index, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Tokenizer(backend)


@pytest.mark.parametrize("unknown", [0, 2, 3, 4, 10])
def test_the_limit_is_a_share_of_words(unknown: int) -> None:
    """Ten words a text: 3 of 10 are as many as may be, 4 are too many."""
    text = " ".join(["dog"] * (10 - unknown) + ["xyz"] * unknown)
    tokenizer = build_word_tokenizer(["dog"])
    found = count_known_words(tokenizer, records([text] * 300))
    assert (found.words, found.unknown) == (2000, 200 * unknown)
    if unknown > 10 * known_words.MOST_UNKNOWN:
        said = (
            f"mine: {unknown}0% of the words are unknown to the tokenizer, more than 30%, such as 'xyz'; give"
        )
        with pytest.raises(DataError, match=said):
            check_known_words(tokenizer, {"mine": records([text])})
    else:
        check_known_words(tokenizer, {"mine": records([text])})


def test_one_of_several_corpora_is_named() -> None:
    with pytest.raises(DataError, match="^other: 100% .* 'two', 'dogs'.*data.tokenizer="):
        check_known_words(
            build_word_tokenizer(["dog"]), {"mine": records(["dog"]), "other": records(ENGLISH[:1])}
        )


def test_a_word_of_several_pieces_is_one_word(tmp_path: Path) -> None:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "##s", "run"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    found = count_known_words(load_tokenizer(tmp_path), records(["dogs run xyz"]))
    assert (found.words, found.unknown, found.tokens, found.examples) == (3, 1, 4, ("xyz",))


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        (Record("1", "m", text="a", text_pair="b"), ("a", "b")),
        (Record("1", "m"), ()),
        (GenerationRecord("1", "m", sources=("a", "b"), knowledge="c", references=("d",)), tuple("abcd")),
        (GenerationRecord("1", "m", sources=("1 2",), references=("3",), is_tokenized=True), ()),
    ],
)
def test_all_texts_of_a_sample_count(record: Record, texts: tuple[str, ...]) -> None:
    assert record.texts == texts


def test_images_alone_and_broken_records_say_nothing() -> None:
    class Broken(list):
        def __getitem__(self, index: int) -> Any:
            if index % 2:
                raise RecordError("broken")
            return super().__getitem__(index)

    tokenizer = build_word_tokenizer(["dog"])
    check_known_words(tokenizer, {"images": [Record("1", "images", images=(b"x",))]})
    found = count_known_words(tokenizer, Broken(records(["dog", "xyz"] * 10)))
    assert (found.words, found.unknown) == (10, 0)


@pytest.mark.parametrize("text", ["dogs", "日本の犬"])
def test_bytes_a_token_are_said_where_nothing_is_unknown(text: str, caplog: pytest.LogCaptureFixture) -> None:
    check_known_words(bytes_only(), {"mine": records([text])})
    assert "mine: 1.0 bytes a token: the tokenizer spells its words out" in caplog.text


def test_english_in_a_vocabulary_of_english(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shared / "data" / "tokenizer" / "unimo_en"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    with caplog.at_level(logging.INFO):
        check_known_words(load_tokenizer(folder), {"mine": records(ENGLISH)})
    assert "mine: 0.0% of the words unknown to the tokenizer, 1.0" in caplog.text


@pytest.fixture
def photos(tmp_path: Path, make_image: Any) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "p.png").write_bytes(make_image())
    for split in ("train", "val"):
        lines = [{"image": "p.png", "text": text} for text in ENGLISH * 4]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.mark.parametrize("task", ["pretrain", "retrieval"])
def test_training_on_unknown_words_is_refused(tmp_path: Path, photos: Path, task: str) -> None:
    key = "pairs" if task == "pretrain" else "path"
    run = make_run(task, tmp_path / "run", data={key: [str(photos)]})
    with pytest.raises(DataError, match="photos: .* of the words are unknown to the tokenizer"):
        train(run)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_evaluation_says_that_words_are_unknown(
    tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved("retrieval", tmp_path / "run")
    evaluate(tmp_path / "run")
    assert "unknown to the tokenizer, more" not in caplog.text
    evaluate(tmp_path / "run", overrides=[f"data.path={photos}"])
    assert "val: " in caplog.text and "the scores say little of a model that cannot read them" in caplog.text
