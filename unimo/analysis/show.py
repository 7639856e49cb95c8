"""Shared parts of pages and images: their folder, the frame of a page, embedded images, titles of models."""

from __future__ import annotations

import base64
import contextlib
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from PIL import Image, ImageFont

from unimo.errors import ConfigError
from unimo.files import make_folder


@contextlib.contextmanager
def writing_to(folder: str | Path) -> Iterator[Path]:
    """Create the folder of a figure, unless it exists, for writing the figure inside the block.

    Raises:
        ConfigError: the folder or a file cannot be written.
    """
    make_folder(folder, "--out")
    try:
        yield Path(folder)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; give another --out") from error


def html_page(title: str, heading: str, style: str, source: str, body: str) -> str:
    """Build an HTML document with a style sheet and, below the heading, the source of its data."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style></head>\n<body><h1>{heading}</h1><p>{html.escape(source)}</p>"
        f"{body}\n</body></html>\n"
    )


def data_uri(picture: Image.Image, kind: Literal["PNG", "JPEG"] = "PNG") -> str:
    """Encode an image as a data URI, for `src` of an <img>."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def titles_of(directories: Sequence[Path]) -> list[str]:
    """Return the last parts of model directories, as many as distinguish them, without a last `model`."""
    paths = [path.resolve() for path in directories]
    parts = [(path.parent if path.name == "model" else path).parts for path in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        titles = ["/".join(one[-count:]) for one in parts]
        if len(set(titles)) == len(set(paths)):
            return titles
    return [str(path) for path in paths]


def wrap(
    parts: Sequence[str], font: ImageFont.FreeTypeFont, width: int, separator: str = " "
) -> Iterator[str]:
    """Join parts to lines of at most `width` pixels; a longer part gets its own line."""
    line = ""
    for part in parts:
        longer = f"{line}{separator}{part}" if line else part
        if line and font.getlength(longer) > width:
            yield line
            longer = part
        line = longer
    if line:
        yield line
