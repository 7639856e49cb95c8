"""Positives by back-translation: English to Chinese, French and Spanish and back (UNIMO, appendix A).

There are three sources: models on this machine (`local_translation.py`); an HTTP endpoint with
LibreTranslate's interface (`POST {"q": [...], "source": "en", "target": "fr"}` answers
`{"translatedText": [...]}`); and a file of translations, one JSON object a line: `{"id": "sample id",
"text": "...", "via": "fr"}`, several lines for a sample.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unimo.augment.corpus import Caption
from unimo.augment.terms import normalise
from unimo.data.masking.tagging import encodable
from unimo.errors import DataError

VIA = ("zh", "fr", "es")
_LARGEST = 1 << 24
"""Largest size of an answer in bytes."""

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


@dataclass
class HttpTranslator(BackTranslator):
    """Back-translation through an HTTP endpoint."""

    url: str
    via: tuple[str, ...] = VIA
    timeout: float = 30.0
    """Seconds to wait for an answer."""
    retries: int = 4
    """Further attempts after a failure, each after twice the wait."""
    wait: float = 1.0
    """Seconds before the first of them."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
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
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return _check_answer(answer.read(_LARGEST), texts)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
        raise DataError(
            f"the translator {self.url} gave no usable answer for {source} to {target} in {self.retries + 1} "
            f"attempts ({problem}); finished lines are kept: fix it and run the same command again"
        )


def _check_answer(content: bytes, texts: Sequence[str]) -> list[str]:
    """Parse the translations of an answer.

    Raises:
        ValueError: not JSON, not one text for each, or texts that cannot be translations of these.
    """
    answer = json.loads(content)
    found = answer.get("translatedText") if isinstance(answer, dict) else None
    if not isinstance(found, list) or len(found) != len(texts):
        raise ValueError(f"expected {len(texts)} texts in translatedText, found {content[:80]!r}")
    for new, old in zip(found, texts, strict=True):
        # "1970" and "!!!" may come back unchanged.
        is_text = isinstance(new, str) and any(map(str.isalpha, new)) >= any(map(str.isalpha, old))
        if not is_text or len(new) > 5 * len(old) + 100:
            raise ValueError(f"{str(new)[:80]!r} is no translation of {old[:80]!r}")
    return [encodable(" ".join(text.split())) for text in found]


class FileTranslations:
    """Translations from a jsonl file, looked up by sample id in a table in `folder` that follows the file.

    Raises:
        DataError: the file cannot be read; the line is named.
    """

    def __init__(self, path: str | Path, folder: str | Path) -> None:
        path, folder = Path(path), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            state = path.stat()
        except OSError as error:
            raise DataError(f"cannot read the translations {path}: {error.strerror}") from error
        self._base = sqlite3.connect(folder / "translations.sqlite")
        self._base.execute("CREATE TABLE IF NOT EXISTS source (name TEXT)")
        self._base.execute("CREATE TABLE IF NOT EXISTS positives (sample TEXT, text TEXT, via TEXT)")
        name = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
        if self._base.execute("SELECT name FROM source").fetchone() != (name,):
            self._fill(path, name)

    def _fill(self, path: Path, name: str) -> None:
        self._base.execute("DELETE FROM source")
        self._base.execute("DELETE FROM positives")
        with open(path, encoding="utf8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = _read_line(line, f"{path}, line {number}")
                    self._base.execute("INSERT INTO positives VALUES (?, ?, ?)", row)
        self._base.execute("CREATE INDEX IF NOT EXISTS by_sample ON positives (sample)")
        self._base.execute("INSERT INTO source VALUES (?)", (name,))
        self._base.commit()

    def __call__(self, captions: Sequence[Caption]) -> list[list[Positive]]:
        """Return the translations of each caption; none for an unknown sample."""
        query = "SELECT text, via FROM positives WHERE sample = ? ORDER BY rowid"
        found = []
        for caption in captions:
            rows = self._base.execute(query, (caption.sample_id,))
            found.append(distinct(caption.text, [{"text": text, "via": via} for text, via in rows]))
        return found


def _read_line(line: str, where: str) -> tuple[str, str, str]:
    try:
        item = json.loads(line)
        sample, text, via = str(item["id"]), item["text"], str(item.get("via", ""))
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the text is {text!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{where}: expected {{"id": ..., "text": ..., "via": ...}}: {error}') from error
    return encodable(sample), encodable(" ".join(text.split())), encodable(via)


def distinct(source: str, positives: Sequence[Positive]) -> list[Positive]:
    """Select the positives that differ from the caption and from each other in their words."""
    seen, kept = {normalise(source)}, []
    for positive in positives:
        key = normalise(positive["text"])
        if key and key not in seen:
            seen.add(key)
            kept.append(positive)
    return kept
