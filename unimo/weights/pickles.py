"""Pickles of arrays, read without Python's unpickler: nothing in a file is ever called.

Some data sets (CIFAR) and weights (`.pdparams`, Detectron2) are distributed as pickles. A pickle is a
program: it names functions, calls them, and hands states to what they return, among them states for NumPy's
types that turn bytes into pointers. The reader here carries out only the steps that build lists, mappings,
texts, bytes and numbers. The few names that NumPy and Python write for arrays are symbols to it, and what
they stand for is done by functions of this file: a type is a plain string of `_TYPE`, an array a copy of
bytes whose number fits.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unimo.errors import DataError, shown
from unimo.files import regular
from unimo.limits import PICKLE_BYTES, PICKLE_STEPS

_TYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,4}")
"""Kind and size in the notation of NumPy: bool, integers, floats, complex numbers, bytes and text."""
_SIZES_OF_STATE = {"S": 1, "U": 4}
_MOST_AXES = 32


class RefusedError(Exception):
    """The file asks for something that no pickle of arrays needs."""


@dataclass(frozen=True)
class Symbol:
    """A global name or another part of a value, which only stands for an action of the reader."""

    name: str


class _Parts(tuple):
    """A tuple with something in it that is no plain value, such as the arguments of an array."""


@dataclass
class _Type:
    """The type of an array, of which the byte order comes later in the file."""

    code: str
    order: str = ""

    def resolve(self) -> np.dtype:
        return np.dtype(self.order.replace("|", "") + self.code)


@dataclass
class _Array:
    """An array whose shape, type and values come later in the file."""

    numbers: list[int] = field(default_factory=list)
    """Under which it is remembered."""


_INTERNAL = (Symbol, _Parts, _Type, _Array)


def read_numpy_pickle(path: str | Path) -> dict[str, Any]:
    """Read a mapping from a pickle of arrays, numbers, strings, bytes, lists and mappings.

    Strings of Python 2 are returned as bytes, but keys are strings.

    Raises:
        DataError: the file is missing or damaged, holds no mapping, or asks for anything else.
    """
    path = Path(path)
    try:
        with open(regular(path, PICKLE_BYTES), "rb") as file:
            content = PickleReader(file, path.stat().st_size).read()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except RefusedError as error:
        raise DataError(
            f"{path} was not opened: {error}; expected a pickle of NumPy arrays, strings, lists and mappings "
            "only. Download it again from its owner, or take another format: safetensors for weights, the "
            "binary version of a data set"
        ) from error
    except Exception as error:  # damaged pickles raise nearly anything
        raise DataError(f"{path} is not a complete pickle: {error}; download it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping, found {type(content).__name__}")
    return text_keys(content)


def text_keys(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping with strings for keys, which are bytes in files of Python 2."""
    return {
        key.decode("utf8", "replace") if isinstance(key, bytes) else str(key): value
        for key, value in content.items()
    }


class PickleReader:
    """Carries out the steps of one pickle.

    Attributes:
        names: global name in the file -> what its call stands for; None for one that is only an argument.
        steps: further step -> what it does.
    """

    names: Mapping[str, Callable[..., Any] | None] = {}
    steps: Mapping[str, Callable[[Any, Any], None]] = {}

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """Stacks under the marks."""
        self._memo: dict[int, Any] = {}
        self._left = 2 * size
        """Bytes that may still be copied: each is encoded once and put into an array once."""

    def read(self) -> Any:
        """Return the value that the file describes."""
        for number, (step, argument, _) in enumerate(pickletools.genops(self._file)):
            if number == PICKLE_STEPS:
                raise RefusedError(f"it has more than {PICKLE_STEPS:,} steps, the limit")
            if step.name == "STOP":
                return _plain(self._stack[-1])
            if step.name in _VALUES:
                self._stack.append(_VALUES[step.name](argument))
            elif act := _ACTIONS.get(step.name) or self.steps.get(step.name):
                act(self, argument)
            elif step.name not in ("PROTO", "FRAME"):
                raise RefusedError(f"it asks for the step {step.name}")
        raise ValueError("it has no end")

    def mark(self, _: None) -> None:
        """Begin a new stack above the one there is."""
        self._below.append(self._stack)
        self._stack = []

    def take_marked(self) -> list[Any]:
        """Return what was put on the stack since the last mark, and remove it."""
        marked, self._stack = self._stack, self._below.pop()
        return marked

    def take(self, count: int) -> list[Any]:
        """Return the last values of the stack, and remove them."""
        if len(self._stack) < count:
            raise ValueError("a step lacks its values")
        taken = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return taken

    def put_list(self, _: None) -> None:
        """Make a list of what was marked."""
        self._stack.append(list(map(_plain, self.take_marked())))

    def put_tuple(self, items: list[Any]) -> None:
        """Put a tuple on the stack."""
        inner = any(isinstance(item, _INTERNAL) for item in items)
        self._stack.append(_Parts(items) if inner else tuple(items))

    def put_mapping(self, _: None) -> None:
        """Make a mapping of what was marked."""
        items = self.take_marked()
        self._stack.append({})
        self.set_items(items)

    def append(self, items: list[Any]) -> None:
        """Add values to the list on the stack."""
        if type(self._stack[-1]) is not list:
            raise ValueError("values for a list without the list")
        self._stack[-1].extend(map(_plain, items))

    def set_items(self, items: list[Any]) -> None:
        """Add keys and values to the mapping on the stack."""
        if type(self._stack[-1]) is not dict or len(items) % 2:
            raise ValueError("entries for a mapping without the mapping")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys need not be read, and the hash of a nested tuple may take forever.
            if type(key) in (str, bytes, int):
                self._stack[-1][key] = _plain(value)
            else:
                self.pass_over(key)

    def pass_over(self, key: Any) -> None:
        """Treat an entry of a mapping whose key is no plain value."""
        raise RefusedError(f"a mapping has a key of type {type(key).__name__}")

    def remember(self, number: int | None) -> None:
        """Remember the last value, by a number."""
        number = len(self._memo) if number is None else number
        self._memo[number] = value = self._stack[-1]
        if isinstance(value, _Array):
            value.numbers.append(number)

    def recall(self, number: int) -> None:
        """Put a remembered value on the stack."""
        self._stack.append(self._memo[number])

    def name(self, name: str) -> None:
        """Put a global name, `module name`, on the stack."""
        if name not in self.names:
            raise RefusedError(f"it asks for {shown(name.replace(' ', '.', 1))[1:-1]}")
        self._stack.append(Symbol(name))

    def name_of_stack(self, _: None) -> None:
        """Put a global name on the stack whose parts are there."""
        module, name = self.take(2)
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no text")
        self.name(f"{module} {name}")

    def call(self, _: None) -> None:
        """Do what the call of a known name stands for."""
        what, arguments = self.take(2)
        act = self.names.get(what.name) if isinstance(what, Symbol) else None
        if act is None or not isinstance(arguments, tuple):
            raise RefusedError(f"it calls {shown(what.name if isinstance(what, Symbol) else what)}")
        self._stack.append(act(self, *arguments))

    def build(self, _: None) -> None:
        """Complete a type or an array with its state."""
        target, state = self.take(2)
        if isinstance(target, _Type) and isinstance(state, tuple):
            target.order = _byte_order(target.code, state)
            self._stack.append(target)
        elif isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5 and state[0] == 1:
            array = self.array(*state[1:])
            self._memo.update(dict.fromkeys(target.numbers, array))
            self._stack.append(array)
        else:
            raise RefusedError(f"it gives a state to {type(target).__name__.lstrip('_')}")

    def array(self, shape: Any, kind: Any, is_fortran: Any, data: Any) -> np.ndarray:
        """Copy bytes into an array after checking that they are what shape and type need."""
        known = isinstance(shape, tuple) and len(shape) <= _MOST_AXES
        # Whole numbers may have millions of digits, and their product takes hours.
        known = known and all(type(side) is int and 0 <= side <= PICKLE_BYTES for side in shape)
        if not known or not isinstance(kind, _Type) or type(data) is not bytes:
            raise RefusedError("an array has a state of another form than shape, type, order and bytes")
        dtype = kind.resolve()
        if math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for an array {shown(shape)} of {dtype.str}")
        self.spend(len(data))
        flat = np.frombuffer(data, dtype)
        if dtype.kind == "b" and (flat.view(np.uint8) > 1).any():
            raise ValueError("an array of bool has other bytes than 0 and 1")
        if dtype.kind == "U" and (flat.view(dtype.byteorder + "u4") > 0x10FFFF).any():
            raise ValueError("an array of text has characters that do not exist")
        return flat.reshape(shape, order="F" if is_fortran else "C").copy(order="K")

    def scalar(self, kind: Any, data: Any) -> np.generic:
        """Return a number of NumPy."""
        return self.array((1,), kind, False, data)[0]

    def encode(self, text: Any, encoding: Any) -> bytes:
        """Return bytes that Python 3 wrote as text, as it does in the old protocols."""
        if type(text) is not str or encoding != "latin1":
            raise RefusedError(f"bytes as {shown(encoding)}")
        self.spend(len(text))
        return text.encode("latin1")

    def spend(self, count: int) -> None:
        """Count bytes that are copied.

        Raises:
            RefusedError: there are more than any pickle of this size needs.
        """
        self._left -= count
        if self._left < 0:
            raise RefusedError("it would be many times larger in memory")


def _plain(value: Any) -> Any:
    """Return a value that may be part of the result."""
    if isinstance(value, _INTERNAL):
        raise RefusedError(f"it uses {type(value).__name__.lstrip('_')} as a value")
    return value


def _type(_: PickleReader, code: Any, *options: Any) -> _Type:
    """Return the type of a plain string; the options of NumPy's constructor have no meaning for it."""
    if isinstance(code, bytes):  # Python 2
        code = code.decode("latin1")
    if type(code) is not str or not _TYPE.fullmatch(code) or not all(type(x) in (int, bool) for x in options):
        raise RefusedError(f"the type {shown(code)} of an array is none of bool, numbers, bytes and text")
    return _Type(code)


def _byte_order(code: str, state: tuple) -> str:
    """Return the byte order in the state of a type, after checking that it has nothing else.

    NumPy writes (3, order, None, None, None, size, alignment, flags): sub-arrays, names and fields, sizes of
    texts, and flags, of which one means pointers. A longer state has metadata.
    """
    if len(state) != 8:
        raise RefusedError(f"the state of the type {code!r} has {len(state)} parts")
    order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
    unit = _SIZES_OF_STATE.get(code[0])
    sizes = (-1, -1) if unit is None else (unit * int(code[1:]), unit)
    one_byte = code[0] == "S" or code in ("b1", "i1", "u1")
    if state[0] != 3 or state[2:5] != (None, None, None) or state[5:7] != sizes or state[7] not in (0, 8):
        raise RefusedError(f"the type {code!r} has a structure, metadata, an alignment or flags")
    if order not in (("|",) if one_byte else ("<", ">")):
        raise RefusedError(f"the type {code!r} has the byte order {shown(order)}")
    return order


# The array class is only an argument.
PickleReader.names = {
    **{
        f"{package}.multiarray {name}": act
        for package in ("numpy.core", "numpy._core")
        for name, act in (("_reconstruct", lambda reader, *_: _Array()), ("scalar", PickleReader.scalar))
    },
    "collections OrderedDict": lambda reader: {},
    "numpy ndarray": None,
    "numpy dtype": _type,
    "_codecs encode": PickleReader.encode,
}
_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), lambda number: number),
    **dict.fromkeys(("FLOAT", "BINFLOAT"), lambda number: number),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), lambda text: text.encode("latin1")),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), lambda text: text),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), lambda data: data),
}
_ACTIONS: Mapping[str, Callable[[PickleReader, Any], None]] = {
    "MARK": PickleReader.mark,
    "LIST": PickleReader.put_list,
    "DICT": PickleReader.put_mapping,
    "TUPLE": lambda reader, _: reader.put_tuple(reader.take_marked()),
    "TUPLE1": lambda reader, _: reader.put_tuple(reader.take(1)),
    "TUPLE2": lambda reader, _: reader.put_tuple(reader.take(2)),
    "TUPLE3": lambda reader, _: reader.put_tuple(reader.take(3)),
    "APPEND": lambda reader, _: reader.append(reader.take(1)),
    "APPENDS": lambda reader, _: reader.append(reader.take_marked()),
    "SETITEM": lambda reader, _: reader.set_items(reader.take(2)),
    "SETITEMS": lambda reader, _: reader.set_items(reader.take_marked()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), PickleReader.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleReader.recall),
    # What a subclass does in its own way is looked up when it is asked for.
    "GLOBAL": lambda reader, name: reader.name(name),
    "STACK_GLOBAL": PickleReader.name_of_stack,
    "REDUCE": lambda reader, _: reader.call(None),
    "BUILD": lambda reader, _: reader.build(None),
}
