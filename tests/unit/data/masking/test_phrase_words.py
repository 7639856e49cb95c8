"""Phrases count as one word in masking and fragments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unimo.data.masking.maskers import SpanMasker
from unimo.data.masking.noun_phrases import PhraseFinder
from unimo.data.processor import Processor, ProcessorConfig
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import CapabilityError
from unimo.models.unimo.collate import UnifiedCollator
from unimo.models.unimo.config import PretrainingConfig

TEXT = "Two big dogs look at a black and gray cat on some equipment ."


@pytest.fixture(scope="module")
def finder() -> PhraseFinder:
    return PhraseFinder("textblob")


def test_nouns_with_what_describes_them_without_articles(finder: PhraseFinder) -> None:
    assert [TEXT[begin:end] for begin, end in finder(TEXT)] == ["big dogs", "black and gray cat"]
    name = "We met John Smith in New York City ."
    assert [name[begin:end] for begin, end in finder(name)] == ["John Smith", "New York City"]
    assert finder("") == finder("runs .") == finder("dogs see a cat with the ball on grass .") == []


THREADS = """
import threading
from unimo.data.loading.loader import ordered_map
from unimo.data.masking.noun_phrases import PhraseFinder
texts = [f"Two black and white dogs look at a {word} kitten near a wooden fence ." for word in "abcdefgh"]
begin = threading.Barrier(4)
def find(text, finder=PhraseFinder("textblob")):
    begin.wait()
    return [text[slice(*place)] for place in finder(text)]
for found in ordered_map(find, texts, 4, 4):
    print(*found, sep=",")
"""


def test_threads_that_begin_at_once_find_what_one_finds() -> None:
    """In a new process, because TextBlob reads its lexicon at the first call."""
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["black and white dogs"] * 8


def test_words_of_a_phrase_have_one_number(finder: PhraseFinder, shared: Path) -> None:
    tokenizer = load_tokenizer(shared / "data/tokenizer/unimo_en", add_prefix_space=True)
    ids, plain = tokenizer.encode_words(TEXT, 50)
    again, words = tokenizer.encode_words(TEXT, 50, finder(TEXT))
    assert again == ids and words[0] == words[-1] == -1
    units: dict[int, list[int]] = {}
    for token, number in zip(ids[1:-1], words[1:-1], strict=True):
        units.setdefault(number, []).append(token)
    told = [tokenizer.decode(tokens).strip() for tokens in units.values()]
    assert told == [
        *("Two", "big dogs", "look", "at", "a", "black and gray cat", "on", "some", "equipment", "."),
    ]
    assert list(units) == list(range(10)) and max(plain) == 13
    cut, numbers = tokenizer.encode_words(TEXT, 9, finder(TEXT))
    assert len(cut) == 9 and numbers[1:-1] == words[1:8]


def test_masks_and_fragments_take_phrases_whole(finder: PhraseFinder) -> None:
    tokenizer = load_tokenizer("scenes")
    text = "there is a small red circle left of a large blue square ."
    config = PretrainingConfig(masking="span", mlm_probability=0.3, phrases="textblob")
    processor = Processor(tokenizer, ProcessorConfig(regions="grid"))
    collator = UnifiedCollator(processor, config, extras=None)
    ids, words = collator.processor.ids_and_words(text, collator.phrases)
    whole = {tuple(np.flatnonzero(np.array(words) == words[ids.index(tokenizer.encode(word, 9)[1])]))
             for word in ("red", "blue")}  # fmt: skip
    assert {len(places) for places in whole} == {3}
    rng, seen = np.random.default_rng(0), 0
    for _ in range(200):
        _, places, _ = SpanMasker(tokenizer, 0.3)(ids, words, rng)
        for phrase in whole:
            assert len(set(phrase) & set(places.tolist())) in (0, 3)
            seen += set(phrase) <= set(places.tolist())
        cut = collator.fragments(ids, words, rng)
        for word in ("small red circle", "large blue square"):
            inside = [token in cut.target_ids for token in tokenizer.encode(word, 9)[1:-1]]
            assert all(inside) or not any(inside)
    assert seen > 20


def test_an_unknown_tagger_is_told_at_once() -> None:
    with pytest.raises(CapabilityError, match="no parser 'x'"):
        PhraseFinder("x")
