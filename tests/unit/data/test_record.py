"""Identity of images and access to one image of a record."""

from pathlib import Path

import numpy as np
import pytest

from unimo.data.record import Record
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
