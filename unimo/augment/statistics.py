"""One pass over a caption corpus that counts vocabularies, word contexts and trigrams, and can be resumed."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unimo.augment.corpus import CaptionCorpus
from unimo.augment.ngram import BYTES_PER_KEY, TrigramCounter
from unimo.augment.scene_graph import Parser
from unimo.augment.vocabulary import Vocabulary, VocabularyCounter
from unimo.data.masking.tagging import split_words
from unimo.errors import DataError
from unimo.files import parse_json, regular, replacing
from unimo.jobs import check_same
from unimo.limits import COUNTS_BYTES

CHECKPOINT = 100_000
"""Captions between two checkpoints; a killed pass loses at most these."""


class CorpusStatistics:
    """Statistics of the whole corpus for rewriting.

    Half of the memory is for trigrams and half for word contexts; when it is full, the rarest are dropped.
    """

    def __init__(self, memory_mb: int) -> None:
        self.memory_mb = memory_mb
        keys = max(1000, memory_mb * 500_000 // BYTES_PER_KEY)
        self.trigrams = TrigramCounter(keys)
        self.vocabulary = VocabularyCounter(keys)
        self._counters = {"trigrams": self.trigrams.trigrams, **self.vocabulary.counters}
        self.read = self.parsed = self.broken = 0
        """Numbers of samples read, of captions with an object, and of samples without a readable text."""

    def collect(
        self,
        corpus: CaptionCorpus,
        parse: Parser,
        file: Path,
        about: Mapping[str, Any],
        advance: Callable[[int], object],
    ) -> None:
        """Read the corpus to its end, continuing where `file` stopped; `advance` gets the samples finished.

        Raises:
            DataError: `file` belongs to another corpus or other settings by `about`, or no caption is
                readable.
        """
        if file.is_file():
            self._load(file, about)
        advance(self.read)
        for index in range(self.read, len(corpus)):
            caption = corpus.get(index)
            if caption is None:
                self.broken += 1
            else:
                graph = parse(caption.text)
                self.parsed += bool(graph.objects)
                self.vocabulary.add(graph, caption.text)
                self.trigrams.add(split_words(caption.text))
            self.read = index + 1
            advance(1)
            # Empty counts would only be in the way of the next attempt.
            if self.broken < self.read and (self.read % CHECKPOINT == 0 or self.read == len(corpus)):
                self._save(file, about)
        if self.broken == self.read:
            raise DataError(f"{corpus.path} has no readable caption; the first: {corpus.complaint(0)}")

    def entries(
        self, min_count: int, neighbours: int, seed: int, file: Path, about: Mapping[str, Any]
    ) -> Vocabulary:
        """Return the vocabulary with similar entries, see `VocabularyCounter.finish`.

        They are computed once and kept in `file`; those of other counts or settings are replaced.
        """
        about = {**about, "min_count": min_count, "neighbours": neighbours, "seed": seed}
        if file.is_file():
            note, saved = _read_arrays(file)
            if note == json.loads(json.dumps(about)):
                with _complete(file):
                    entries = self.vocabulary.named(saved["numbers"])
                    return Vocabulary(entries, saved["counts"], saved["neighbours"])
        found = self.vocabulary.finish(min_count, neighbours, seed, self.memory_mb // 4)
        numbers = np.array([self.vocabulary.entries[entry] for entry in found.entries], np.int64)
        arrays = {"numbers": numbers, "counts": found.counts, "neighbours": found.neighbours}
        _write_arrays(file, about, arrays)
        return found

    def _save(self, file: Path, about: Mapping[str, Any]) -> None:
        note = {
            "about": dict(about),
            "read": self.read,
            "parsed": self.parsed,
            "broken": self.broken,
            "words": list(self.trigrams.words),
            "entries": list(self.vocabulary.entries),
        }
        arrays = {}
        for name, counter in self._counters.items():
            counter.settle()
            arrays |= {f"{name}.keys": counter.keys, f"{name}.counts": counter.counts}
        _write_arrays(file, note, arrays)

    def _load(self, file: Path, about: Mapping[str, Any]) -> None:
        note, saved = _read_arrays(file)
        known = note.get("about")
        known = known if isinstance(known, dict) else {}
        check_same(known, about, f"{file} was counted on another corpus or with other settings")
        with _complete(file):
            for name, counter in self._counters.items():
                counter.keys, counter.counts = saved[f"{name}.keys"], saved[f"{name}.counts"]
            self.read, self.parsed, self.broken = note["read"], note["parsed"], note["broken"]
            self.trigrams.words = {word: number for number, word in enumerate(note["words"])}
            self.vocabulary.entries = {tuple(entry): at for at, entry in enumerate(note["entries"])}


@contextlib.contextmanager
def _complete(file: Path) -> Iterator[None]:
    """Let what a file lacks, or has in another form, name it."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{file} is damaged ({error!r}); remove it to count again") from error


def _write_arrays(file: Path, note: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    with replacing(file) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, note=np.frombuffer(json.dumps(note).encode(), np.uint8), **arrays)


def _read_arrays(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read note and arrays of `_write_arrays`; raise DataError if the file cannot be read."""
    try:
        with zipfile.ZipFile(regular(file, COUNTS_BYTES)) as members:
            if any(member.file_size > member.compress_size for member in members.infolist()):
                raise ValueError("it is compressed, and counts are not")
        with np.load(file) as saved:
            arrays = dict(saved)
        note = parse_json(arrays.pop("note").tobytes(), "its note", DataError)
        if not isinstance(note, dict):
            raise ValueError("its note is no object")
        return note, arrays
    except Exception as error:  # NumPy raises nearly anything about damaged headers
        raise DataError(f"{file} cannot be read ({error}); remove it to count again") from error
