"""Released weights by name: from a name, or a path, to the folder that holds what the name stands for.

    home()/released/NAME     files of others, as they were fetched or put there
    home()/converted/NAME    what is made of them, once: a tower folder or a model directory

A path that exists is always meant as such. A folder of Hugging Face is converted like released files.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from unimo.errors import CheckpointError, ConfigError
from unimo.files import listed, make_folder
from unimo.weights import archives
from unimo.weights.cards import Card, find_card, get_card, home
from unimo.weights.files import open_tensors
from unimo.weights.huggingface import SOURCES, convert_tower
from unimo.weights.places import find_config
from unimo.weights.recognise import recognise

logger = logging.getLogger(__name__)
TOWERS = ("text tower", "vision tower")


@dataclass(frozen=True)
class Files:
    """Files of a card, each checked."""

    weights: Path
    """File with all tensors, or folder with one file for each."""
    config: Path | None
    """Their config, if they have one."""
    tokenizer: Path | None
    """Folder of their tokenizer, if they have one."""


def card_of(name: str | Path) -> Card | None:
    """Return the card that a name stands for; None if it is a path that exists, or there is no such card."""
    card = find_card(name)
    return None if card is None or Path(name).exists() else card


def tower_folder(name: str | Path) -> Path:
    """Return the folder of a tower; that of a name is fetched and converted when it is asked for first.

    Args:
        name: name of a card, folder of a tower, or folder of Hugging Face, which is converted too.

    Raises:
        ConfigError: the name is that of something else, or it is not clear what the folder holds.
        CheckpointError: its files cannot be had or do not fit.
    """
    if (card := card_of(name)) is not None:
        return tower_of(card)
    return _convert_folder(Path(name)) if is_of_hugging_face(name) else Path(name)


def is_of_hugging_face(path: str | Path) -> bool:
    """Return whether a path is a folder as Hugging Face writes them, and no folder of ours."""
    return (Path(path) / "config.json").is_file() and not (Path(path) / "config.yaml").is_file()


def _convert_folder(source: Path) -> Path:
    """Return what is made of a folder of Hugging Face, anew when a file in it was changed."""
    files = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in listed(source)]
    mark = hashlib.sha256(repr((str(source.resolve()), files)).encode()).hexdigest()[:16]
    folder = home() / "converted" / f"{source.resolve().name}-{mark}"
    if not _is_whole(folder):
        with _lock(folder.name):
            if not _is_whole(folder):
                kind = recognise(open_tensors(source), {}, find_config(source), str(source))
                if kind not in SOURCES:
                    raise ConfigError(f"{source} holds weights of the kind {kind}, expected a tower")
                logger.info("converting %s, read as %s, to %s", source, kind, folder)
                make_folder(folder.parent)
                convert_tower(kind, source, None, folder)
    return folder


def tower_of(card: Card, again: bool = False) -> Path:
    """Return the folder of the tower of a card; arguments and errors are those of `converted`."""
    if card.part not in TOWERS:
        raise ConfigError(f"{card.name} is a {card.part}, expected a tower; use {use(card)}")

    def convert(files: Files, folder: Path) -> None:
        convert_tower(card.converter, files.weights, files.config, folder)

    return converted(card, convert, again)


def tokenizer_place(name: str | Path) -> str | Path:
    """Return the folder of a tokenizer; that of a card's name is fetched when it is asked for first.

    Raises:
        ConfigError, CheckpointError: as of `tokenizer_of`.
    """
    card = card_of(name)
    if card is None:
        return name
    return tokenizer_of(card)


def converted(card: Card, convert: Callable[[Files, Path], None], again: bool = False) -> Path:
    """Return the folder of converted weights, which is made when it is asked for first.

    Processes that ask at once wait for the one that makes it.

    Args:
        card: the card.
        convert: writes the folder, whole or not at all.
        again: fetch and convert anew; the old folder stays until the new one is whole.

    Raises:
        CheckpointError: the files cannot be had, or nothing here converts them.
    """
    folder = converted_folder(card)
    if is_converted(card) and not again:
        return folder
    with _lock(card.name):
        if again or not is_converted(card):
            files = _files(card, again)
            if not card.converter:
                raise CheckpointError(
                    f"{card.name}: its files are in {files.weights.parent}, and nothing here converts them"
                )
            logger.info("converting %s to %s", files.weights, folder)
            make_folder(folder.parent)
            convert(files, folder)
    return folder


def converted_folder(card: Card) -> Path:
    """Return where the converted weights of a card are, or will be."""
    return home() / "converted" / card.name


def released_folder(card: Card) -> Path:
    """Return where the files of a card are, or will be."""
    return home() / "released" / card.name


def is_converted(card: Card) -> bool:
    """Return whether the converted weights of a card are there."""
    return _is_whole(converted_folder(card))


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.yaml", "model.safetensors"))


def is_here(card: Card) -> bool:
    """Return whether the weights of a card need no download: converted, or all files of it in its folder."""
    folder = released_folder(card)
    needed = [card.weights, *([name] for name in (card.config, *card.tokenizer) if name)]
    return is_converted(card) or all(any(any(folder.glob(name)) for name in names) for names in needed)


def _lock(name: str) -> FileLock:
    return FileLock(make_folder(home() / "released", "UNIMO_HOME") / f".{name}.lock")


def _files(card: Card, again: bool) -> Files:
    """Return the files of a card, fetched and unpacked."""
    from unimo.weights.fetching import get_file  # the network's libraries take two seconds to import

    folder = released_folder(card)
    weights = get_file(card, card.weights, folder, again)
    if weights.name.endswith(archives.ENDINGS):
        weights = archives.unpack(weights, folder / "unpacked")
    config = get_file(card, [card.config], folder, again) if card.config else None
    has_tokenizer = card.tokenizer or card.tokenizer_of
    return Files(weights, config, tokenizer_of(card) if has_tokenizer else None)


def tokenizer_of(card: Card) -> Path:
    """Return the folder of the tokenizer of a card, whose files are fetched when they are asked for first.

    Raises:
        ConfigError: the card has none.
        CheckpointError: a file cannot be had.
    """
    if card.tokenizer_of:
        return tokenizer_of(get_card(card.tokenizer_of))
    if not card.tokenizer:
        raise ConfigError(f"{card.name} ({card.title}) has no tokenizer; name a text tower")
    places = [released_folder(card) / name for name in card.tokenizer]
    if not all(place.is_file() for place in places):
        from unimo.weights.fetching import get_file  # as above

        with _lock(f"{card.name}.tokenizer"):
            places = [get_file(card, [name], released_folder(card)) for name in card.tokenizer]
    return places[0].parent


def use(card: Card) -> str:
    """Return how the weights of a card are used, as words of a command line."""
    words = f"data.tokenizer={card.name}"
    if card.part == "text tower":
        return f"model.text.init={card.name} {words}"
    if card.part == "vision tower":
        return f"model.vision.init={card.name}"
    return f"init_from={card.name}" if card.part == "model" else words
