"""Pickles of arrays are read, and nothing that a pickle asks for is ever called."""

from __future__ import annotations

import ast
import builtins
import collections
import inspect
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unimo.errors import CheckpointError, DataError
from unimo.weights import pickles
from unimo.weights.files import read_tensors
from unimo.weights.pickles import read_numpy_pickle

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
    with pytest.raises(DataError, match="the type 'O' of an array"):
        read_numpy_pickle(write(tmp_path / "file", content))


def test_array_class_cannot_be_called_for_memory(tmp_path: Path) -> None:
    # cnumpy\nndarray, called with the shape (2**40,): would allocate a terabyte.
    path = write(tmp_path / "file", b"\x80\x02cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85\x85R.")
    with pytest.raises(DataError, match="calls 'numpy ndarray'"):
        read_numpy_pickle(path)


def test_damaged_missing_and_no_mapping(tmp_path: Path) -> None:
    whole = pickle.dumps(CONTENT, 2)
    with pytest.raises(DataError, match="not"):
        read_numpy_pickle(write(tmp_path / "cut", whole[: len(whole) // 2]))
    with pytest.raises(DataError, match="cannot read"):
        read_numpy_pickle(tmp_path / "nowhere")
    with pytest.raises(DataError, match="expected a mapping, found list"):
        read_numpy_pickle(write(tmp_path / "list", pickle.dumps([1])))


# What NumPy reads for the type, its arguments and its state, and what it would make of them.
STATES = {
    "object": ("O8", (3, "|", None, None, None, -1, -1, 63)),
    "object, its flag cleared": ("O8", (3, "|", None, None, None, -1, -1, 0)),
    "object under the name of a number": ("i8", (3, "|", None, None, None, 8, 8, 63)),
    "flags": ("i8", (3, "<", None, None, None, -1, -1, 1)),
    "fields": ("V8", (3, "|", None, ("a",), {"a": ("O", 0)}, 8, 1, 16)),
    "fields of a number": ("i8", (3, "<", None, ("a",), {"a": ("i8", 0)}, 8, 1, 0)),
    "aligned": ("V8", (3, "|", None, None, None, 8, 8, 144)),
    "alignment": ("i8", (3, "<", None, None, None, -1, 64, 0)),
    "alignment of text": ("S8", (3, "|", None, None, None, 8, 8, 0)),
    "size": ("i8", (3, "<", None, None, None, 1 << 40, -1, 0)),
    "negative size": ("S8", (3, "|", None, None, None, -8, 1, 0)),
    "another size": ("U2", (3, "<", None, None, None, 4, 4, 8)),
    "sub-array": ("V8", (3, "|", ("i4", (2,)), None, None, 8, 4, 0)),
    "sub-array of a number": ("i8", (3, "<", ("O", (1,)), None, None, -1, -1, 0)),
    "metadata": ("i8", (4, "<", None, None, None, -1, -1, 0, {"a": 1})),
    "metadata of a time": ("M8", (4, "<", None, None, None, -1, -1, 0, ({}, (b"us", 1, 1, 1)))),
    "a time": ("m8", (3, "<", None, None, None, -1, -1, 0)),
    "void": ("V8", (3, "|", None, None, None, 8, 1, 0)),
    "order": ("i8", (3, "=", None, None, None, -1, -1, 0)),
    "no order": ("i8", (3, "|", None, None, None, -1, -1, 0)),
    "order of another type": ("i8", (3, 7, None, None, None, -1, -1, 0)),
    "short state": ("i8", (3, "<", None, None, None, -1, -1)),
    "older state": ("i8", (1, "<", None, None, None, -1, -1, 0)),
    "empty state": ("i8", ()),
    "no tuple": ("i8", {"flags": 0}),
    "extended number": ("f16", (3, "<", None, None, None, -1, -1, 0)),
    "no size": ("S", (3, "|", None, None, None, 0, 1, 0)),
    "spelled as a list": ("i4,O8", (3, "<", None, None, None, -1, -1, 0)),
    "shape in the name": ("(2,)O", (3, "|", None, None, None, -1, -1, 0)),
}


def array_with(kind: str, state: object, shape: object = (1,), data: object = b"8 bytes!") -> bytes:
    """A pickle of {"a": array} whose type has this state."""

    class Kind:
        def __reduce__(self) -> Any:
            return np.dtype, (kind, False, True), state

    class Array:
        def __reduce__(self) -> Any:
            empty = np.core.multiarray._reconstruct, (np.ndarray, (0,), b"b")
            return *empty, (1, shape, Kind(), False, data)

    return pickle.dumps({"a": Array()}, 4)


@pytest.mark.parametrize("name", STATES)
def test_states_of_types_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="was not opened"):
        read_numpy_pickle(write(tmp_path / "file", array_with(*STATES[name])))


@pytest.mark.parametrize(
    "kind", ["?", "i1", "u1", ">i2", "<u4", ">i8", "f2", ">f4", "f8", "c8", ">c16", "S3", "U5", ">U2"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_types_are_read_as_numpy_reads_them(tmp_path: Path, kind: str, order: str) -> None:
    array = np.asarray(np.arange(6).reshape(2, 3).astype(kind), order=order)
    for protocol in (2, 3, 4):
        content = pickle.dumps({"a": array, "b": [array, array[0, 0]]}, protocol)
        read = read_numpy_pickle(write(tmp_path / "file", content))
        for found in (read["a"], read["b"][0]):
            assert found.dtype == array.dtype and found.flags.writeable
            np.testing.assert_array_equal(found, array)
        assert read["b"][0] is read["a"] and read["b"][1] == array[0, 0]


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ((2,), b"8 bytes!"),
        ((1 << 40,), b"8 bytes!"),
        ((1 << 62, 1 << 62), b""),
        ((-1,), b"8 bytes!"),
        ((True,), b"8 bytes!"),
        ((1.0,), b"8 bytes!"),
        ([1], b"8 bytes!"),
        ((1,) * 40, b"8 bytes!"),
        ((1,), [1]),
        ((1,), "8 bytes!"),
        ((1,), b""),
    ],
)
def test_arrays_take_no_more_than_their_bytes(tmp_path: Path, shape: object, data: object) -> None:
    content = array_with("i8", (3, "<", None, None, None, -1, -1, 0), shape, data)
    with pytest.raises(DataError):
        read_numpy_pickle(write(tmp_path / "file", content))


def test_endless_numbers_as_a_shape_are_not_multiplied(tmp_path: Path) -> None:
    number = b"\x8b" + (1 << 20).to_bytes(4, "little") + b"\x7f" * (1 << 20)  # 2.5 million digits
    whole = array_with("i8", (3, "<", None, None, None, -1, -1, 0), (77,) * 30, b"8 bytes!")
    first, rest = whole.split(b"KM", 1)
    endless = first + number + b"q\xff" + rest.replace(b"KM", b"h\xff")
    with pytest.raises(DataError, match="state of another form than shape"):
        read_numpy_pickle(write(tmp_path / "file", endless))


def test_a_pickle_of_more_steps_than_arrays_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "PICKLE_STEPS", 1000)
    path = write(tmp_path / "file", b"\x80\x02}U\1a](" + b"}" * 900 + b"es.")
    assert len(read_numpy_pickle(path)["a"]) == 900
    with pytest.raises(DataError, match="more than 1,000 steps, the limit"):
        read_numpy_pickle(write(path, b"\x80\x02}U\1a](" + b"}" * 1000 + b"es."))


def test_characters_and_truth_values_that_do_not_exist(tmp_path: Path) -> None:
    text = array_with("U2", (3, "<", None, None, None, 8, 4, 8), data=b"\xff" * 8)
    truth = array_with("b1", (3, "|", None, None, None, -1, -1, 0), (8,), b"\2" * 8)
    for content in (text, truth):
        with pytest.raises(DataError, match="not a complete pickle"):
            read_numpy_pickle(write(tmp_path / "file", content))


def test_repeated_steps_do_not_fill_the_memory(tmp_path: Path) -> None:
    # The same bytes, encoded and put into arrays again and again: a few bytes of the file for each copy.
    encoded = (
        b"c_codecs\nencode\nq\0X" + (1 << 20).to_bytes(4, "little") + b"x" * (1 << 20) + b"q\1X\6\0\0\0latin1"
    )
    content = b"\x80\x02]" + encoded + b"\x86q\2R" + b"ah\0h\2R" * 1000 + b"a."
    with pytest.raises(DataError, match="many times larger in memory"):
        read_numpy_pickle(write(tmp_path / "file", content))
    # A place in the memo that would make a list of 2**32 entries.
    assert read_numpy_pickle(write(tmp_path / "file", b"\x80\x02}r\xff\xff\xff\xff.")) == {}
    # Tuples that contain each other twice: their hash or their text would take for ever.
    doubled = b"\x80\x02}K\1\x85" + b"q\0h\0\x86" * 64
    with pytest.raises(DataError, match="key of type tuple"):
        read_numpy_pickle(write(tmp_path / "file", doubled + b"K\1s."))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (b"(ios\nsystem\n", "INST"),
        (b"(cnumpy\nndarray\no", "OBJ"),
        (b"cnumpy\nndarray\n)\x81", "NEWOBJ"),
        (b"P1\n", "PERSID"),
        (b"\x82\1", "EXT1"),
        (b"\x97", "NEXT_BUFFER"),
        (b"\x8f", "EMPTY_SET"),
        (b"cos\nsystem\n", r"asks for os\.system"),
        (b"cnumpy\nload\n", r"asks for numpy\.load"),
        (b"cnumpy.core.multiarray\nfromfile\n", "fromfile"),
        (b"X\2\0\0\0osX\6\0\0\0system\x93", r"asks for os\.system"),
        (b"cnumpy\ndtype\n(X\1\0\0\0aK\1db", "gives a state to Symbol"),
        (b"c_codecs\nencode\nN}X\x0c\0\0\0__defaults__K\1s\x86b", "gives a state to Symbol"),
        (b"}}X\1\0\0\0aK\1sb", "gives a state to dict"),
        (b"]N\x85R", "it calls"),
    ],
)
def test_other_steps_are_refused_by_name(tmp_path: Path, steps: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"was not opened.*{message}"):
        read_numpy_pickle(write(tmp_path / "file", b"\x80\x04" + steps + b"."))


def is_plain(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return type(value) is np.ndarray and value.dtype.kind in "biufcSU" and not value.dtype.hasobject
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(map(is_plain, value.values()))
    return value is None or type(value) in (bool, int, float, str, bytes) or isinstance(value, np.generic)


def mutated(whole: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change some bytes, cut, repeat, or put in a piece of another pickle."""
    content = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, kind = rng.randrange(len(content)), rng.randrange(5)
        if kind == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[at] = rng.randrange(256)
        elif kind == 2:
            del content[at : at + rng.randint(1, 8)]
        elif kind == 3:
            content[at:at] = content[at : at + rng.randint(1, 40)]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            content[at:at] = other[start : start + rng.randint(1, 60)]
        content = content or bytearray(b".")
    return bytes(content)


def test_mutated_pickles_end_in_our_error_or_in_plain_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"w": np.ones((2, 3), np.float32), "StructuredToParameterName@@": {"w": "w_0"}}
    contents = {"": CONTENT, ".pdparams": weights, ".pkl": {"model": weights, "__author__": "me"}}
    sound = {ending: pickle.dumps(content, 4) for ending, content in contents.items()}
    states = [array_with(*state) for state in STATES.values()]
    evil = [pickle.dumps(thing, protocol) for thing in (Evil(), Eval()) for protocol in (0, 2, 4)]
    pieces = [*states, *evil, *sound.values()]
    importing = builtins.__import__

    def stop(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] not in ("io", "codecs", "struct", "pickle", "numpy", "unimo"):
            raise SystemExit(f"import of {name}")
        return importing(name, *rest)

    rng, read = random.Random(12), 0
    monkeypatch.chdir(tmp_path)
    for number in range(300):
        ending = list(sound)[number % 3]
        whole = sound[ending] if rng.random() < 0.8 else rng.choice(states)
        path = write(tmp_path / f"file{ending}", mutated(whole, pieces, rng))
        with monkeypatch.context() as patched:
            patched.setattr(builtins, "__import__", stop)
            try:
                content = read_tensors(path) if path.suffix else read_numpy_pickle(path)
            except (DataError, CheckpointError):
                continue
        assert is_plain(content), number
        read += 1
    assert 10 < read < 200 and not Path("ran").exists()


def test_the_reader_has_no_unpickler() -> None:
    tree = ast.parse(inspect.getsource(pickles))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert "pickle" not in imported and "importlib" not in imported
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not named & {"__setstate__", "__reduce__", "loads", "Unpickler"}


def test_a_file_larger_than_any_pickle_of_arrays(tmp_path: Path) -> None:
    for size, message in ((5 << 30, "the limit is"), (3 << 30, "not a complete pickle")):
        with open(tmp_path / "file", "wb") as file:
            file.truncate(size)
        with pytest.raises(DataError, match=message):
            read_numpy_pickle(tmp_path / "file")
