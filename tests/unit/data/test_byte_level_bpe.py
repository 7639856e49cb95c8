"""UNIMO's tokenizer equals a plain reading of GPT-2's algorithm, and what it encodes it gives back."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import tokenizers
from plain_bpe import PlainBpe, byte_letters
from tokenizers import models, pre_tokenizers, trainers

from unimo.data.scenes.dataset import ScenesDataset
from unimo.data.tokenizers import Tokenizer, load_tokenizer
from unimo.settings import ScenesConfig

CONTROL = "".join(map(chr, range(32))) + "".join(map(chr, range(127, 161)))
HARD = [
    "",
    " ",
    "  two  spaces   and more    ",
    "\ttabs\t\tand\nlines\r\n\r\n",
    "it's we'll I'd you're they've don't I'm 'S 's' 'd'm ''ll",
    "Café naïve über coöperate — “quotes” … ½ x² №5 Ⅷ ٣ 三",
    "a😀b 👩‍👩‍👧‍👦 🇩🇪 ❤️ 👍🏽👍",
    "一只狗在草地上跑。 狗 、狗!",
    "العربية עברית हिन्दी ไทย 한국어 日本語カタカナ",
    "zero\u200bwidth\ufeffmarks\u00adsoft\u2028line\u3000wide\u00a0hard",
    "e\u0301 combining \u0301 alone",
    "[MASK] <mask> </s> <|endoftext|> madeupword0001 Ġ ĠĠ ##",
    "snake_case 3.14 1,000,000 a1b2 http://x.y/z?q=1&r=2 @#$%^&*()",
    "\U0010fffd\ue000\uffff\ufffd",
    CONTROL,
    *(f"a{letter}b {letter} c{letter}{letter}" for letter in CONTROL),
]


def fuzz(count: int) -> list[str]:
    """Random texts of letters, signs, spaces, emoji, Chinese and whatever else there is."""
    rng = random.Random(0)
    pools = ["abcXYZ '", "0123.,!?", " \n\t\u00a0\u3000", "éüßñ", "狗猫在上", "😀👍❤️🏽", CONTROL]
    anything = [chr(code) for code in range(0x250, 0x20000, 997) if not 0xD800 <= code < 0xE000]
    texts = []
    for _ in range(count):
        pool = "".join(rng.choices([*pools, *anything], k=4))
        texts.append("".join(rng.choices(pool, k=rng.randint(1, 40))))
    return texts


def captions(count: int) -> list[str]:
    scenes = ScenesDataset("pairs", "train", ScenesConfig(train_images=count, captions_per_image=1))
    return [scenes[index].text for index in range(len(scenes))]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in UNIMO's format with 300 merges of captions and hard texts."""
    folder = tmp_path_factory.mktemp("bpe")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(byte_letters().values())
    trainer = trainers.BpeTrainer(vocab_size=556, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(captions(200) + HARD, trainer)
    content = json.loads(backend.to_str())["model"]
    merges = [each if isinstance(each, str) else " ".join(each) for each in content["merges"]]
    assert len(merges) == 300
    order = sorted(content["vocab"], key=content["vocab"].__getitem__)
    numbers = random.Random(1).sample(range(len(order)), len(order))  # rows are not in the order of numbers
    rows = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", *map(str, numbers), "[MASK]"]
    (folder / "unimo_en.encoder.json").write_text(json.dumps({token: n for n, token in enumerate(order)}))
    (folder / "unimo_en.vocab.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "unimo_en.vocab.txt").write_text("".join(f"{row}\t{n}\n" for n, row in enumerate(rows)))
    return folder


def check(tokenizer: Tokenizer, plain: PlainBpe, texts: list[str]) -> int:
    """Compare ids, and the texts that come back; return the number of tokens."""
    tokens = 0
    for text in texts:
        ids = tokenizer.encode(text, sys.maxsize)[1:-1]
        assert ids == plain.encode(text), repr(text)
        assert tokenizer.decode(ids) == text == plain.decode(ids), repr(text)
        tokens += len(ids)
    return tokens


def test_ids_are_those_of_a_plain_reading_and_texts_come_back(small: Path) -> None:
    assert check(load_tokenizer(small), PlainBpe(small), HARD + captions(300) + fuzz(1000)) > 10_000


def test_the_released_vocabulary_on_photographs(shared: Path) -> None:
    folder = shared / "data/tokenizer/unimo_en"
    images = json.loads((shared / "data/flickr8k_800/dataset_flickr8k.json").read_bytes())["images"]
    texts = [sentence["raw"] for image in images for sentence in image["sentences"]]
    assert len(texts) == 4000
    assert check(load_tokenizer(folder), PlainBpe(folder), texts + HARD + fuzz(500)) > 60_000
