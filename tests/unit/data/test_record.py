"""Identity of images and access to one image of a record."""

from pathlib import Path

import numpy as np
import pytest

from unimo.data.record import Record, pair_id
from unimo.errors import RecordError


def test_image_is_the_only_one():
    assert Record("s", "c").image is None
    assert Record("s", "c", images=(b"x",)).image == b"x"
    two = Record("s", "c", images=(Path("1.jpg"), Path("2.jpg")))
    with pytest.raises(RecordError, match="sample s has 2 images"):
        _ = two.image


def test_image_group_is_of_corpus_and_image():
    group = Record("1", "coco", images=(b"x",), text="a", image_id="7").image_group
    assert group == Record("2", "coco", images=(b"y",), text="b", image_id="7").image_group
    others = [
        Record("1", "coco", image_id="8"),
        Record("1", "sbu", image_id="7"),
        Record("7", "coco"),
        Record("8", "coco"),
        Record("1", "coco 7", image_id=""),
        Record("1", "c", image_id="oco 7"),
        Record("1", "coco", image_id="caf\udce9"),
    ]
    assert len({group, *(record.image_group for record in others)}) == 1 + len(others)


def test_image_group_is_the_same_in_every_run_and_fits_int64():
    assert Record("1", "coco", image_id="7").image_group == 356588884626998082
    groups = [Record(str(number), "c").image_group for number in range(1000)]
    assert len(set(groups)) == 1000 and min(groups) >= 0
    np.testing.assert_array_equal(np.array(groups, np.int64), groups)


def test_two_pictures_are_one_group_in_either_order() -> None:
    def record(first: str, second: str) -> Record:
        return Record("s", "c", images=(b"1", b"2"), image_id=pair_id(first, second))

    whole = record("train2014/COCO_train2014_000000000009.jpg", "b.jpg")
    same = [record("b.jpg", "000000000009.jpg"), record("000000000009.jpg", "b.jpg")]
    assert {other.image_group for other in same} == {whole.image_group}
    others = [record("b.jpg", "b.jpg"), record("b.jpg", "c.jpg"), same[0].picture(0), same[0].picture(1)]
    assert len({other.image_group for other in (whole, *others)}) == 5
    assert [whole.picture(1).image, whole.picture(1).image_id] == [b"2", "b.jpg"]
    with pytest.raises(RecordError, match="has 1 images; expected two"):
        whole.picture(0).picture(0)
