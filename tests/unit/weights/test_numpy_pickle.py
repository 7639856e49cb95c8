"""Pickles of arrays are read, and nothing that a pickle asks for is ever called."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from unimo.errors import DataError
from unimo.weights.files import read_numpy_pickle

CONTENT = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [2, 0, 1], "names": [b"a", b"b"]}
# Written by Python 2.7 for {"data": array([[1, 2]], uint8), "labels": [7]} with protocol 2.
PYTHON2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85"
    b"U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff"
    b"\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x01\x02tbU\x06labelsq\x08]q\x09K\x07au."
)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(2, 5))
def test_arrays_lists_and_bytes(tmp_path: Path, protocol: int) -> None:
    read = read_numpy_pickle(write(tmp_path / "file", pickle.dumps(CONTENT, protocol)))
    assert read.keys() == CONTENT.keys()
    np.testing.assert_array_equal(read["data"], CONTENT["data"])
    assert read["data"].dtype == np.uint8
    assert (read["labels"], read["names"]) == (CONTENT["labels"], CONTENT["names"])


def test_pickle_of_python_2(tmp_path: Path) -> None:
    read = read_numpy_pickle(write(tmp_path / "file", PYTHON2))
    assert read["data"].tolist() == [[1, 2]] and read["labels"] == [7]


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


class Eval:
    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('ran').touch()",)


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        ({"data": Evil()}, r"posix\.system"),
        ({"data": Eval()}, r"__builtin__\.eval"),
        (collections.deque([1]), r"collections\.deque"),
    ],
)
def test_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, asked: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "file", pickle.dumps(content, 2))
    with pytest.raises(DataError, match=f"asks for {asked}.*binary version"):
        read_numpy_pickle(path)
    assert not Path("ran").exists()


def test_numbers_of_numpy_and_ordered_mappings_are_plain_values(tmp_path: Path) -> None:
    content = collections.OrderedDict(step=np.float32(2.5), state=collections.OrderedDict(n=np.int64(7)))
    for protocol in (2, 4):
        read = read_numpy_pickle(write(tmp_path / "file", pickle.dumps(content, protocol)))
        assert read == {"step": 2.5, "state": {"n": 7}}
        assert type(read["state"]) is dict and read["step"].dtype == np.float32
    renamed = pickle.dumps(np.int64(7), 2).replace(b"numpy.core", b"numpy._core")  # as NumPy 2 writes it
    whole = b"\x80\x02}U\x01n" + renamed.removeprefix(b"\x80\x02").removesuffix(b".") + b"s."
    assert read_numpy_pickle(write(tmp_path / "file", whole)) == {"n": 7}


def test_a_number_of_an_object_type_is_refused(tmp_path: Path) -> None:
    # scalar(dtype("O"), eight bytes) would make an object out of an address.
    content = b"\x80\x02}U\x01ncnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x01O\x85RU\x0812345678\x86Rs."
    with pytest.raises(DataError, match="OBJECT"):
        read_numpy_pickle(write(tmp_path / "file", content))


def test_array_class_cannot_be_called_for_memory(tmp_path: Path) -> None:
    # cnumpy\nndarray, called with the shape (2**40,): would allocate a terabyte.
    path = write(tmp_path / "file", b"\x80\x02cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85\x85R.")
    with pytest.raises(DataError, match="not a complete pickle"):
        read_numpy_pickle(path)


def test_damaged_missing_and_no_mapping(tmp_path: Path) -> None:
    whole = pickle.dumps(CONTENT, 2)
    with pytest.raises(DataError, match="not"):
        read_numpy_pickle(write(tmp_path / "cut", whole[: len(whole) // 2]))
    with pytest.raises(DataError, match="cannot read"):
        read_numpy_pickle(tmp_path / "nowhere")
    with pytest.raises(DataError, match="expected a mapping, found list"):
        read_numpy_pickle(write(tmp_path / "list", pickle.dumps([1])))
