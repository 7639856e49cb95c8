"""Files of a card: found in its folder, else downloaded into it, checked before they get their names."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import getproxies

import pooch
import requests
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import EntryNotFoundError

from unimo.digests import digest
from unimo.errors import CheckpointError, UnavailableError, first_line
from unimo.files import make_folder, sync
from unimo.weights.cards import HUB, Card, is_offline

logger = logging.getLogger(__name__)
_TRIES, _TIMEOUT = 2, 30
_PATIENCE = 5.0
"""Seconds in which the address of a host must be found; systems without a network may look for minutes."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
pooch.get_logger().setLevel(logging.WARNING)


def get_file(card: Card, names: Sequence[str], folder: Path, again: bool = False) -> Path:
    """Return one of the files that a card names, or a folder that stands for it; download it if it is absent.

    Args:
        card: the card.
        names: names or patterns of one and the same thing; the first that there is one of.
        folder: folder of the card's files. A download comes here when it is whole and its checksum is right.
        again: download even what is there; the old one stays until the new one is checked.

    Raises:
        UnavailableError: no source has it; the message says what to put where.
        CheckpointError: the checksum of a file that is there is wrong.
    """
    there = next((path for name in names for path in sorted(folder.glob(name))), None)
    if there is not None and not (again and card.sources):
        check(there, card.sha256.get(there.name, ""))
        return there
    problems = []
    for source in card.sources:
        for name in names:
            try:
                return _from_source(source, name, folder, card.sha256.get(name, ""))
            except FileNotFoundError:
                problems.append(f"{source} has no {name}")
            except CheckpointError as error:
                problems.append(str(error))
                break
    reason = "; ".join(problems) or "no address of it is known"
    found = card.page and f" It is on the page of its authors ({card.page})."
    needed = [" or ".join(card.weights), card.config, *card.tokenizer]
    put = ", ".join(name for name in needed if name and not (folder / name).exists())
    raise UnavailableError(
        f"{card.name}: cannot fetch {' or '.join(names)}: {reason}.{found} Put {put} into {folder}/ and retry"
    )


def check(path: Path, sha256: str) -> None:
    """Compare the checksum of a file with the one that is known; empty if none is.

    Raises:
        CheckpointError: they differ.
    """
    if sha256 and path.is_file() and (found := digest(path)) != sha256:
        raise CheckpointError(
            f"{path} has the SHA-256 {found}, expected {sha256}: it is damaged or another file; remove it"
        )


def _from_source(source: str, name: str, folder: Path, sha256: str) -> Path:
    """Return the file of a name in a source, downloaded if that is not a folder.

    Raises:
        FileNotFoundError: the source has no such file.
        CheckpointError: it cannot be reached, or the file is not the one that is meant.
    """
    if not source.startswith((HUB, "http://", "https://")):
        place = Path(unquote(urlparse(source).path) if source.startswith("file://") else source).expanduser()
        if not (place / name).exists():
            raise FileNotFoundError(name)
        check(place / name, sha256)
        return place / name
    if is_offline():
        raise CheckpointError("HF_HUB_OFFLINE is set, so nothing is downloaded")
    address = (os.environ.get("HF_ENDPOINT") or ENDPOINT) if source.startswith(HUB) else source
    host = urlparse(address).hostname or ""
    if not {"http", "https", "all"} & getproxies().keys() and not _is_known(host):
        raise CheckpointError(f"no address of {host} is found; is there a network?")
    make_folder(folder)
    # Parts of a download stay here, so that the next try goes on with them where the source allows it.
    staging = folder / ".downloading"
    download = _from_hub if source.startswith(HUB) else _from_address
    for left in reversed(range(_TRIES)):
        logger.info("downloading %s/%s to %s", source, name, folder)
        try:
            fresh = download(source, name, staging, sha256)
            break
        except CheckpointError:
            if not left:
                raise
    sync(fresh)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    fresh.replace(folder / name)
    shutil.rmtree(staging, ignore_errors=True)
    return folder / name


@cache
def _is_known(host: str) -> bool:
    """Return whether the address of a host is found in a few seconds."""
    found = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            socket.getaddrinfo(host, None)
            found.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return found.is_set()


def _from_hub(source: str, name: str, staging: Path, sha256: str) -> Path:
    """Download from the Hugging Face hub, or from the one that `HF_ENDPOINT` names."""
    repository, endpoint = source.removeprefix(HUB), os.environ.get("HF_ENDPOINT")
    try:
        # For large files the hub's tag is their checksum.
        tag = (
            get_hf_file_metadata(hf_hub_url(repository, name, endpoint=endpoint), timeout=_TIMEOUT).etag or ""
        )
        fresh = Path(hf_hub_download(repository, name, local_dir=staging, endpoint=endpoint))
    except EntryNotFoundError as error:
        raise FileNotFoundError(name) from error
    except Exception as error:  # of requests or of httpx, as its version has it
        raise CheckpointError(f"{source}/{name}: {first_line(error)}") from error
    return _checked(fresh, sha256 or (tag if _SHA256.fullmatch(tag) else ""), source)


def _from_address(source: str, name: str, staging: Path, sha256: str) -> Path:
    """Download from a plain address."""
    address = f"{source.rstrip('/')}/{name}"
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT)
    staging.mkdir(parents=True, exist_ok=True)
    (staging / name).unlink(missing_ok=True)
    try:
        fresh = Path(pooch.retrieve(address, None, name, staging, downloader=downloader))
    except requests.HTTPError as error:
        if error.response is not None and error.response.status_code == requests.codes.not_found:
            raise FileNotFoundError(name) from error
        raise CheckpointError(f"{address}: {first_line(error)}") from error
    except OSError as error:  # those of requests are
        raise CheckpointError(f"{address}: {first_line(error)}") from error
    return _checked(fresh, sha256, source)


def _checked(fresh: Path, sha256: str, source: str) -> Path:
    """Return a fresh download; one with a wrong checksum is removed and refused."""
    try:
        check(fresh, sha256)
    except CheckpointError as error:
        fresh.unlink()
        raise CheckpointError(f"what {source} sent was refused: {error}") from error
    return fresh
