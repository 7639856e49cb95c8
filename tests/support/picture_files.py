"""Small image files for the tests of preparation."""

import io
import json
from pathlib import Path

from PIL import Image


def jpeg(number: int, size: int = 40) -> bytes:
    """The bytes of a picture that differs for every number."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((size, size)).rotate(number + 1).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def write_pictures(folder: Path, names: list[str]) -> None:
    """Files with these names."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))


def write_json(path: Path, content: object) -> Path:
    """A JSON file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
