"""Shared parts of pages and images: embedding of images, titles of models."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image


def data_uri(picture: Image.Image, kind: Literal["PNG", "JPEG"] = "PNG") -> str:
    """Encode an image as a data URI, for `src` of an <img>."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def titles_of(directories: Sequence[Path]) -> list[str]:
    """Return short titles of model directories: as many last parts of their paths as distinguish them.

    A last part `model` is ignored.
    """
    paths = [path.resolve() for path in directories]
    parts = [(path.parent if path.name == "model" else path).parts for path in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        titles = ["/".join(one[-count:]) for one in parts]
        if len(set(titles)) == len(set(paths)):
            return titles
    return [str(path) for path in paths]
