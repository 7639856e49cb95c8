"""Cards of released weights, a YAML file each: what they are called, and where they are.

Those of the package are `unimo/weights/cards/NAME.yaml`. Those in the folder `cards` of `home()`, for files
of one's own, are read as well, and win.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from unimo.config import merge_into, read_yaml
from unimo.errors import ConfigError, nearest, shown
from unimo.files import checked_path, listed

HUB = "hf://"
_FOLDER = Path(__file__).parent / "cards"
_NAME = re.compile(r"\w[\w.-]{0,99}")


@dataclass(frozen=True)
class Card:
    """Released weights. A field is left out of a file when it is not known."""

    name: str = ""
    """Name, that of the file."""
    title: str = ""
    """Name that their authors use."""
    part: Literal["text tower", "vision tower", "model", "tokenizer"] = "model"
    """Use in this library. Text and vision towers are values of `model.text.init` and `model.vision.init`."""
    converter: str = ""
    """Kind of the files, `tools/convert_checkpoint.py --from`; empty while nothing here reads them."""
    sources: list[str] = field(default_factory=list)
    """Places of the files, the first that has one is taken: `hf://OWNER/REPOSITORY`, `https://HOST/FOLDER`,
    `file:///FOLDER`, or a folder."""
    page: str = ""
    """Where a reader finds them if no address is known."""
    weights: list[str] = field(default_factory=list)
    """Names, or patterns, of one and the same thing: a file, a folder, or an archive of one."""
    config: str = ""
    """Name of their config."""
    tokenizer: list[str] = field(default_factory=list)
    """Names of the files of their tokenizer."""
    tokenizer_of: str = ""
    """Card that has the tokenizer they were trained with."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Name of a file -> its checksum."""
    parameters: int = 0
    """Parameters, of models without heads."""
    licence: str = ""
    """Licence that their authors state."""
    image_size: int = 0
    """Side of the images in training, pixels."""
    preprocessing: str = ""
    """Preparation of images in training."""
    scores: dict[str, str] = field(default_factory=dict)
    """Measure -> the paper's score, after fine-tuning."""

    @property
    def repository(self) -> str:
        """Repository of the first source at the Hugging Face hub, the name that others know; else empty."""
        return next((each.removeprefix(HUB) for each in self.sources if each.startswith(HUB)), "")


def home() -> Path:
    """Return the folder of fetched and converted weights: `UNIMO_HOME`, else `~/.cache/unimo`.

    Raises:
        ConfigError: no folder can have this name.
    """
    return checked_path(os.environ.get("UNIMO_HOME") or "~/.cache/unimo", ConfigError, "UNIMO_HOME")


def is_offline() -> bool:
    """Return whether `HF_HUB_OFFLINE` forbids all downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def cards() -> dict[str, Card]:
    """Return all cards by name, sorted.

    Raises:
        ConfigError: a card has unknown fields or wrong values.
    """
    paths = {path.stem: path for folder in (_FOLDER, home() / "cards") for path in listed(folder, "*.yaml")}
    return {name: _read(paths[name]) for name in sorted(paths)}


def find_card(name: str | Path) -> Card | None:
    """Return the card of a name, or of the hub's repository of that name; None if there is none.

    A repository may begin with `hf://`, as in the sources of cards.
    """
    name = str(name).removeprefix(HUB)
    if _NAME.fullmatch(name):
        places = (folder / f"{name}.yaml" for folder in (home() / "cards", _FOLDER))
        return next((_read(path) for path in places if path.is_file()), None)
    if re.fullmatch(rf"{_NAME.pattern}/{_NAME.pattern}", name):
        return next((card for card in cards().values() if HUB + name in card.sources), None)
    return None


def get_card(name: str) -> Card:
    """Return the card of a name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if (card := find_card(name)) is None:
        raise ConfigError(f"no card {shown(name)}; {near(name)}")
    return card


def near(name: str | Path, *parts: str) -> str:
    """Return the names of cards that are closest to a wrong one, as the end of a message.

    Args:
        name: the wrong one.
        parts: kinds of weights that are meant; none for all.
    """
    meant = [card for card in cards().values() if not parts or card.part in parts]
    known = [name for card in meant for name in (card.name, card.repository) if name]
    return f"released weights by name: {nearest(str(name), known)}"


def _read(path: Path) -> Card:
    return replace(merge_into(Card(), read_yaml(path), str(path)), name=path.stem)
