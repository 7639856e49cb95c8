"""Folders of one file a parameter: the format, what is skipped, and what broken files say."""

import re

import numpy as np
import pytest
from released_folder import encode, varint

from unimo.errors import CheckpointError
from unimo.weights.paddle_folder import open_folder, open_parameter

VALUES = np.arange(6, dtype="float32").reshape(2, 3)


@pytest.mark.parametrize(
    "array",
    [
        VALUES,
        VALUES.astype("float64"),
        VALUES.astype("int64"),
        np.array([-3, 7], "int32"),
        np.zeros((1, 1, 300), "float32"),
        np.float32(2.5).reshape(()),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_values_types_and_shapes(tmp_path, array):
    (tmp_path / "vq_emb").write_bytes(encode(array))
    found = np.asarray(open_parameter(tmp_path / "vq_emb"))
    assert found.dtype == array.dtype and found.shape == array.shape and np.array_equal(found, array)


def test_bytes_by_hand(tmp_path):
    """fp32 [2]: version, no levels, version, a message of 4 bytes (type 5, one dimension 2), 1.0 and -2.0."""
    content = "00000000 0000000000000000 00000000 04000000 0805 1002 0000803f 000000c0"
    (tmp_path / "b").write_bytes(bytes.fromhex(content))
    assert np.asarray(open_parameter(tmp_path / "b")).tolist() == [1.0, -2.0]


def test_half_precision_levels_and_packed_dimensions(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(encode(VALUES.astype("float16"), levels=(b"12345678", b""), packed=True))
    found = np.asarray(open_parameter(path))
    assert found.dtype == np.float32 and np.array_equal(found, VALUES)


def test_only_parameters_are_read(tmp_path, caplog):
    skipped = ["a.w_0_moment1_0", "a.w_0_moment2_0", "a.w_0_beta1_pow_acc_0", "a.w_0_beta2_pow_acc_0"]
    skipped += ["@LR_DECAY_COUNTER@", "learning_rate_0", "scheduled_learning_rate", "loss_scaling_0"]
    skipped += ["duplicated_trigram_blocking_delta_score_out", "a.w_0_fp32_master_0", ".DS_Store"]
    for name in skipped:
        (tmp_path / name).write_bytes(b"is not read")
    for name in ("a.w_0", "a_layer_norm_bias", "cls_out_3_w", "moment1_w"):
        (tmp_path / name).write_bytes(encode(VALUES))
    (tmp_path / "older").mkdir()
    with caplog.at_level("INFO", logger="unimo"):
        assert sorted(open_folder(tmp_path)) == ["a.w_0", "a_layer_norm_bias", "cls_out_3_w", "moment1_w"]
    assert "10 files of optimizer, counters and decoder skipped" in caplog.text


GOOD = encode(VALUES)
DAMAGED = "has a damaged description of its tensor: expected a data type and dimensions"
BROKEN = {
    "empty": (b"", "truncated: expected 4 more bytes of its header, found 0"),
    "header": (GOOD[:17], "truncated: expected 4 more bytes of its header, found 1"),
    "values": (GOOD[:-5], r"truncated: expected 24 bytes of values (float32 [2, 3]), found 19"),
    "longer": (GOOD + b"\0", "longer than it says: expected 24 bytes of values (float32 [2, 3]), found 25"),
    "pickle": (b"\x80\x04\x95\x10" + bytes(30), "has format version 278201472, expected 0"),
    "version": (encode(VALUES, versions=(0, 7)), "has tensor version 7, expected 0"),
    "dtype": (encode(VALUES, code=22), "has data type 22, expected one of 2 (int32), 3 (int64)"),
    "no_dtype": (bytes(16) + b"\x02\0\0\0\x10\x06" + bytes(24), "has data type none"),
    "negative": (encode(VALUES, dims=[-1, 3]), "has dimensions [-1, 3], expected at most 8 of 1"),
    "zero": (encode(VALUES, dims=[0, 3]), "has dimensions [0, 3], expected at most 8 of 1 to 2147483647"),
    "huge": (encode(VALUES, dims=[2**31 - 1] * 3), "truncated: expected 39,614,"),
    "axes": (encode(VALUES, dims=[1] * 9), "has dimensions [1, 1, 1, 1, 1, 1, 1, 1, 1], expected at most 8"),
    "levels": (bytes(4) + b"\xff" * 8 + bytes(99), "says that it has 18446744073709551615 sequence levels"),
    "level": (bytes(4) + b"\1" + bytes(7) + b"\xff" * 8, "truncated: expected 18,446,744,073,709,551,615"),
    "message": (bytes(16) + b"\xff\xff\xff\x7f" + bytes(99), "its description has 2147483647 bytes"),
    "field": (bytes(16) + b"\x03\0\0\0\x08\x05\x85" + bytes(24), f"{DAMAGED}, found 08 05 85; download"),
    "kind": (bytes(16) + b"\x02\0\0\0\x0d\x05" + bytes(24), f"{DAMAGED}, found 0d 05; download"),
    "number": (bytes(16) + b"\x0c\0\0\0\x08" + b"\x85" * 11, f"{DAMAGED}, found 08 85 85"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named_with_what_was_found(tmp_path, kind):
    content, said = BROKEN[kind]
    (tmp_path / "text.word_embedding").write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(said)) as caught:
        open_folder(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "text.word_embedding") in message and ("; " in message)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(CheckpointError, match="none: no such folder; expected a folder with one file for"):
        open_folder(tmp_path / "none")
    (tmp_path / "UNIMO-2.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(CheckpointError, match=r"UNIMO-2.tar.gz: a file; if it is an archive, unpack it"):
        open_folder(tmp_path / "UNIMO-2.tar.gz")
    (tmp_path / "out" / "UNIMO-2").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="found only the folders UNIMO-2; give one of them"):
        open_folder(tmp_path / "out")
    with pytest.raises(CheckpointError, match="one file for each parameter, found none; was it unpacked"):
        open_folder(tmp_path / "out" / "UNIMO-2")


def test_the_writer_of_the_tests_counts_as_protobuf_does():
    assert [varint(n).hex() for n in (0, 127, 128, 300, 50265)] == ["00", "7f", "8001", "ac02", "d98803"]
