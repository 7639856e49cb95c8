"""BERT's `vocab.txt`: ids as those of transformers' `BertTokenizerFast`, cased and uncased."""

import json
from pathlib import Path

import numpy as np
import pytest

from unimo.data.masking.maskers import Masker
from unimo.data.tokenizers import load_tokenizer, starts_word
from unimo.errors import DataError

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
UNCASED = [*SPECIAL, "the", "dog", "##s", "ete", "a", "cafe", ",", "'", "!", "[", "]", "mask", "日", "本"]
CASED = [*SPECIAL, "The", "the", "dog", "##s", "été", "ete", "A", "café", ",", "'", "!", "##A", "日", "本"]
UNKNOWN, BEGIN, END, MASK = 2, 3, 4, 5
LONG = "a" * 101
# Frozen from transformers 4.46.3, without its special tokens.
IDS = [
    ("The DOGS, the dog!", [6, 7, 8, 12, 6, 7, 14], [6, 2, 14, 7, 8, 16]),
    ("Été café CAFÉ", [9, 11, 11], [2, 13, 2]),
    ("e\u0301te\u0301", [9], [2]),  # accents as characters of their own
    ("the日本dog", [6, 18, 19, 7], [7, 18, 19, 8]),
    ("dog\u0000s\u200b\tdog\u00ads\r\nthe\ufffd", [7, 8, 7, 8, 6], [8, 9, 8, 9, 7]),
    ("dog's", [7, 13, 2], [8, 15, 2]),
    (f"{LONG} dog", [2, 7], [2, 8]),
    ("🐕dog the", [2, 6], [2, 7]),
    ("dogA", [2], [8, 17]),
    ("\u2003 ", [], []),
]


def write(folder: Path, names: list[str], name: str = "vocab.txt", end: str = "\n", **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{token}{end}" for token in names), encoding="utf8", newline="")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("way", ["folder", "file", "windows", "saved"])
@pytest.mark.parametrize("cased", [False, True], ids=["uncased", "cased"])
def test_ids_are_those_of_transformers(tmp_path: Path, cased: bool, way: str) -> None:
    names = CASED if cased else UNCASED
    source = write(tmp_path / "bert", names, end="\r\n" if way == "windows" else "\n")
    if way == "file":
        source = write(tmp_path, names, "bert-base-vocab.txt") / "bert-base-vocab.txt"
    tokenizer = load_tokenizer(source)
    if way == "saved":
        tokenizer.save(tmp_path / "model")
        tokenizer = load_tokenizer(tmp_path / "model")
    for text, uncased_ids, cased_ids in IDS:
        expected = cased_ids if cased else uncased_ids
        assert tokenizer.encode(text, 50) == [BEGIN, *expected, END], text
    ids = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert (*ids, tokenizer.mask_token_id) == (BEGIN, 0, END, UNKNOWN, MASK)
    assert tokenizer.special_ids == {0, 1, 2, 3, 4, 5} and tokenizer.vocab_size == len(names)


def test_names_of_special_tokens_in_a_text_are_text(tmp_path: Path) -> None:
    assert load_tokenizer(write(tmp_path, UNCASED)).encode("[MASK]", 9) == [BEGIN, 15, 17, 16, END]


@pytest.mark.parametrize(
    ("names", "config", "text", "ids"),
    [
        (CASED, {"do_lower_case": True}, "The dog", [7, 8]),
        (UNCASED, {"do_lower_case": False}, "The dog", [UNKNOWN, 7]),
        (UNCASED, {"do_lower_case": True, "strip_accents": False}, "Été café", [UNKNOWN, UNKNOWN]),
        (CASED, {"do_lower_case": False, "strip_accents": True}, "café été", [UNKNOWN, 11]),
        (CASED, {"tokenize_chinese_chars": False}, "日本", [UNKNOWN]),
        (CASED, {"model_max_length": 512}, "The dog", [6, 8]),
    ],
)
def test_the_config_beside_it_decides(
    tmp_path: Path, names: list[str], config: dict[str, object], text: str, ids: list[int]
) -> None:
    assert load_tokenizer(write(tmp_path, names, **config)).encode(text, 9) == [BEGIN, *ids, END]


def test_pieces_of_a_word_are_masked_together(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path, UNCASED))
    ids, words = tokenizer.encode_words("dogs the dogs", 20)
    assert words == [-1, 0, 0, 1, 2, 2, -1]
    begins = starts_word(tokenizer)
    assert [bool(begins[index]) for index in ids] == [False, True, False, True, True, False, False]
    masker, found = Masker(tokenizer, 0.5, whole_words=True), set()
    for seed in range(20):
        _, positions, _ = masker(ids, words, np.random.default_rng(seed))
        drawn = {words[position] for position in positions}
        assert positions.tolist() == [place for place, word in enumerate(words) if word in drawn]
        found |= drawn
    assert found == {0, 1, 2}


def test_texts_come_back(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path, CASED))
    assert tokenizer.decode(tokenizer.encode("The dogs, été!", 20)) == "The dogs, été!"


def test_no_vocabulary_of_bert(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vocab.txt: no special tokens in its vocabulary"):
        load_tokenizer(write(tmp_path, ["the", "dog"]))
    with pytest.raises(DataError, match="tokenizer_config.json: expected true or false"):
        load_tokenizer(write(tmp_path, CASED, do_lower_case="yes"))


def test_a_file_in_place_of_its_folder(tmp_path: Path) -> None:
    load_tokenizer(write(tmp_path / "bert", CASED)).save(tmp_path)
    assert load_tokenizer(tmp_path / "tokenizer.json").encode("The", 9) == [BEGIN, 6, END]
    write(tmp_path / "names", CASED, "words.txt")
    with pytest.raises(DataError, match="no tokenizer in .*names .words.txt.*BERT's vocab.txt"):
        load_tokenizer(tmp_path / "names" / "words.txt")
