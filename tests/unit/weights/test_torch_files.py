"""Files of torch are read as torch wrote them, and nothing that they ask for is run."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unimo.errors import CheckpointError
from unimo.weights.files import open_tensors, read_tensors
from unimo.weights.stored import Stored

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "torch_files"
STATE = {
    "scale": np.float32(2.5),
    "block.ids": np.arange(3),
    "block.fc.weight": np.arange(6, dtype=np.float32).reshape(3, 2),
    "block.fc.bias": np.array([0.5, -1, 2], np.float32),
}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize(
    "name",
    ["plain.bin", "script.pt", "half.pt", "brain.pt", "lightning.ckpt", "mp_rank_00_model_states.pt"],
)
def test_what_torch_wrote(name: str) -> None:
    """state_dict, TorchScript, halves, Lightning with callbacks and optimizer, DeepSpeed with a prefix."""
    opened = open_tensors(ASSETS / name)
    assert all(isinstance(tensor, Stored) and not tensor.is_read for tensor in opened.values())
    same(read_tensors(ASSETS / name), STATE)


def test_views_of_one_storage() -> None:
    flat = np.arange(12, dtype=np.float32)
    views = {"turned": flat.reshape(3, 4).T, "part": flat[5:8], "every": flat[::3]}
    others = {"none": np.zeros((0, 4), np.float32), "flags": np.array([True, False])}
    same(read_tensors(ASSETS / "views.pt"), views | others)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("legacy.pth", r"legacy.pth is a legacy file of torch.*torch.load\('legacy.pth'.*weights_only=True"),
        ("module.pt", "nothing in it was run: it asks for __main__.Net"),
    ],
)
def test_what_only_code_could_read_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_tensors(ASSETS / name)


class FloatStorage:
    """Stands for torch's class in the pickles below."""


def torch_file(path: Path, tensors: dict[str, tuple[Any, ...]], **members: bytes) -> Path:
    """Write a file of torch: name -> arguments of `_rebuild_tensor_v2` after the storage, which is shared."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            is_storage = isinstance(value, FloatStorage)
            return ("storage", FloatStorage, "0", "cpu", members_count) if is_storage else None

    data = members.pop("data", np.arange(4, dtype="<f4").tobytes())
    members_count = int.from_bytes(members.pop("count", b"\4"), "little")

    class Tensor:
        def __init__(self, arguments: tuple[Any, ...]) -> None:
            self.arguments = arguments

        def __reduce__(self) -> Any:
            return rebuild, (FloatStorage(), *self.arguments, False, collections.OrderedDict())

    stream = io.BytesIO()
    Pickler(stream, 2).dump({name: Tensor(arguments) for name, arguments in tensors.items()})
    here = __name__.encode()
    text = stream.getvalue().replace(b"c" + here + b"\nFloatStorage", b"ctorch\nFloatStorage")
    text = text.replace(b"c" + here + b"\nrebuild", b"ctorch._utils\n_rebuild_tensor_v2")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", members.pop("pickle", text))
        archive.writestr("a/data/0", data)
        for name, content in members.items():
            archive.writestr(f"a/{name}", content)
    return path


def rebuild() -> None:
    """Stand for torch's function in the pickles above."""


def test_the_writer_of_these_tests_writes_what_torch_does(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "a.pt", {"w": (1, (3,), (1,))})
    assert np.asarray(open_tensors(path)["w"]).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, (4,), (1,)), r"a tensor \[4\] of 4 stored values"),
        ((0, (2,), (4,)), r"a tensor \[2\] of 4 stored values"),
        ((0, (1 << 40,), (0,)), "not opened|stored values"),
        ((0, (1 << 20, 1 << 20, 1 << 20), (0, 0, 0)), "stored values"),
        ((-1, (2,), (1,)), "shape, strides or a storage of another form"),
        ((0, (2,), (-1,)), "shape, strides or a storage of another form"),
        ((0, (2, 2), (1,)), "shape, strides or a storage of another form"),
        ((0, (True,), (1,)), "shape, strides or a storage of another form"),
        ((0, "ab", (1,)), "shape, strides or a storage of another form"),
        ((0, (1,) * 70, (1,) * 70), "shape of a tensor is that of no array"),
    ],
)
def test_tensors_beyond_their_storage(tmp_path: Path, arguments: tuple[Any, ...], message: str) -> None:
    path = torch_file(tmp_path / "a.pt", {"w": arguments})
    with pytest.raises(CheckpointError, match=message):
        open_tensors(path)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"pickle": pickle.dumps({"w": Evil()}, 2)}, r"nothing in it was run: it asks for posix\.system"),
        ({"pickle": b"\x80\x02cbuiltins\neval\nX\1\0\0\0a\x85R."}, r"asks for builtins\.eval"),
        ({"pickle": b"\x80\x02ctorch\nload\nX\1\0\0\0a\x85R."}, "holds torch.load; expected tensors by name"),
        ({"pickle": b"\x80\x02}X\1\0\0\0aK\1s."}, "a is int; expected arrays by name"),
        ({"pickle": b"\x80\x02]."}, "holds list; expected tensors by name"),
        ({"pickle": b"\x80\x02"}, "not a whole file of torch"),
        ({"data": b"\0" * 12}, "expected 16 bytes in the member data/'0', found 12"),
        ({"count": b"\xff" * 6}, "expected 1,125,899,906,842,620 bytes in the member data/'0', found 16"),
        ({"byteorder": b"big"}, "big-endian"),
    ],
)
def test_hostile_and_damaged_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = torch_file(tmp_path / "a.pt", {"w": (0, (4,), (1,))}, **members)
    with pytest.raises(CheckpointError, match=message):
        open_tensors(path)
    assert not Path("ran").exists()


def test_archives_of_another_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(2))
    with pytest.raises(CheckpointError, match="a zip archive of w.npy; expected a file of torch"):
        open_tensors(tmp_path / "a.npz")
    whole = (ASSETS / "plain.bin").read_bytes()
    for kept in (30, len(whole) // 2, len(whole) - 4):
        (tmp_path / "cut.bin").write_bytes(whole[:kept])
        with pytest.raises(CheckpointError, match="cut.bin is not a whole file of torch"):
            open_tensors(tmp_path / "cut.bin")
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="data.pkl is compressed|data/0 is compressed"):
        open_tensors(tmp_path / "packed.pt")


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "a.pt", {"w": (0, (4,), (1,))})
    opened = open_tensors(path)
    path.write_bytes(path.read_bytes()[: struct.calcsize("30s")])
    with pytest.raises(CheckpointError, match="it ends inside of a tensor"):
        np.asarray(opened["w"])
