"""Decoding of image files: every file becomes an upright RGB image or a RecordError."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from unimo.data.images.open import open_image
from unimo.errors import RecordError


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Make a PNG whose header claims a size but that has almost no data."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def test_bytes_and_path_agree(tmp_path, make_image):
    data = make_image()
    (tmp_path / "a.png").write_bytes(data)
    assert open_image(data).tobytes() == open_image(tmp_path / "a.png").tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated(kind, keep):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert open_image(data).size == (64, 64)
    with pytest.raises(RecordError, match="damaged|cannot be opened"):
        open_image(data[: int(len(data) * keep)])


def test_empty_missing_and_no_image(tmp_path):
    (tmp_path / "zero.jpg").write_bytes(b"")
    with pytest.raises(RecordError, match="zero.jpg: the file is empty"):
        open_image(tmp_path / "zero.jpg")
    with pytest.raises(RecordError, match="No such file"):
        open_image(tmp_path / "missing.jpg")
    with pytest.raises(RecordError, match="directory"):
        open_image(tmp_path)
    with pytest.raises(RecordError, match="cannot be opened"):
        open_image(b"<html>404</html>")
    with pytest.raises(RecordError, match="NoneType"):
        open_image(None)


@pytest.mark.parametrize("side", [30_000, 10_000])
def test_oversized_header_is_refused_before_decoding(side):
    with pytest.raises(RecordError, match="pixels"):
        open_image(png_header(side, side))


def test_images_above_the_pixel_limit_are_refused(make_image, monkeypatch):
    monkeypatch.setattr("unimo.data.images.open.MAX_PIXELS", 300)
    with pytest.raises(RecordError, match="24 x 16"):
        open_image(make_image())


def test_eps_is_not_opened():
    with pytest.raises(RecordError):
        open_image(encoded(Image.new("RGB", (4, 4)), "EPS"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3))
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # inverse of each orientation, as Transpose
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encoded(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(upright))


def test_damaged_exif_does_not_matter(make_image):
    assert open_image(make_image(kind="JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).size == (24, 16)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
        ("I;16", 25700, (100, 100, 100)),
    ],
)
def test_modes(mode, color, expected):
    image = open_image(encoded(Image.new(mode, (3, 2), color), "PNG"))
    assert image.mode == "RGB"
    assert image.getpixel((1, 1)) == expected


def test_palette_and_its_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    opened = open_image(encoded(image, "PNG", transparency=0))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (40, 50, 60)


def test_cmyk_and_float():
    cmyk = open_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert cmyk.getpixel((4, 4))[0] > 200 > 60 > cmyk.getpixel((4, 4))[1]
    floats = Image.fromarray(np.full((2, 2), 0.2, np.float32))
    assert open_image(encoded(floats, "TIFF")).getpixel((0, 0)) == (51, 51, 51)


def test_large_jpeg_is_decoded_small():
    gradient = np.linspace(0, 255, 1024).astype(np.uint8)
    large = Image.fromarray(np.broadcast_to(gradient, (512, 1024))).convert("RGB")
    data = encoded(large, "JPEG", quality=95)
    small = open_image(data, target=64)
    assert small.size == (256, 128)
    assert open_image(data, target=200).size == (1024, 512)
    exact = large.resize((256, 128), Image.Resampling.BOX)
    assert np.abs(np.asarray(small, np.float32) - np.asarray(exact, np.float32)).max() <= 3
