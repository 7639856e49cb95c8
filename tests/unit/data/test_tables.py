"""Arrow files that would crash the process or fill its memory end in our error; nothing is unpacked."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from unimo.data.readers.arrow import ArrowDataset
from unimo.data.tables import column_names, open_table
from unimo.errors import DataError

# Lengths that occur nowhere else in the files, so that their offsets are found by their bytes.
TEXTS = ["x" * 1013, "y" * 2027, "z" * 509]
OFFSETS = np.cumsum([0, *map(len, TEXTS)])


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, table: pa.Table, compression: str | None = None) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return path


def pairs(large: bool = False) -> pa.Table:
    text, binary = (pa.large_string(), pa.large_binary()) if large else (pa.string(), pa.binary())
    captions = pa.ListArray.from_arrays([0, 1, 3], pa.array(TEXTS, text))
    if large:
        captions = captions.cast(pa.large_list(text))
    images = pa.array([picture(), picture() + b"\0" * 3001], binary)
    ids = pa.array(["1" * 701, "2" * 403])
    return pa.table({"image": images, "caption": captions, "image_id": ids})


def patch(path: Path, old: np.ndarray, new: list[int]) -> Path:
    """Replace the offsets `old` in a file."""
    content = path.read_bytes()
    found = content.count(old.tobytes())
    assert found == 1, found
    path.write_bytes(content.replace(old.tobytes(), np.array(new, old.dtype).tobytes()))
    return path


@pytest.mark.parametrize("large", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("column", ["caption", "lists", "image", "image_id"])
@pytest.mark.parametrize("how", ["beyond", "far beyond", "negative", "falling"])
def test_offsets_out_of_range(tmp_path: Path, large: bool, column: str, how: str) -> None:
    path = write(tmp_path / "a.arrow", pairs(large))
    assert [len(record.text) for record in ArrowDataset(path, "pairs")] == [1013, 2027, 509]
    size = len(picture())
    old = {
        "caption": OFFSETS,
        "lists": np.array([0, 1, 3]),
        "image": np.array([0, size, 2 * size + 3001]),
        "image_id": np.array([0, 701, 1104]),
    }[column]
    old = old.astype("<i8" if large and column != "image_id" else "<i4")
    last, top = int(old[-1]), np.iinfo(old.dtype).max
    new = {
        "beyond": [*old[:-1], last + 4096],
        "far beyond": [*old[:-2], top - 1, top],
        "negative": [*old[:-2], -last, last],
        "falling": [*old[:-2], last + 1, last],
    }[how]
    if column == "lists" and how == "beyond":
        new[-1] = 10**6
    with pytest.raises(DataError, match=r"a\.arrow .* is not a complete Arrow file"):
        ArrowDataset(patch(path, old, new), "pairs")


@pytest.mark.parametrize("index", [3, -1, 2**31 - 1])
def test_indices_of_dictionaries_out_of_range(tmp_path: Path, index: int) -> None:
    indices = pa.array([0, 2, index], pa.int32())
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["a", "b", "c"]), safe=False)
    images = pa.array([picture()], pa.binary())
    table = pa.table({"image": images, "caption": pa.ListArray.from_arrays([0, 3], texts)})
    with pytest.raises(DataError, match="not a complete Arrow file"):
        open_table(write(tmp_path / "a.arrow", table))


def test_columns_that_are_not_read_are_not_checked(tmp_path: Path) -> None:
    table = pairs().append_column("other", pa.array(["o" * 211, "o" * 307]))
    path = patch(write(tmp_path / "a.arrow", table), np.array([0, 211, 518], "<i4"), [0, 211, 10**6])
    assert len(ArrowDataset(path, "pairs")) == 3
    with pytest.raises(DataError, match="not a complete"):
        open_table(path)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_small_file_that_unpacks_to_gigabytes(tmp_path: Path, compression: str) -> None:
    table = pairs().append_column("other", pa.array(["o" * 211, "o" * 307]))
    path = write(tmp_path / "a.arrow", table, compression)
    assert len(ArrowDataset(path, "pairs")) == 3
    content = bytearray(path.read_bytes())
    places = [at for at in range(0, len(content), 8) if content[at : at + 8] == struct.pack("<q", 3549)]
    assert len(places) == 1  # the size that the texts have when they are unpacked
    for size in (300 << 20, 8 << 30, 2**62):
        content[places[0] : places[0] + 8] = struct.pack("<q", size)
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"would take {size:,}|would take .* in memory; the limit is"):
            ArrowDataset(path, "pairs")


def test_zeros_that_compress_a_thousand_times(tmp_path: Path) -> None:
    zeros = pa.array([bytes(100 << 20)] * 3, pa.large_binary())
    path = write(tmp_path / "a.arrow", pa.table({"image": zeros}), "zstd")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"would take 31[0-9],.*write it again without compression"):
        ArrowDataset(path, "images")


def test_lists_of_nothing_have_no_length_of_their_own(tmp_path: Path) -> None:
    nothing = pa.ListArray.from_arrays(pa.array([0, 2**31 - 2], pa.int32()), pa.nulls(2**31 - 2))
    path = write(tmp_path / "a.arrow", pa.table({"image": [picture()], "caption": nothing}))
    with pytest.raises(DataError, match="2,147,483,646 texts in"):
        ArrowDataset(path, "pairs")


def test_footer_and_batches_disagree(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.arrow", pairs()).read_bytes()
    half = write(tmp_path / "b.arrow", pairs().slice(0, 1)).read_bytes()
    footer = 10 + struct.unpack("<i", whole[-10:-6])[0]
    (tmp_path / "c.arrow").write_bytes(half[:200] + whole[-footer:])
    with pytest.raises(DataError, match="not a complete"):
        ArrowDataset(tmp_path / "c.arrow", "pairs")


def test_names_of_columns_and_dictionaries_are_read_without_values(tmp_path: Path) -> None:
    texts = pa.array(["a", "b", "a"]).dictionary_encode()
    path = write(tmp_path / "a.arrow", pa.table({"key": texts, "row": [1, 2, 3]}))
    assert column_names(path) == ["key", "row"]
    assert open_table(path, ["row"])[1].to_pydict() == {"row": [1, 2, 3]}
    assert open_table(path)[1].to_pydict() == {"key": ["a", "b", "a"], "row": [1, 2, 3]}


def test_a_stream_is_called_one(tmp_path: Path) -> None:
    table = pa.table({"image": [b"x"], "caption": [["a dog"]]})
    with pa.ipc.new_stream(str(tmp_path / "s.arrow"), table.schema) as writer:
        writer.write_table(table)
    for read in (open_table, column_names, lambda path: ArrowDataset(path, "pairs")):
        with pytest.raises(DataError, match="s.arrow is an Arrow stream, expected an Arrow file.*convert it"):
            read(tmp_path / "s.arrow")
    with pa.OSFile(str(tmp_path / "s.arrow"), "rb") as old, pa.OSFile(str(tmp_path / "f.arrow"), "wb") as new:
        whole = pa.ipc.open_stream(old).read_all()  # as the message says
        with pa.ipc.new_file(new, whole.schema) as writer:
            writer.write(whole)
    assert column_names(tmp_path / "f.arrow") == ["image", "caption"]
