"""Positives by back-translation: English to Chinese, French and Spanish and back (UNIMO, appendix A).

There are three sources: an HTTP endpoint with LibreTranslate's interface (`POST {"q": [...], "source": "en",
"target": "fr"}` answers `{"translatedText": [...]}`); a file of translations, one JSON object a line: `{"id":
"sample id", "text": "...", "via": "fr"}`, several lines for a sample; and models on this machine, run by
CTranslate2:

    MODELS/opus-mt-en-fr/   model.bin, config.json, vocabulary; source.spm, target.spm
    MODELS/opus-mt-fr-en/   the opposite direction

The name of a folder must end in the two languages. Besides CTranslate2 folders, folders of Marian models are
accepted (`decoder.yml`, `*.npz`, vocabularies, as distributed by OPUS-MT) and converted once. A model for
several target languages needs a word before each sentence: put it into `prefix.txt`, e.g. `>>cmn_Hans<<`.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib
import json
import logging
import queue
import shutil
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from unimo.augment.corpus import Caption
from unimo.augment.output import one_at_a_time
from unimo.augment.terms import normalise
from unimo.data.checks import check_id, check_text
from unimo.data.prepare.broken import MOST, BrokenRecords
from unimo.errors import CapabilityError, DataError, RecordError, shown
from unimo.files import (
    listed,
    make_folder,
    parse_json,
    publish_folder,
    read_json_object,
    read_lines,
    read_text,
    regular,
)
from unimo.limits import ANSWER_BYTES, CONFIG_BYTES
from unimo.metrics.text import encodable

log = logging.getLogger(__name__)
VIA = ("zh", "fr", "es")
_END = "</s>"
_BEAM_SIZE = 4
_LONGEST = 256
"""Largest number of subwords of a sentence and of its translation."""

Positive = dict[str, str]
"""`text`, and its intermediate language `via`."""
Translator = Callable[[Sequence[Caption]], list[list[Positive]]]
"""Returns the positives of each caption."""


class BackTranslator(ABC):
    """Translates captions into each language of `via` and back: one positive for each language."""

    via: tuple[str, ...] = VIA

    def __call__(self, captions: Sequence[Caption]) -> list[list[Positive]]:
        """Return the positives of each caption, without unchanged and empty ones.

        Raises:
            DataError: the captions cannot be translated.
        """
        texts = [caption.text for caption in captions]
        found: list[list[Positive]] = [[] for _ in texts]
        for language in self.via:
            back = self.translate(self.translate(texts, "en", language), language, "en")
            for positives, text in zip(found, back, strict=True):
                positives.append({"text": text, "via": language})
        return [distinct(caption.text, rows) for caption, rows in zip(captions, found, strict=True)]

    @abstractmethod
    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Translate sentences from one language to another, e.g. `en` to `fr`."""


def is_address(text: str) -> bool:
    """Return whether a text is the address of an endpoint rather than a path."""
    return text.startswith(("http://", "https://"))


@dataclass
class HttpTranslator(BackTranslator):
    """Back-translation through an HTTP endpoint."""

    url: str
    via: tuple[str, ...] = VIA
    timeout: float = 30.0
    """Seconds until an answer must be complete, however slowly it arrives."""
    retries: int = 4
    """Further attempts after a failure, each after twice the wait."""
    wait: float = 1.0
    """Seconds before the first of them."""

    def __post_init__(self) -> None:
        if not is_address(self.url):
            raise DataError(f"translator {self.url!r} is not an http:// or https:// address")

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Ask the endpoint.

        Raises:
            DataError: no usable answer after all attempts.
        """
        body = json.dumps({"q": list(texts), "source": source, "target": target, "format": "text"}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        problem = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                return _check_answer(self._ask(request), texts)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
        raise DataError(
            f"the translator {self.url} gave no usable answer for {source} to {target} in {self.retries + 1} "
            f"attempts ({problem}); finished lines are kept: fix it and run the same command again"
        )

    def _ask(self, request: urllib.request.Request) -> bytes:
        """Return the answer to a request.

        The time-outs of sockets are for each packet, so a server that sends a byte now and then, in the
        headers too, would never end: another thread waits for it, and is left alone when the time is over.

        Raises:
            OSError, HTTPException, ValueError: no answer in time, or one that is too long.
        """
        answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

        def read() -> None:
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    answers.put(answer.read(ANSWER_BYTES + 1))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=read, daemon=True).start()
        try:
            found = answers.get(timeout=self.timeout)
        except queue.Empty:
            raise TimeoutError(f"no complete answer in {self.timeout:g} seconds") from None
        if isinstance(found, Exception):
            raise found
        if len(found) > ANSWER_BYTES:
            raise ValueError(f"an answer of more than {ANSWER_BYTES:,} bytes, the limit")
        return found


def _check_answer(content: bytes, texts: Sequence[str]) -> list[str]:
    """Parse the translations of an answer.

    Raises:
        ValueError: not JSON, not one text for each, or texts that cannot be translations of these.
    """
    try:
        answer = parse_json(content, "the answer", DataError)
    except DataError as error:
        raise ValueError(str(error)) from error
    found = answer.get("translatedText") if isinstance(answer, dict) else None
    if not isinstance(found, list) or len(found) != len(texts):
        raise ValueError(f"expected {len(texts)} texts in translatedText, found {content[:80]!r}")
    for new, old in zip(found, texts, strict=True):
        # "1970" and "!!!" may come back unchanged.
        is_text = isinstance(new, str) and any(map(str.isalpha, new)) >= any(map(str.isalpha, old))
        if not is_text or len(new) > 5 * len(old) + 100:
            raise ValueError(f"{shown(new)} is no translation of {shown(old)}")
    return [encodable(" ".join(text.split())) for text in found]


class FileTranslations:
    """Translations from a jsonl file, looked up by sample id in a table in `folder` that follows the file.

    Broken lines are counted and left out; the first is logged.

    Raises:
        DataError: the file cannot be read, or more than half of its lines are broken.
    """

    def __init__(self, path: str | Path, folder: str | Path) -> None:
        path, folder = Path(path), Path(folder)
        make_folder(folder)
        try:
            state = regular(path).stat()
        except OSError as error:
            raise DataError(f"cannot read the translations {path}: {error.strerror}") from error
        self._file = folder / "translations.sqlite"
        with _checked(self._file):
            self._base = sqlite3.connect(self._file)
            self._fill(path, f"{path.resolve()} {state.st_size} {state.st_mtime_ns}")

    def _fill(self, path: Path, name: str) -> None:
        """Fill the table unless it is that of the file, whose state the name describes."""
        self._base.execute("CREATE TABLE IF NOT EXISTS source (name TEXT)")
        self._base.execute("CREATE TABLE IF NOT EXISTS positives (sample TEXT, text TEXT, via TEXT)")
        if self._base.execute("SELECT name FROM source").fetchone() == (name,):
            return
        self._base.execute("DELETE FROM source")
        self._base.execute("DELETE FROM positives")
        broken = BrokenRecords(path, MOST, "")
        for number, line in enumerate(read_lines(path), start=1):
            if line.strip():
                with broken.skipping():
                    row = _read_line(line.decode("utf8", "replace"), f"{path}, line {number}")
                    self._base.execute("INSERT INTO positives VALUES (?, ?, ?)", row)
        broken.check()
        self._base.execute("CREATE INDEX IF NOT EXISTS by_sample ON positives (sample)")
        self._base.execute("INSERT INTO source VALUES (?)", (name,))
        self._base.commit()

    def __call__(self, captions: Sequence[Caption]) -> list[list[Positive]]:
        """Return the translations of each caption; none for an unknown sample.

        Raises:
            DataError: the table is damaged.
        """
        query = "SELECT text, via FROM positives WHERE sample = ? ORDER BY rowid"
        found = []
        with _checked(self._file):
            for caption in captions:
                rows = self._base.execute(query, (caption.sample_id,)).fetchall()
                if not all(isinstance(value, str) for row in rows for value in row):
                    raise sqlite3.DatabaseError("a translation is no text")
                found.append(distinct(caption.text, [{"text": text, "via": via} for text, via in rows]))
        return found


@contextlib.contextmanager
def _checked(table: Path) -> Iterator[None]:
    """Let errors of SQLite name the file of the table."""
    try:
        yield
    except sqlite3.Error as error:
        raise DataError(
            f"the table of translations {table} cannot be used ({error}); free some space, or remove it"
        ) from error


def _read_line(line: str, where: str) -> tuple[str, str, str]:
    try:
        item = parse_json(line, where, RecordError)
        sample, text, via = (
            encodable(value) if isinstance(value, str) else value
            for value in (item["id"], item["text"], item.get("via"))
        )
        via = check_text(via, "via") if via else ""
        return str(check_id(sample, "id")), " ".join(check_text(text, "text").split()), via
    except (RecordError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f'{where}: expected {{"id": ..., "text": ..., "via": ...}}: {error}') from error


def distinct(source: str, positives: Sequence[Positive]) -> list[Positive]:
    """Select the positives that differ from the caption and from each other in their words."""
    seen, kept = {normalise(source)}, []
    for positive in positives:
        key = normalise(positive["text"])
        if key and key not in seen:
            seen.add(key)
            kept.append(positive)
    return kept


class LocalTranslator(BackTranslator):
    """Back-translation with the models of one folder; each is loaded at its first use.

    Languages without both models are skipped with a warning. `work` is a folder for converted Marian models.

    Raises:
        DataError: no language has models for both directions.
    """

    def __init__(self, models: str | Path, work: str | Path) -> None:
        self.models, self.work = Path(models), Path(work)
        ways = {way: self._folder(*way) for there in VIA for way in (("en", there), (there, "en"))}
        self.via = tuple(code for code in VIA if ways["en", code] and ways[code, "en"])
        missing = ", ".join(f"{source}-{target}" for (source, target), folder in ways.items() if not folder)
        if not self.via:
            raise DataError(
                f"{models} has no translation models there and back for any of {', '.join(VIA)}: no folder "
                f"has a model and a name that ends in {missing}"
            )
        if missing:
            log.warning("%s has no model %s: only %s", models, missing, ", ".join(self.via))
        self._ways = ways
        self._model = functools.cache(self._load)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Translate sentences; an empty text where the model returns nothing."""
        return self._model(source, target)(texts)

    def _folder(self, source: str, target: str) -> Path | None:
        for folder in sorted(self.models.glob(f"*{source}-{target}")):
            if (folder / "model.bin").is_file() or (folder / "decoder.yml").is_file():
                return folder
        return None

    def _load(self, source: str, target: str) -> Callable[[Sequence[str]], list[str]]:
        folder = self._ways[source, target]
        if not (folder / "model.bin").is_file():
            folder = _convert(folder, self.work / "converted" / folder.name)
        return _open_model(folder)


def _open_model(folder: Path) -> Callable[[Sequence[str]], list[str]]:
    """Load a translation model for one direction, with its sentence pieces."""
    pieces = _library("sentencepiece").SentencePieceProcessor
    try:
        source = pieces(model_file=str(_pieces_file(folder, "source.spm")))
        target = pieces(model_file=str(_pieces_file(folder, "target.spm")))
        model = _library("ctranslate2").Translator(str(folder), device="auto")
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(f"the translation model {folder} cannot be loaded: {error}") from error
    prefix, config = folder / "prefix.txt", folder / "config.json"
    before = read_text(prefix, CONFIG_BYTES, DataError).split() if prefix.is_file() else []
    # Marian's models expect the end of the sentence; the converted config tells whether it is added.
    added = config.is_file() and read_json_object(config, DataError).get("add_source_eos", False)
    after = [_END] if (folder / "source.spm").is_file() and not added else []

    def translate(texts: Sequence[str]) -> list[str]:
        rows = source.encode(list(texts), out_type=str)
        lines = [[*before, *row[:_LONGEST], *after] for row in rows]
        found = model.translate_batch(
            lines, beam_size=_BEAM_SIZE, max_batch_size=32, max_decoding_length=_LONGEST
        )
        return [" ".join(target.decode(result.hypotheses[0]).split()) for result in found]

    return translate


def _pieces_file(folder: Path, name: str) -> Path:
    """Return the file `name`, or the only other file of sentence pieces, which then serves both sides."""
    others = sorted([*listed(folder, "*.spm"), *listed(folder, "*.model")])
    if (folder / name).is_file() or len(others) != 1:
        return folder / name
    return others[0]


def _convert(marian: Path, folder: Path) -> Path:
    """Convert a Marian model with its sentence pieces, unless that has been done; return the folder."""
    with one_at_a_time(folder.parent):
        if folder.is_dir():
            return folder
        temporary = folder.with_name(f".{folder.name}.tmp")
        log.info("converting the Marian model %s", marian)
        try:
            converter = _library("ctranslate2.converters").OpusMTConverter(str(marian))
            converter.convert(str(temporary), force=True)
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"the Marian model {marian} cannot be converted ({error}); "
                "convert it with ct2-opus-mt-converter or ct2-marian-converter"
            ) from error
        for file in (*listed(marian, "*.spm"), *listed(marian, "prefix.txt")):
            shutil.copy(file, temporary)
        publish_folder(temporary, folder)
    return folder


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CapabilityError(
            f"translation models need {name.partition('.')[0]} ({error}); try pip install 'unimo[augment]'"
        ) from error
