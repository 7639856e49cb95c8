"""Back-translation with translation models on this machine, run by CTranslate2.

    MODELS/opus-mt-en-fr/   model.bin, config.json, vocabulary; source.spm, target.spm
    MODELS/opus-mt-fr-en/   the opposite direction

The name of a folder must end in the two languages. Besides CTranslate2 folders, folders of Marian models are
accepted (`decoder.yml`, `*.npz`, vocabularies, as distributed by OPUS-MT) and converted once. A model for
several target languages needs a word before each sentence: put it into `prefix.txt`, e.g. `>>cmn_Hans<<`.
"""

from __future__ import annotations

import functools
import importlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from unimo.augment.output import one_at_a_time
from unimo.augment.translation import VIA, BackTranslator
from unimo.errors import CapabilityError, DataError
from unimo.files import publish_folder, read_json_object

log = logging.getLogger(__name__)
_END = "</s>"
_BEAM_SIZE = 4
_LONGEST = 256
"""Largest number of subwords of a sentence and of its translation."""


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
    before = prefix.read_text(encoding="utf8").split() if prefix.is_file() else []
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
    others = sorted([*folder.glob("*.spm"), *folder.glob("*.model")])
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
        for file in (*marian.glob("*.spm"), *marian.glob("prefix.txt")):
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
