"""Arrow reader: layout of the ViLT family, index, broken records, broken files, flat memory."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from unimo.data.readers.arrow import ArrowDataset
from unimo.errors import DataError, RecordError


def jpeg(color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (color, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path, columns, compression=None, batch=2):
    table = pa.table(columns)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


PAIRS = {
    "image": [jpeg(1), jpeg(2), jpeg(3)],
    "caption": [["one", "uno"], [], ["three"]],
    "image_id": ["1.jpg", "2.jpg", "3.jpg"],
    "split": ["train"] * 3,
}


def test_every_caption_is_a_sample(tmp_path):
    data = ArrowDataset(write(tmp_path / "f30k_train.arrow", PAIRS), "pairs", name="f30k")
    records = list(data)
    assert [record.text for record in records] == ["one", "uno", "three"]
    assert [record.image for record in records] == [jpeg(1), jpeg(1), jpeg(3)]
    assert [record.image_id for record in records] == ["1.jpg", "1.jpg", "3.jpg"]
    assert [record.sample_id for record in records] == [
        f"f30k_train:{name}" for name in ("0#0", "0#1", "2#0")
    ]
    assert data.image_source(2) == jpeg(3) and records[0].corpus == "f30k"
    with pytest.raises(IndexError):
        data[3]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_tables(tmp_path, compression):
    data = ArrowDataset(write(tmp_path / "a.arrow", PAIRS, compression), "pairs")
    assert [record.image for record in data] == [jpeg(1), jpeg(1), jpeg(3)]


def test_vqa_columns(tmp_path):
    columns = {
        "image": [jpeg(1), jpeg(2)],
        "questions": [["How many?", "Is it red?"], ["What?"]],
        "answers": [[["2", "two dogs"], ["yes"]], [["a cat"]]],
        "answer_labels": [[[4, 9], [0]], [[2]]],
        "answer_scores": [[[1.0, 0.3], [0.9]], [[0.6]]],
        "image_id": [42, 43],
        "question_id": [[420, 421], [430]],
        "split": ["train"] * 2,
    }
    data = ArrowDataset(write(tmp_path / "vqav2_train.arrow", columns), "vqa")
    first, second, third = data
    assert first.answer_scores == {"2": 1.0, "two dogs": 0.3}
    assert (first.question_id, first.question_type, first.image_id) == (420, "number", "42")
    assert (second.text, second.question_type) == ("Is it red?", "yes/no")
    assert third.answer_scores == {"a cat": 0.6} and third.question_type == "other"
    assert data.answers() == {4: "2", 9: "two dogs", 0: "yes", 2: "a cat"}


def test_test_tables_have_no_answers(tmp_path):
    columns = {
        "image": [jpeg(1)],
        "questions": [["How many?", "What?"]],
        "answers": [[]],
        "answer_labels": [[]],
        "answer_scores": [[]],
        "image_id": [42],
        "question_id": [[420, 421]],
        "split": ["test"],
    }
    data = ArrowDataset(write(tmp_path / "vqav2_test.arrow", columns), "vqa")
    assert [(r.question_id, r.answer_scores, r.question_type) for r in data] == [(420, {}, ""), (421, {}, "")]
    assert data.answers() == {}


def test_entailment_feeds_the_hypothesis(tmp_path):
    columns = {
        "image": [jpeg(1)],
        "sentences": [[["A dog.", "An animal."], ["A dog.", "A cat."]]],
        "labels": [[2, 0]],
    }
    data = ArrowDataset(write(tmp_path / "snli_dev.arrow", columns), "entailment")
    assert [(r.text, r.label, r.image_id) for r in data] == [
        ("An animal.", 2, "snli_dev:0"),
        ("A cat.", 0, "snli_dev:0"),
    ]


def test_broken_records_leave_the_others_readable(tmp_path):
    columns = PAIRS | {
        "image": [jpeg(1), b"", jpeg(3)],
        "caption": [["good", "   "], ["image is empty"], [None]],
    }
    data = ArrowDataset(write(tmp_path / "a.arrow", columns), "pairs")
    assert data[0].text == "good"
    for index, message in ((1, "row 0, text 1: the text is empty"), (2, "0 bytes"), (3, "expected a text")):
        with pytest.raises(RecordError, match=message):
            data[index]


def test_caption_that_is_not_utf8(tmp_path):
    raw = pa.array([b"caf\xe9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 1, raw.buffers())
    captions = pa.ListArray.from_arrays([0, 1], text)
    path = write(tmp_path / "a.arrow", {"image": [jpeg(1)], "caption": captions, "image_id": ["1"]})
    with pytest.raises(RecordError, match="UTF-8"):
        ArrowDataset(path, "pairs")[0]


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.99])
def test_truncated_file_names_itself(tmp_path, keep):
    path = write(tmp_path / "cut.arrow", PAIRS)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=r"cut\.arrow .* is not a complete Arrow file"):
        ArrowDataset(path, "pairs")


def test_wrong_kind_and_wrong_type(tmp_path):
    path = write(tmp_path / "a.arrow", PAIRS)
    with pytest.raises(DataError, match="no column questions; found image, caption"):
        ArrowDataset(path, "vqa")
    path = write(tmp_path / "b.arrow", PAIRS | {"caption": ["one", "two", "three"]})
    with pytest.raises(DataError, match="expected a list for each image"):
        ArrowDataset(path, "pairs")
    with pytest.raises(DataError, match="no Arrow file"):
        ArrowDataset(tmp_path / "none.arrow", "pairs")


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_memory_stays_flat_over_a_large_table(tmp_path):
    rng = np.random.default_rng(0)
    columns = {
        "image": [rng.bytes(200_000) for _ in range(400)],
        "caption": [["one"]] * 400,
        "image_id": [str(i) for i in range(400)],
    }
    path = write(tmp_path / "big.arrow", columns, batch=100)
    del columns
    data = ArrowDataset(path, "pairs")
    for index in range(20):
        data[index]
    before = resident()
    assert sum(len(record.image) for record in data) == 80_000_000
    assert resident() - before < 8_000_000


@pytest.mark.parametrize("label", [10**12, 2**62, -1, None, 1_000_000])
def test_labels_that_no_list_of_answers_can_have(tmp_path, label):
    columns = {
        "image": [jpeg(1)],
        "questions": [["How many?"]],
        "answers": [[["two"]]],
        "answer_labels": pa.array([[[label]]], pa.list_(pa.list_(pa.int64()))),
        "answer_scores": [[[1.0]]],
    }
    data = ArrowDataset(write(tmp_path / "a_train.arrow", columns), "vqa")
    with pytest.raises(DataError, match=rf"answer 'two' has the label {label}; expected .* 0 to 249,999"):
        data.answers()


def test_answers_that_do_not_fit_their_labels(tmp_path):
    columns = {"image": [jpeg(1)], "questions": [["How many?"]], "answers": [[["two", "2"]]]}
    for labels in ([[[1]]], [[[1, 2, 3]]], [[["a", "b"]]], [[[0.5, 1.0]]]):
        data = ArrowDataset(write(tmp_path / "a.arrow", columns | {"answer_labels": labels}), "vqa")
        with pytest.raises(DataError, match="a.arrow: answer"):
            data.answers()
