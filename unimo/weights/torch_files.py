"""Files of `torch.save` and TorchScript, read without torch and without running anything in them.

Such a file is a zip archive: `data.pkl` says which tensors there are, `data/0`, `data/1`, ... hold the values
of their storages, uncompressed. The pickle is read by `PickleReader`: its rebuilding functions are symbols
for functions of this file. Objects of the packages that write checkpoints (callbacks, schedulers, ...) stay
empty; any other name is refused.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unimo.errors import CheckpointError, shown
from unimo.files import regular
from unimo.limits import TENSORS, TORCH_PICKLE_BYTES, WEIGHTS_BYTES
from unimo.weights.pickles import PickleReader, RefusedError, Symbol
from unimo.weights.stored import Stored, in_file

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Beginning of the files that torch wrote before 1.6."""
_KINDS = {
    "Double": "f8",
    "Float": "f4",
    "Half": "f2",
    "BFloat16": "bf16",
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}
_WRITERS = {
    "torch",
    "__torch__",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "deepspeed",
    "apex",
    "omegaconf",
    "sacred",
    "transformers",
}
"""Packages whose objects lie beside the tensors of a checkpoint."""
_BESIDE = {
    "argparse Namespace",
    "collections Counter",
    "collections defaultdict",
    "copy_reg _reconstructor",
    "copyreg _reconstructor",
    "pathlib Path",
    "pathlib PosixPath",
    "typing Any",
    *(
        f"{module} {name}"
        for module in ("__builtin__", "builtins")
        for name in ("set", "frozenset", "dict", "list", "tuple", "object", "int", "float", "str", "bool")
    ),
}
"""Names of Python that do."""
_LONGEST_NAME = 4096


@dataclass
class _Foreign:
    """An object that stays as empty as it was, but for its attributes."""

    name: str
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Storage(Symbol):
    """The values of one or more tensors."""

    offset: int = 0
    """Its first byte in the file."""
    count: int = 0


class _Reader(PickleReader):
    def __init__(self, content: bytes, path: Path, members: Mapping[str, zipfile.ZipInfo]) -> None:
        super().__init__(io.BytesIO(content), len(content))
        self._path, self._members = path, members

    def name(self, name: str) -> None:
        if name in self.names:
            self._stack.append(Symbol(name))
        elif name in _BESIDE or name.partition(" ")[0].partition(".")[0] in _WRITERS:
            self._stack.append(_Foreign(name.replace(" ", ".", 1)))
        else:
            super().name(name)

    def call(self, _: None) -> None:
        if isinstance(self._stack[-2], _Foreign):
            self._stack.append(_Foreign(self.take(2)[0].name))
        else:
            super().call(None)

    def build(self, _: None) -> None:
        target, state = self._stack[-2:]
        if not isinstance(target, (dict, list, _Foreign)):
            super().build(None)
            return
        self.take(2)
        if isinstance(target, _Foreign) and isinstance(state, dict):
            target.state = state
        self._stack.append(target)

    def set_items(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], _Foreign):
            super().set_items(items)

    def append(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], _Foreign):
            super().append(items)

    def pass_over(self, key: Any) -> None:
        """Leave the entry out: the states of callbacks stand under their classes."""

    def storage(self, _: None) -> None:
        """Find the storage that the file refers to: ("storage", type, key, device, number of values)."""
        (parts,) = self.take(1)
        known = isinstance(parts, tuple) and len(parts) == 5 and parts[0] == "storage"
        if not known or not isinstance(parts[1], (Symbol, _Foreign)) or type(parts[4]) is not int:
            raise RefusedError(f"it refers to {shown(parts)}, which is no storage")
        name, key, count = parts[1].name.replace(".", " "), parts[2], parts[4]
        kind = _KINDS.get(name.removeprefix("torch ").removesuffix("Storage"))
        if kind is None:
            raise RefusedError(f"a tensor is of the type {name}; expected one of {', '.join(_KINDS)}")
        member = self._members.get(key) if type(key) is str else None
        width = 2 if kind == "bf16" else int(kind[1:] or 1)
        if member is None or member.file_size != count * width:
            found = "none" if member is None else f"{member.file_size:,} bytes"
            raise ValueError(
                f"expected {count * width:,} bytes in the member data/{shown(key)}, found {found}"
            )
        self._stack.append(_Storage(kind, _first_byte(self._path, member), count))

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Stored:
        """Return the tensor that `_rebuild_tensor_v2` makes of these."""
        numbers = (
            (offset, *shape, *strides) if isinstance(shape, tuple) and isinstance(strides, tuple) else ()
        )
        if (
            not isinstance(storage, _Storage)
            or not numbers
            or len(shape) != len(strides)
            or not all(type(number) is int and 0 <= number <= WEIGHTS_BYTES for number in numbers)
        ):
            raise RefusedError("a tensor has a shape, strides or a storage of another form")
        last = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
        is_empty = 0 in shape
        size = 0 if is_empty else _size(shape, storage.count)
        if not is_empty and (last >= storage.count or size > storage.count):
            raise ValueError(f"a tensor {list(shape)} of {storage.count:,} stored values")
        width = 2 if storage.name == "bf16" else int(storage.name[1:] or 1)
        steps = () if is_empty else strides
        return in_file(self._path, storage.offset + offset * width, storage.name, shape, steps)


def _size(shape: Sequence[int], most: int) -> int:
    """Return the number of values; beyond `most` not to the end, as products of large numbers are long."""
    size = 1
    for side in shape:
        size *= side
        if size > most:
            return size
    return size


def _pass_on(_: _Reader, value: Any, *rest: Any) -> Any:
    return value


_Reader.names = {
    **PickleReader.names,
    "torch._utils _rebuild_tensor": _Reader.tensor,
    "torch._utils _rebuild_tensor_v2": _Reader.tensor,
    "torch._utils _rebuild_parameter": _pass_on,
    "torch._utils _rebuild_parameter_with_state": _pass_on,
}
_Reader.steps = {
    "BINPERSID": _Reader.storage,
    "NEWOBJ": _Reader.call,
    "EMPTY_SET": lambda reader, _: reader._stack.append(_Foreign("set")),
    "ADDITEMS": lambda reader, _: reader.take_marked(),
}


def open_torch(path: Path) -> dict[str, Any]:
    """Return what a file of `torch.save` holds, by name; tensors in it are read when they are asked for.

    The parameters of a TorchScript model get the names of their modules, joined by dots.

    Raises:
        CheckpointError: it cannot be read, is damaged, is no such file, or asks for anything else.
    """
    try:
        with zipfile.ZipFile(regular(path, WEIGHTS_BYTES)) as archive:
            root, members = _members(archive, path)
            content = archive.read(f"{root}data.pkl")
        value = _Reader(content, path, members).read()
    except OSError as error:
        raise CheckpointError(f"cannot read weights {path}: {error.strerror}") from error
    except RefusedError as error:
        raise CheckpointError(
            f"{path} was not opened, and nothing in it was run: {error}, which no file of weights needs. "
            "Take it from its owner again, or as .safetensors"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # damaged archives and pickles raise nearly anything
        raise CheckpointError(f"{path} is not a whole file of torch: {error}; download it again") from error
    if isinstance(value, _Foreign) and value.name.startswith("__torch__"):
        return dict(_parameters(value))
    if not isinstance(value, dict):
        what = value.name if isinstance(value, _Foreign) else type(value).__name__
        raise CheckpointError(
            f"{path} holds {what}; expected tensors by name, as the state_dict of a model has"
        )
    return value


def _members(archive: zipfile.ZipFile, path: Path) -> tuple[str, dict[str, zipfile.ZipInfo]]:
    """Return the folder inside the archive, and the storages by their keys."""
    inside = archive.infolist()
    roots = [item.filename[: -len("data.pkl")] for item in inside if item.filename.endswith("/data.pkl")]
    if len(roots) != 1 or len(inside) > TENSORS:
        names = ", ".join(item.filename for item in inside[:3])
        raise CheckpointError(f"{path} is a zip archive of {names or 'nothing'}; expected a file of torch")
    size = path.stat().st_size
    by_name = {item.filename.removeprefix(roots[0]): item for item in inside}
    for name, item in by_name.items():
        if name == "data.pkl" and item.file_size > TORCH_PICKLE_BYTES:
            raise CheckpointError(
                f"{path}: its data.pkl has {item.file_size:,} bytes, expected a few thousand"
            )
        packed = item.compress_type != zipfile.ZIP_STORED or item.file_size != item.compress_size
        if (name == "data.pkl" or name.startswith("data/")) and (packed or item.file_size > size):
            raise CheckpointError(f"{path}: its member {item.filename} is compressed, which torch never does")
    if "byteorder" in by_name and archive.read(by_name["byteorder"].filename)[:3] == b"big":
        raise CheckpointError(f"{path} was written on a big-endian machine; save it on a little-endian one")
    return roots[0], {
        name[len("data/") :]: item for name, item in by_name.items() if name.startswith("data/")
    }


def _first_byte(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where the content of a member begins, after its own header."""
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        raise ValueError(f"the member {member.filename} has no header")
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return member.header_offset + 30 + names


def _parameters(module: _Foreign) -> list[tuple[str, Stored]]:
    """Return the tensors of a TorchScript model, of a module that it uses twice only once."""
    found, waiting, seen = [], [("", module)], set()
    while waiting:
        prefix, part = waiting.pop()
        if id(part) in seen or len(prefix) > _LONGEST_NAME:
            continue
        seen.add(id(part))
        for name, value in part.state.items():
            if isinstance(value, Stored):
                found.append((f"{prefix}{name}", value))
            elif isinstance(value, _Foreign):
                waiting.append((f"{prefix}{name}.", value))
    return found
