"""Safetensors in and out, what happens to broken files and full disks, and strict loading."""

import errno
import json
import os
import pickle

import numpy as np
import paddle
import pytest
from paddle import nn
from safetensors.numpy import load_file, save_file

from unimo.errors import CheckpointError
from unimo.nn.config import ClipVisionConfig, TextConfig
from unimo.nn.position import resize_positions
from unimo.nn.towers import ClipVisionTower, RobertaTower
from unimo.weights.files import read_safetensors, read_tensors, write_safetensors
from unimo.weights.layers import load_into, load_tower, tensors_of
from unimo.weights.name_map import join, row


def some_tensors():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "scalar": np.float32(2.5).reshape(()),
        "empty": np.zeros((0, 3), np.float32),
        "ids": np.arange(5),
        "flags": np.array([True, False, True]),
        "turned": rng.standard_normal((2, 6)).T,
    }


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name


def test_written_files_are_read_by_us_and_by_the_safetensors_package(tmp_path):
    write_safetensors(tmp_path / "w.safetensors", some_tensors())
    same(read_safetensors(tmp_path / "w.safetensors"), some_tensors())
    same(load_file(tmp_path / "w.safetensors"), some_tensors())
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_files_of_the_safetensors_package(tmp_path):
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in some_tensors().items()}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"format": "np"})
    same(read_safetensors(tmp_path / "w.safetensors"), tensors)


def test_half_precision_becomes_float32(tmp_path):
    header = {
        "half": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "brain": {"dtype": "BF16", "shape": [3], "data_offsets": [4, 10]},
    }
    values = np.array([1.5, -2.0], np.float16).tobytes()
    # 1.0, -2.5, 3.140625: the upper 16 bits of their float32 patterns.
    values += np.array([0x3F80, 0xC020, 0x4049], np.uint16).tobytes()
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + values)
    found = read_safetensors(tmp_path / "w.safetensors")
    assert found["half"].tolist() == [1.5, -2.0] and found["half"].dtype == np.float32
    assert found["brain"].tolist() == [1.0, -2.5, 3.140625] and found["brain"].dtype == np.float32


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_truncated_file_names_itself_and_its_sizes(tmp_path, kept):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, some_tensors())
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    size = len(whole[:kept])
    with pytest.raises(CheckpointError, match=rf"w\.safetensors is truncated.*\b{size}\b"):
        read_safetensors(path)


def broken(entry):
    text = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 a zip file, which torch.save writes", "truncated or not a safetensors file"),
        (broken(b"{not json"), "has 1?[0-9]+ bytes .*invalid JSON in header"),
        (broken([1, 2]), "has 1?[0-9]+ bytes .*invalid JSON in header"),
        (broken({"a": {"dtype": "F32", "shape": [1]}}), "has 1?[0-9]+ bytes .*invalid JSON in header"),
        (
            broken({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}) + b"\0",
            "tensor 'a' is of type F8_E4M3; expected F32",
        ),
        (
            broken({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}) + b"\0" * 4,
            "has 7[0-9] bytes .*invalid shape",
        ),
        (
            broken({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}),
            "has 7[0-9] bytes .*invalid value",
        ),
        *(
            (
                broken({"a": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}) + b"\0" * size,
                r"w\.safetensors: the shape of a tensor is that of no array",
            )
            for kind, width in (("F32", 4), ("F16", 2), ("BF16", 2), ("I64", 8), ("BOOL", 1))
            for shape, size in (([0, 1 << 62, 4], 0), ([0, 1 << 40, 1 << 40], 0), ([1] * 70, width))
        ),
    ],
)
def test_corrupt_files(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_safetensors(path)


def test_a_header_of_millions_of_tensors(tmp_path, monkeypatch):
    monkeypatch.setattr("unimo.weights.files.TENSORS", 20)
    empty = {f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(21)}
    path = tmp_path / "w.safetensors"
    path.write_bytes(broken(empty))
    with pytest.raises(CheckpointError, match="has 21 tensors; the limit is 20"):
        read_safetensors(path)
    empty.pop("t3")
    path.write_bytes(broken(empty))
    assert len(read_safetensors(path)) == 20


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt", ".pdparams"])
def test_pickles_are_refused_unopened(tmp_path, suffix):
    path = tmp_path / f"pytorch_model{suffix}"
    path.write_bytes(b"\x80\x02c os\nsystem\n.")
    with pytest.raises(CheckpointError, match=r"is a pickle.*convert_checkpoint.py --input"):
        read_safetensors(path)


def test_pickles_of_arrays_are_read_as_others_write_them(tmp_path):
    layer = nn.Linear(3, 2)
    paddle.save(layer.state_dict(), str(tmp_path / "a.pdparams"))  # with a table of names beside the arrays
    same(read_tensors(tmp_path / "a.pdparams"), tensors_of(layer))
    tensors = {"conv1.weight": np.ones((2, 2), np.float32)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": tensors, "__author__": "Caffe2"}))
    same(read_tensors(tmp_path / "a.pkl"), tensors)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": [1]}, "'model' is not a mapping"),
        ({"weight": np.ones(2, np.float32), "epoch": 3}, "epoch is int; expected arrays by name"),
        ([1], "expected a mapping, found list"),
        ({"weight": os.system}, "was not opened: it asks for posix.system"),
    ],
)
def test_pickles_of_anything_else_are_refused(tmp_path, content, message):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=f"a.pkl.*{message}"):
        read_tensors(tmp_path / "a.pkl")


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read weights .*none.safetensors: No such file"):
        read_safetensors(tmp_path / "none.safetensors")


def test_full_disk_leaves_the_previous_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"a": np.zeros(3, np.float32)})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"w\.safetensors.*No space left.*previous file is intact"):
        write_safetensors(path, {"a": np.ones(3, np.float32)})
    assert os.listdir(tmp_path) == ["w.safetensors"]
    assert read_safetensors(path)["a"].tolist() == [0, 0, 0]


def test_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(CheckpointError, match="could not write .*nowhere.*No such file"):
        write_safetensors(tmp_path / "nowhere" / "w.safetensors", {})


def test_load_into_sets_every_value():
    layer, other = nn.Linear(3, 2), nn.Linear(3, 2)
    load_into(layer, tensors_of(other), "other")
    same(tensors_of(layer), tensors_of(other))


def test_all_misfits_are_named_and_nothing_is_changed():
    layer = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    before = tensors_of(layer)
    tensors = {name: array + 1 for name, array in before.items()}
    del tensors["1.bias"], tensors["2.weight"]
    tensors["0.weight"] = np.zeros((3, 5), np.float32)
    tensors["head.scale"] = np.zeros(1, np.float32)
    with pytest.raises(CheckpointError) as caught:
        load_into(layer, tensors, "DIR/model.safetensors")
    message = str(caught.value)
    assert "weights in DIR/model.safetensors do not fit" in message
    assert "2 missing: 1.bias, 2.weight; 1 extra: head.scale" in message
    assert "1 mis-shaped: 0.weight (file [3, 5], model [3, 2])" in message
    same(tensors_of(layer), before)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_])
def test_whole_numbers_are_no_weights(kind):
    layer = nn.Linear(2, 2)
    before = tensors_of(layer)
    given = {"weight": np.ones((2, 2), kind), "bias": np.ones(2, np.float32)}
    with pytest.raises(CheckpointError, match=f"1 of another type: weight .file {np.dtype(kind)}, model"):
        load_into(layer, given, "there")
    same(tensors_of(layer), before)
    load_into(layer, {name: np.ones_like(value, np.float64) for name, value in before.items()}, "there")


def test_parts_that_do_not_make_one_tensor_are_named():
    theirs = {"q": np.ones((2, 4), np.float32), "k": np.ones((3, 4), np.float32)}
    with pytest.raises(CheckpointError, match=r"these do not make one qkv: q \[2, 4\], k \[3, 4\]"):
        join(row("tensor", "qkv", "q", "k"), theirs)


def test_a_folder_is_no_file_of_weights(tmp_path):
    with pytest.raises(CheckpointError, match="it is a folder; expected a file such as model"):
        read_safetensors(tmp_path)
    with pytest.raises(CheckpointError, match="expected one file for each parameter, found none"):
        read_tensors(tmp_path)


def test_long_lists_are_cut_and_counted():
    with pytest.raises(CheckpointError, match=r"25 extra: x0, .*, x19 and 5 more\."):
        load_into(nn.Layer(), {f"x{i}": np.zeros(1) for i in range(25)}, "file")


def test_ignored_prefixes_may_be_missing_or_extra():
    layer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tensors = {"0.weight": np.ones((2, 2), np.float32), "0.bias": np.ones(2, np.float32), "old.x": np.ones(1)}
    load_into(layer, tensors, "file", ignore=("1.", "old."))
    assert layer[0].weight.numpy().tolist() == [[1, 1], [1, 1]]


SIZES = {"hidden_size": 8, "num_heads": 2, "intermediate_size": 16}


def vision_tower(image_size=16, layers=1):
    return ClipVisionTower(ClipVisionConfig(**SIZES, num_layers=layers, patch_size=4, image_size=image_size))


def text_tower(layers, **options):
    config = TextConfig(**SIZES, num_layers=layers, vocab_size=9, max_position=9)
    return RobertaTower(config, **options)


def test_position_table_follows_the_grid():
    small, large = vision_tower(16), vision_tower(24)
    load_into(large, tensors_of(small), "small")
    expected = resize_positions(small.position_embedding.numpy(), 6)
    assert np.array_equal(large.position_embedding.numpy(), expected)
    assert np.array_equal(expected[0], small.position_embedding.numpy()[0])


def test_position_table_of_another_width_or_no_grid_is_a_misfit():
    tensors = tensors_of(vision_tower(16))
    tensors["position_embedding"] = np.zeros((12, 8), np.float32)
    with pytest.raises(CheckpointError, match=r"position_embedding \(file \[12, 8\], model \[17, 8\]\)"):
        load_into(vision_tower(16), tensors, "file")


def save_tower(folder, tower, config):
    folder.mkdir()
    (folder / "config.yaml").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", tensors_of(tower))
    return folder


def test_load_tower_and_its_refusals(tmp_path):
    source = vision_tower(layers=2)
    folder = save_tower(tmp_path / "vit", source, {"tower": "clip_vit", "num_layers": 2, "num_heads": 2})
    same_size, shorter = vision_tower(layers=2), vision_tower(layers=1)
    load_tower(same_size, folder)
    same(tensors_of(same_size), tensors_of(source))
    load_tower(shorter, folder, drop_layers=1)
    assert np.array_equal(shorter.layers[0].mlp.fc1.weight.numpy(), source.layers[0].mlp.fc1.weight.numpy())
    with pytest.raises(
        CheckpointError, match="holds a clip_vit tower of 2 layers.*wants a clip_vit tower of 1"
    ):
        load_tower(shorter, folder)
    text = text_tower(2)
    with pytest.raises(CheckpointError, match="holds a clip_vit tower.*the model wants a roberta tower"):
        load_tower(text, folder)
    with pytest.raises(CheckpointError, match="not a folder of tower weights.*convert_checkpoint.py"):
        load_tower(text, tmp_path)


def test_text_tower_without_the_unused_pooler(tmp_path):
    paddle.seed(1)
    source = text_tower(1, pooler=False)
    folder = save_tower(tmp_path / "text", source, {"tower": "roberta", "num_layers": 1, "num_heads": 2})
    tower = text_tower(1, pooler=True)
    load_tower(tower, folder)
    assert np.array_equal(tower.embeddings.word.weight.numpy(), source.embeddings.word.weight.numpy())
