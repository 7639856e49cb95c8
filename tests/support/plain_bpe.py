"""GPT-2's byte-level BPE as its paper and code describe it, in plain Python: slow, short, and no library."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

# White_Space of Unicode; `str.isspace` has four control characters more.
SPACES = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B)
}
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def byte_letters() -> dict[int, str]:
    """Return the letter of each byte: itself where that can be seen, else one of those from 256 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(unseen)}


def kind_of(letter: str) -> str:
    """Return what a letter is for the pattern: a space, a letter, a number, or anything else."""
    if letter in SPACES:
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(letter)[0], "other")


def pieces(text: str) -> Iterator[str]:
    """Cut a text as the pattern does:

    's|'t|'re|'ve|'m|'ll|'d| ?letters| ?numbers| ?others|spaces without the one before a word|spaces
    """
    at = 0
    while at < len(text):
        begin = at
        short = next((each for each in CONTRACTIONS if text.startswith(each, at)), "")
        first = at + (text[at] == " " and at + 1 < len(text))
        kind = kind_of(text[first])
        if short:
            at += len(short)
        elif kind != "space":
            at = first
            while at < len(text) and kind_of(text[at]) == kind:
                at += 1
        else:
            while at < len(text) and kind_of(text[at]) == "space":
                at += 1
            if at < len(text) and at - begin > 1:
                at -= 1
        yield text[begin:at]


class PlainBpe:
    """The tokenizer of a folder with UNIMO's three files."""

    def __init__(self, folder: Path) -> None:
        """Read `*.encoder.json`, `*.vocab.bpe` and `*.vocab.txt`."""
        (encoder,), (merges,) = folder.glob("*.encoder.json"), folder.glob("*.vocab.bpe")
        (rows,) = folder.glob("*.vocab.txt")
        number_of = json.loads(encoder.read_text(encoding="utf8"))
        names = [line.split("\t")[0] for line in rows.read_text(encoding="utf8").splitlines()]
        row_of = {name: row for row, name in enumerate(names)}
        self.id_of = {token: row_of[str(number)] for token, number in number_of.items()}
        self.token_of = {index: token for token, index in self.id_of.items()}
        lines = merges.read_text(encoding="utf8").split("\n")[1:]
        self.rank_of = {tuple(line.split(" ")): rank for rank, line in enumerate(lines) if line}
        self.letters = byte_letters()
        self.known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special ones."""
        return [index for piece in pieces(text) for index in self._of_piece(piece)]

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""
        byte_of = {letter: byte for byte, letter in self.letters.items()}
        return bytes(byte_of[letter] for index in ids for letter in self.token_of[index]).decode("utf8")

    def _of_piece(self, piece: str) -> list[int]:
        if piece not in self.known:
            parts = [self.letters[byte] for byte in piece.encode("utf8")]
            while True:
                pairs = zip(parts, parts[1:], strict=False)
                ranks = {pair: self.rank_of[pair] for pair in pairs if pair in self.rank_of}
                if not ranks:
                    break
                best, merged, at = min(ranks, key=ranks.__getitem__), [], 0
                while at < len(parts):
                    is_best = tuple(parts[at : at + 2]) == best
                    merged.append("".join(best) if is_best else parts[at])
                    at += 1 + is_best
                parts = merged
            self.known[piece] = [self.id_of[part] for part in parts]
        return self.known[piece]
