"""CIFAR-10 and CIFAR-100, Python and binary version: images, labels, names, and damaged files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unimo.data.readers.open import open_labeled_images
from unimo.errors import DataError, RecordError
from unimo.settings import CorpusConfig, DataConfig

NAMES = [f"class_{number}" for number in range(10)]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3072)).astype(np.uint8)
LABELS = [3, 9, 0]


def write_python(folder: Path, labels: list[int] = LABELS, pixels: np.ndarray = PIXELS) -> Path:
    folder.mkdir(parents=True)
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [n.encode() for n in NAMES]}, 2))
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, 2))
    return folder


def write_binary(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    content = np.concatenate([np.array(LABELS, np.uint8)[:, None], PIXELS], axis=1).tobytes()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / f"{name}.bin").write_bytes(content)
    return folder


def read(folder: Path, split: str):
    return open_labeled_images(CorpusConfig(str(folder)), split, DataConfig())


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("write", [write_python, write_binary])
def test_pictures_and_labels(tmp_path: Path, write) -> None:
    write(tmp_path / "cifar-10-batches-py")  # the folder of the archive inside the named folder
    train, held_out, test = (read(tmp_path, split) for split in ("train", "val", "test"))
    assert (len(train), len(held_out), len(test)) == (14, 1, 3)
    assert held_out[0].sample_id == "data_batch_5:2" and held_out[0].label == LABELS[2]
    assert [record.label for record in test] == LABELS
    assert list(train.class_names) == NAMES and train[1].label_name == "class 9"
    np.testing.assert_array_equal(picture(test[1].image), PIXELS[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert (
        len({record.sample_id for record in read(tmp_path, "train+val")}) == 15
        and train[4].sample_id == "data_batch_2:1"
    )
    assert train.image_source(4) == train[4].image
    assert len(read(tmp_path, "train+val+test")) == 18


def test_cifar100_takes_fine_labels(tmp_path: Path) -> None:
    names = [f"fine{number}" for number in range(100)]
    meta = {b"fine_label_names": names, b"coarse_label_names": ["coarse"] * 20}
    (tmp_path / "meta").write_bytes(pickle.dumps(meta, 2))
    content = {b"data": PIXELS, b"fine_labels": [99, 0, 50], b"coarse_labels": [1, 2, 3]}
    for split in ("train", "test"):
        (tmp_path / split).write_bytes(pickle.dumps(content, 2))
    assert [record.label_name for record in read(tmp_path, "train")] == ["fine99", "fine0", "fine50"]
    binary = tmp_path / "binary"
    binary.mkdir()
    (binary / "fine_label_names.txt").write_text("\n".join(names))
    rows = np.concatenate([np.array([[1, 99], [2, 0], [3, 50]], np.uint8), PIXELS], axis=1)
    (binary / "test.bin").write_bytes(rows.tobytes())
    test = read(binary, "test")
    assert [record.label for record in test] == [99, 0, 50]
    np.testing.assert_array_equal(picture(test[2].image), PIXELS[2].reshape(3, 32, 32).transpose(1, 2, 0))


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    for label in (10, -1, 3.0, "a", None, 2**70):
        test = read(write_python(tmp_path / f"label{label}", [3, label, 0]), "test")
        with pytest.raises(RecordError, match=r"test_batch:1: its label is not one of 0 \.\. 9"):
            test[1]
        assert [test[0].label, test[2].label] == [3, 0]
    with pytest.raises(DataError, match=r"no label of test_batch is one of 0 \.\. 9"):
        read(write_python(tmp_path / "labels", [10, 11, -1]), "test")
    with pytest.raises(DataError, match=r"array `data` of bytes \[N, 3072\]"):
        read(write_python(tmp_path / "pixels", pixels=PIXELS[:, :10]), "test")
    with pytest.raises(DataError, match="list `labels` of 3 labels"):
        read(write_python(tmp_path / "few", [3]), "test")
    folder = write_binary(tmp_path / "binary")
    file = folder / "test_batch.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="has 9218 bytes, no multiple of 3073"):
        read(folder, "test")
    with pytest.raises(DataError, match="no split 'dev'"):
        read(folder, "dev")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match="cannot read .*data_batch_3.bin"):
        read(folder, "train")
