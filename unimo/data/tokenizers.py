"""Tokenizers: byte-level BPE of RoBERTa and UNIMO, WordPiece of BERT, and a word list for `scenes`.

One class wraps the `tokenizers` library. Only this class adds special tokens: their names inside a text
("<mask>") are ordinary characters, as in UNIMO's own tokenizer.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from unimo.errors import DataError, RecordError, UnimoError, shown
from unimo.files import checked_path, listed, read_json_object, read_text
from unimo.limits import CONFIG_BYTES, VOCABULARY
from unimo.weights.named import card_of, tokenizer_place
from unimo.weights.places import find_tokenizer

# Names of (begin, padding, end, unknown, mask) in the supported families.
SPECIAL_NAMES = (
    ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"),
)
_UNKNOWN = "\U0010fffd"
"""A character of no language, which no vocabulary has."""
UNUSED = re.compile(r"madeupword\d+|\[unused\d+\]")
GROWTH = 16
"""Largest factor by which replacements may lengthen a text; public tokenizers have single characters."""
UNIMO_FILES = (".encoder.json", ".vocab.bpe", ".vocab.txt")


@contextlib.contextmanager
def _failing_as(kind: type[UnimoError], what: str) -> Iterator[None]:
    """Turn failures of the library into errors of type `kind`, whose message begins with `what`.

    It raises bare Exception, and where a file makes its own checks fail an exception of its own that is none.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what}: {str(error):.200}") from error


class Tokenizer:
    """Converts texts to token ids between the special tokens of its family, and back.

    Attributes:
        vocab_size: number of ids; all ids are smaller.
        special_names: the five special tokens, one of `SPECIAL_NAMES`.
        bos_token_id, pad_token_id, eos_token_id, unk_token_id, mask_token_id: the special ids
            (0, 1, 2, 3 and the last one in RoBERTa's, UNIMO's and our own vocabularies).
        special_ids: these five and the ids that never represent text; MLM neither masks nor draws them.
    """

    def __init__(self, backend: tokenizers.Tokenizer, where: str = "tokenizer") -> None:
        """Wrap a `tokenizers.Tokenizer` that adds no special tokens by itself.

        Raises:
            DataError: the vocabulary lacks the special tokens of every known family.
        """
        self.backend = backend
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        if self.vocab_size > VOCABULARY:
            raise DataError(f"{where}: an id of {self.vocab_size - 1:,}; expected less than {VOCABULARY:,}")
        names = next((family for family in SPECIAL_NAMES if set(family) <= set(vocabulary)), None)
        if names is None:
            expected = " or ".join(" ".join(family) for family in SPECIAL_NAMES)
            raise DataError(f"{where}: no special tokens in its vocabulary; expected {expected}")
        with _failing_as(DataError, f"{where}: cannot encode unknown words"):
            backend.encode(_UNKNOWN, add_special_tokens=False)
        self.special_names = names
        ids = [vocabulary[name] for name in names]
        self.bos_token_id, self.pad_token_id, self.eos_token_id, self.unk_token_id, self.mask_token_id = ids
        unused = (index for name, index in vocabulary.items() if UNUSED.fullmatch(name))
        self.special_ids = frozenset((*ids, *unused))

    def encode(self, text: str, max_length: int) -> list[int]:
        """Return the ids of `<s> text </s>`, cut to `max_length` with both special tokens kept."""
        return self.encode_words(text, max_length)[0]

    def encode_words(
        self, text: str, max_length: int, phrases: Sequence[tuple[int, int]] = ()
    ) -> tuple[list[int], list[int]]:
        """Like `encode`, with the number of the word that each token is part of (-1: special).

        Words with characters of the same phrase, given by its begin and end, count as one word.

        Raises:
            RecordError: a pattern of the tokenizer gives up on the text.
        """
        with _failing_as(RecordError, f"the tokenizer cannot encode {shown(text)}"):
            encoding = self.backend.encode(text, add_special_tokens=False)
        ids, words = encoding.ids[: max_length - 2], encoding.word_ids[: max_length - 2]
        if phrases:
            words = _join_words(words, encoding.offsets, phrases)
        return [self.bos_token_id, *ids, self.eos_token_id], [-1, *words, -1]

    def written_words(self, text: str, max_length: int) -> tuple[list[int], list[str]]:
        """Return the word of each token of `encode` (-1: special), and the words as the text has them.

        Raises:
            RecordError: a pattern of the tokenizer gives up on the text.
        """
        with _failing_as(RecordError, f"the tokenizer cannot encode {shown(text)}"):
            encoding = self.backend.encode(text, add_special_tokens=False)
        kept = list(zip(encoding.word_ids, encoding.offsets, strict=True))[: max_length - 2]
        places: dict[int, list[tuple[int, int]]] = {}
        for word, place in kept:
            places.setdefault(word, []).append(place)
        number_of = {word: number for number, word in enumerate(places)}
        written = [text[min(part)[0] : max(end for _, end in part)].strip() for part in places.values()]
        return [-1, *(number_of[word] for word, _ in kept), -1], written

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, without special tokens.

        Raises:
            RecordError: a pattern of the tokenizer gives up on them.
        """
        kept = [int(index) for index in ids if int(index) not in self.special_ids]
        with _failing_as(RecordError, f"the tokenizer cannot decode {shown(kept)}"):
            return self.backend.decode(kept, skip_special_tokens=False)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self.backend.to_str(), encoding="utf8")


def _join_words(
    words: Sequence[int], places: Sequence[tuple[int, int]], phrases: Sequence[tuple[int, int]]
) -> list[int]:
    """Renumber words, with the same number for all that overlap the characters of a phrase."""
    joined: dict[int, int] = {}  # word -> phrase
    for word, (begin, end) in zip(words, places, strict=False):
        for number, (first, behind) in enumerate(phrases):
            if begin < behind and first < end:
                joined.setdefault(word, number)
    keys = [("phrase", joined[word]) if word in joined else ("word", word) for word in words]
    number_of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [number_of[key] for key in keys]


def build_word_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Build a lower-casing tokenizer with one id a word: `<s> <pad> </s> <unk>`, the words, `<mask>`."""
    names = SPECIAL_NAMES[0]
    ordinary = sorted({word.lower() for word in words} - set(names))
    vocabulary = {name: index for index, name in enumerate((*names[:4], *ordinary, names[4]))}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(backend, "word tokenizer")


def load_tokenizer(source: str | Path, add_prefix_space: bool = False) -> Tokenizer:
    """Open a tokenizer.

    Args:
        source: `scenes`, or a folder with `tokenizer.json`, with RoBERTa's `vocab.json` and
            `merges.txt`, with BERT's `vocab.txt`, or with UNIMO's `*.encoder.json`, `*.vocab.bpe` and
            `*.vocab.txt`; instead of the folder also one of these files, or the name of a card of released
            weights, such as `roberta-base`, whose files are then fetched.
        add_prefix_space: encode with byte-level BPE as if a space preceded the text (" a" and "a" differ).
            A `tokenizer.json` keeps its own setting.

    Raises:
        DataError: the folder or one of its files is missing or malformed.
    """
    if str(source) == "scenes":
        from unimo.data.scenes.dataset import vocabulary

        return build_word_tokenizer(vocabulary())
    place = checked_path(tokenizer_place(source), DataError, "data.tokenizer")
    folder = place.parent if place.is_file() else place
    encoders = listed(folder, "*" + UNIMO_FILES[0])
    if place.is_file() and not encoders and place.name.endswith("vocab.txt"):
        return _load_wordpiece(place)  # whatever stands before it: bert-base-uncased-vocab.txt
    if (folder / "tokenizer.json").is_file():
        return _load_json(folder / "tokenizer.json")
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        vocabulary = read_json_object(folder / "vocab.json", DataError)
        return _byte_level(vocabulary, folder / "merges.txt", add_prefix_space)
    if encoders:
        return _load_unimo(encoders[0], add_prefix_space)
    if (folder / "vocab.txt").is_file():
        return _load_wordpiece(folder / "vocab.txt")
    found = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else ["no such folder"]
    raise DataError(
        f"no tokenizer in {folder} ({', '.join(found) or 'empty'}); expected tokenizer.json, vocab.json and "
        f"merges.txt, BERT's vocab.txt, or unimo_en{', unimo_en'.join(UNIMO_FILES)}; `scenes` is the "
        "built-in one"
    )


def tokenizer_beside(source: str) -> str:
    """Return the tokenizer of weights, as `load_tokenizer` takes it; empty if they have none.

    That is the card that a name stands for, or the folder of the weights, or `tokenizer` in it.
    """
    if (card := card_of(source)) is not None:
        return source if card.tokenizer or card.tokenizer_of else ""
    places = (place for place in (Path(source), Path(source) / "tokenizer") if place.is_dir())
    return next((str(place) for place in places if find_tokenizer(place)), "")


def _load_json(path: Path) -> Tokenizer:
    """Load any `tokenizer.json`, without the parts that would recognise or add special tokens."""
    content = read_json_object(path, DataError)
    model, added = content.get("model"), content.get("added_tokens") or []
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict):
        raise DataError(f"{path}: expected a `model.vocab` mapping (BPE, WordPiece or WordLevel)")
    try:
        vocabulary.update({token["content"]: token["id"] for token in added})
    except (TypeError, KeyError) as error:
        raise DataError(
            f"{path}: expected `added_tokens` with `content` and `id`, found {shown(added)}"
        ) from error
    for part in ("normalizer", "decoder"):
        if (growth := _growth(content.get(part))) > GROWTH:
            raise DataError(
                f"{path}: its {part} may make a text {growth:,} times as long; expected at most {GROWTH}"
            )
    content.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    with _failing_as(DataError, f"{path} is not a tokenizer.json"):
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    return Tokenizer(backend, str(path))


def _load_wordpiece(path: Path) -> Tokenizer:
    """Load BERT's vocabulary, one token a line, as its own tokenizer reads it.

    `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` are those of a `tokenizer_config.json`
    beside it. Without one, a vocabulary without capital letters is of lower-cased text.
    """
    config_path = path.with_name("tokenizer_config.json")
    config = read_json_object(config_path, DataError) if config_path.is_file() else {}
    names = [line.removesuffix("\r") for line in _read_lines(path)]
    ordinary = (name for name in names if name not in SPECIAL_NAMES[1] and not UNUSED.fullmatch(name))
    has_capitals = any(re.search("[A-Z]", name) for name in ordinary)
    options = {
        "lowercase": config.get("do_lower_case", not has_capitals),
        "strip_accents": config.get("strip_accents"),
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
    }
    vocabulary = {name: index for index, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL_NAMES[1][3]))
    try:
        backend.normalizer = normalizers.BertNormalizer(clean_text=True, **options)
    except TypeError as error:
        raise DataError(f"{config_path}: expected true or false, found {shown(options, 200)}") from error
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return Tokenizer(backend, str(path))


def _growth(part: Any) -> int:
    """Return how many times as long a text may become by the replacements in a part of a tokenizer.

    The library aborts the process when it lacks memory.
    """
    if isinstance(part, list):
        return math.prod(map(_growth, part))
    if not isinstance(part, dict):
        return 1
    content = part.get("content") if part.get("type") == "Replace" else ""
    return max(1, len(content) if isinstance(content, str) else 1) * _growth(list(part.values()))


def _load_unimo(encoder_path: Path, add_prefix_space: bool) -> Tokenizer:
    """Load UNIMO's files: GPT-2 ids of BPE strings, merges, and the GPT-2 id (or name) of each model id."""
    stem = encoder_path.name[: -len(UNIMO_FILES[0])]
    merges_path, ids_path = (encoder_path.with_name(stem + ending) for ending in UNIMO_FILES[1:])
    strings = {str(index): string for string, index in read_json_object(encoder_path, DataError).items()}
    entries = [line.split("\t")[0] for line in _read_lines(ids_path)]
    vocabulary = {strings.get(entry, entry): index for index, entry in enumerate(entries)}
    if len(vocabulary) != len(entries) or not set(strings.values()) <= set(vocabulary):
        raise DataError(f"{ids_path} does not list each id of {encoder_path.name} once")
    return _byte_level(vocabulary, merges_path, add_prefix_space)


def _byte_level(vocabulary: dict[str, int], merges_path: Path, add_prefix_space: bool) -> Tokenizer:
    lines = [line for line in _read_lines(merges_path) if line and not line.startswith("#version")]
    merges = [tuple(line.split(" ")) for line in lines]
    with _failing_as(DataError, f"{merges_path} does not fit its vocabulary"):
        backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, str(merges_path.parent))


def _read_lines(path: Path) -> Sequence[str]:
    return read_text(path, CONFIG_BYTES, DataError, "tokenizer file").rstrip("\n").split("\n")


@lru_cache(maxsize=4)
def starts_word(tokenizer: Tokenizer) -> np.ndarray:
    """Return which tokens begin a word, bool [vocabulary].

    These are tokens with a leading space (byte-level BPE) or without `##` (WordPiece), but no special ones.
    """
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    is_byte_level = any(name.startswith("Ġ") for name in vocabulary)
    begins = np.zeros(tokenizer.vocab_size, bool)
    for name, index in vocabulary.items():
        begins[index] = name.startswith("Ġ") if is_byte_level else not name.startswith("##")
    begins[list(tokenizer.special_ids)] = False
    return begins
