"""What pages and pictures share: pictures inside a page, and what a model is called there."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image


def data_uri(picture: Image.Image, kind: Literal["PNG", "JPEG"] = "PNG") -> str:
    """What `src` of an <img> takes in the place of an address."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def titles_of(directories: Sequence[Path]) -> list[str]:
    """What model directories are called beside each other: the last part of their paths, `model` left out, or
    as many parts as tell them apart."""
    paths = [path.resolve() for path in directories]
    parts = [(path.parent if path.name == "model" else path).parts for path in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        titles = ["/".join(one[-count:]) for one in parts]
        if len(set(titles)) == len(set(paths)):
            return titles
    return [str(path) for path in paths]
