"""Decoding of image files to RGB; every way in which a file can be broken becomes a `RecordError`.

Files come from the internet: the header is checked before anything is decoded, and only common formats
are opened (Pillow would start Ghostscript for an EPS).
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401

from unimo.data.record import ImageSource
from unimo.errors import RecordError, visible
from unimo.files import read_bytes
from unimo.limits import IMAGE_BYTES

with contextlib.suppress(ImportError):  # from Pillow 11.3 on
    from PIL import AvifImagePlugin  # noqa: F401

MAX_PIXELS = 89_000_000
"""Largest image that is decoded (267 MB as RGB), just below Pillow's own warning level."""
Image.preinit()  # registers the plain formats; the others are registered by importing their plugins
FORMATS = [
    name for name in ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF") if name in Image.OPEN
]


def open_image(source: ImageSource, target: int | None = None) -> Image.Image:
    """Decode an image file, given as bytes or by its path, to an upright RGB image.

    Args:
        target: side of the square that the image will be scaled to. A JPEG whose shorter side is at least
            four times as long is decoded at a half, a quarter or an eighth of its size (never below twice
            the target), which is several times faster.

    Raises:
        RecordError: missing, empty, truncated, damaged or oversized file, or not an image.
    """
    image, what = _open(source)
    try:
        if target and image.format in ("JPEG", "MPO"):
            image.draft("RGB", (2 * target, 2 * target))
        image.load()
        if "exif" in image.info or image.format == "TIFF":
            # The pixels are fine even where EXIF is damaged.
            with contextlib.suppress(Exception):
                ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)
    except Exception as error:  # as in `_open`, for damaged bodies
        raise RecordError(f"{what} is damaged: {error}") from error


def open_class_map(source: ImageSource) -> np.ndarray:
    """Decode a map of classes, uint8 [H, W]: a file with one number of 8 bits for each pixel.

    Raises:
        RecordError: as of `open_image`; also colours, or numbers of 16 bits.
    """
    image, what = _open(source)
    if image.mode not in ("L", "P", "1"):
        raise RecordError(
            f"{what} is no map of classes: its pixels are {image.mode}, expected one number of 8 bits each "
            "(mode L or P): write the number of the class, 0 to 254, or 255 for none"
        )
    try:
        image.load()
        return np.array(image, np.uint8)
    except Exception as error:  # as in `_open`
        raise RecordError(f"{what} is damaged: {error}") from error


def _open(source: ImageSource) -> tuple[Image.Image, str]:
    """Read the header of an image file; return the image, not decoded, and what messages call it."""
    if not isinstance(source, (bytes, Path)):
        raise RecordError(f"expected image bytes or a path, found {type(source).__name__}")
    what = f"image {visible(str(source))}" if isinstance(source, Path) else "image bytes"
    try:
        data = source if isinstance(source, bytes) else read_bytes(source, IMAGE_BYTES)
    except OSError as error:
        raise RecordError(f"cannot read {what}: {error.strerror}") from error
    if not data:
        raise RecordError(f"{what}: the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = str(error).partition(" exceeds")[0]  # without Pillow's own limit
        raise RecordError(f"{what}: {size}; the limit is {MAX_PIXELS:,} in all; scale it down") from error
    except Exception as error:  # decoders raise nearly anything on damaged headers
        reason = str(error).partition(" <")[0]  # without the address of Pillow's object, which varies
        reason += "; AVIF needs Pillow 11.3 or newer, HEIC is to be made JPEG" * (data[4:8] == b"ftyp")
        raise RecordError(f"{what} ({len(data):,} bytes) cannot be opened: {reason}") from error
    check_size(image, what)
    if width * height > MAX_PIXELS:
        raise RecordError(
            f"{what} is {width} x {height} pixels; the limit is {MAX_PIXELS:,} in all; scale it down"
        )
    return image, f"{what} ({len(data):,} bytes)"


def check_size(image: Image.Image, what: str = "the image") -> Image.Image:
    """Return an image if it has pixels.

    Raises:
        RecordError: it has none.
    """
    if not all(image.size):
        sides = " x ".join(map(str, image.size))
        raise RecordError(f"{what} is {sides} pixels; expected at least 1 x 1: give another")
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB with 8 bits: transparency becomes white, 16 bits and floats are scaled."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # Integers above 255 mean 16 bits, floats up to 1 mean shares of white.
        values = np.asarray(image).astype(np.float32)
        top = float(values.max(initial=0.0))
        factor = 255.0 if image.mode == "F" and top <= 1.0 else 1.0
        if image.mode != "F" and (top > 255 or image.mode.startswith("I;16")):
            factor = 255.0 / 65535.0
        grey = np.clip(np.rint(values * factor), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
