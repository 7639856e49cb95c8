"""The released TSV format of region features: reading, writing, malformed lines."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from region_samples import sample

from unimo.data.record import Record
from unimo.data.regions.open import open_store
from unimo.data.regions.tsv import TsvRegions, write_tsv
from unimo.errors import DataError, RecordError


def encode(values) -> str:
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def line(name="17", width="40", height="30", count="2", boxes=None, features=None, probs=None) -> list[str]:
    boxes = encode([[1, 2, 3, 4], [0, 0, 40, 30]]) if boxes is None else boxes
    features = encode([[0.5, -1, 2], [7, 8, 9]]) if features is None else features
    probs = encode([[0.25, 0.75], [1, 0]]) if probs is None else probs
    return [name, width, height, count, boxes, features, probs]


def write(path: Path, *lines: list[str]) -> Path:
    path.write_text("".join("\t".join(columns) + "\n" for columns in lines))
    return path


def test_a_line_by_hand(tmp_path):
    table = TsvRegions(write(tmp_path / "f.tsv", line("3"), line("17", features=encode(np.eye(2, 3)))))
    assert (table.feature_size, table.num_classes, len(table)) == (3, 2, 2)
    regions = table.of(Record("s", "c", image_id="flickr/17.jpg"))
    np.testing.assert_array_equal(regions.features, np.eye(2, 3))
    np.testing.assert_array_equal(regions.boxes, [[1, 2, 3, 4], [0, 0, 40, 30]])
    np.testing.assert_array_equal(regions.class_probs, [[0.25, 0.75], [1, 0]])
    assert (regions.width, regions.height) == (40, 30)
    found = table.image("3")
    assert found.labels.tolist() == [1, 0]
    assert found.scores.tolist() == [0.75, 1.0]


def test_the_order_of_the_sides(tmp_path):
    path = write(tmp_path / "f.tsv", line(width="30", height="40"))
    assert TsvRegions(path, "height-width").of_id("17").width == 40
    with pytest.raises(RecordError, match="outside of its 30 x 40 pixels"):
        TsvRegions(path).of_id("17")


@pytest.mark.parametrize("order", ["width-height", "height-width"])
def test_what_is_written_is_read(tmp_path, order):
    images = [sample("a/1.jpg", 1), sample("a/2.jpg", 2)]
    assert write_tsv(tmp_path / "f.tsv", images, order) == 2
    table = TsvRegions(tmp_path / "f.tsv", order)
    for image in images:
        found = table.of_id(image.image_id)
        for name in ("features", "boxes", "class_probs"):
            np.testing.assert_array_equal(getattr(found, name), getattr(image.regions, name))
        assert (found.width, found.height) == (40, 30)


def test_stems(tmp_path):
    write_tsv(tmp_path / "f.tsv", [sample("a/1.jpg", 1)], stems=True)
    assert TsvRegions(tmp_path / "f.tsv").names() == ["1"]
    with pytest.raises(DataError, match="b/1.png cannot be named '1'"):
        write_tsv(tmp_path / "g.tsv", [sample("a/1.jpg", 1), sample("b/1.png", 2)], stems=True)
    assert [path.name for path in tmp_path.iterdir()] == ["f.tsv"]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (line()[:6], r"line 2: 6 columns, expected 7"),
        (line(boxes="AAA="), r"line 2, column 5: 2 bytes are no float32 table of 2 rows"),
        (line(features="no base64!"), r"line 2, column 6: not valid base64"),
        (line(probs=encode([1, 2, 3])), r"line 2, column 7: 12 bytes"),
        (line(count="two"), r"line 2: width, height and number of boxes must be numbers"),
        (line(count="0"), r"line 2: no regions"),
        (line(count="1"), r"line 2: boxes of 8 numbers"),
        (line(features=encode(np.ones((2, 4)))), r"expected \[R, 3\]"),
        (line(features=encode(np.full((2, 3), np.nan))), "not finite"),
    ],
)
def test_a_broken_line_spoils_its_own_picture(tmp_path, columns, complaint):
    table = TsvRegions(write(tmp_path / "f.tsv", line("3"), columns))
    with pytest.raises(RecordError, match=complaint):
        table.of_id("17")
    assert len(table.of_id("3")) == 2


CUT = [
    line()[:3],
    line()[:6],
    [*line()[:6], ""],
    [*line()[:6], line()[6][:-1]],
    [*line()[:6], line()[6][:-8]],
    ["17", "", *line()[2:]],
    line(features=encode(np.ones((2, 1)))),
    line(features=encode(np.full((2, 3), 3e38))),
    line(probs=encode(np.ones((2, 1)))),
    ["17"],
]


@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_of_several_lines_of_an_image_the_first_whole_one_counts(tmp_path, cut, place):
    lines = [line(), line(features=encode(np.eye(2, 3))), line("3"), line("4")]
    lines.insert(place, cut)
    table = TsvRegions(write(tmp_path / "f.tsv", *lines))
    assert (table.feature_size, table.num_classes, len(table)) == (3, 2, 3)
    np.testing.assert_array_equal(table.of_id("17").features, [[0.5, -1, 2], [7, 8, 9]])
    assert table.of_id("17").class_probs.shape == (2, 2)


@pytest.mark.parametrize("first", [*CUT, [""], ["", ""]])
def test_the_first_line_may_be_a_cut_one(tmp_path, first):
    table = TsvRegions(write(tmp_path / "f.tsv", first, line("3"), line("4")))
    assert (table.feature_size, table.num_classes) == (3, 2) and len(table.of_id("4")) == 2


def test_files_that_cannot_be_used(tmp_path):
    path = write(tmp_path / "f.tsv", line()[:5])
    with pytest.raises(DataError, match=r"f.tsv, line 1: 5 columns, expected 7.*the 10 of LXMERT"):
        TsvRegions(path)
    path.write_text("")
    with pytest.raises(DataError, match="empty"):
        TsvRegions(path)
    with pytest.raises(DataError, match="cannot read"):
        TsvRegions(tmp_path / "none.tsv")


def test_a_folder_of_files(tmp_path):
    write(tmp_path / "0.tsv", line("3"))
    write(tmp_path / "1.tsv", line("4"))
    assert len(open_store(tmp_path).of_id("4")) == 2


@pytest.mark.parametrize("side", ["inf", "nan", "1e300", "wide"])
def test_sides_and_numbers_of_boxes_that_are_none(tmp_path, side):
    wrong = [
        line(width=side),
        line("18", height=side),
        line("19", count=side, boxes="", features="", probs=""),
    ]
    table = TsvRegions(write(tmp_path / "f.tsv", line("1"), *wrong))
    for name in ("17", "18", "19"):
        with pytest.raises(RecordError, match=f"line {int(name) - 15}: width, height .* must be numbers"):
            table.of_id(name)


def test_six_columns_of_bottom_up_attention(tmp_path):
    table = TsvRegions(write(tmp_path / "f.tsv", line("3")[:6], line("17")[:6]), "height-width")
    assert (table.feature_size, table.num_classes) == (3, 0)
    path = write(tmp_path / "g.tsv", line()[:6], line("2"), line("2", features=encode(np.eye(2, 3))))
    assert TsvRegions(path).num_classes == 2  # the first line is cut
    regions = TsvRegions(write(tmp_path / "f.tsv", line()[:6])).of_id("17")
    np.testing.assert_array_equal(regions.features, [[0.5, -1, 2], [7, 8, 9]])
    assert (regions.width, regions.height, regions.class_probs) == (40, 30, None)


@pytest.mark.parametrize("order", ["width-height", "height-width"])
def test_ten_columns_of_lxmert(tmp_path, order):
    numbers = [base64.b64encode(np.array(values, "<i8").tobytes()).decode() for values in ([5, 7], [1, 2])]
    confidences = encode([0.5, 0.25])
    name, width, height, *rest = line()
    columns = [name, height, width, numbers[0], confidences, numbers[1], confidences, *rest[:3]]
    table = TsvRegions(write(tmp_path / "f.tsv", columns, columns[:9]), order)
    regions = table.of_id("17")
    assert (table.feature_size, table.num_classes, regions.width, regions.height) == (3, 1600, 40, 30)
    assert np.argwhere(regions.class_probs).tolist() == [[0, 5], [1, 7]]
    assert regions.class_probs.max(1).tolist() == [0.5, 0.25]
    assert table.num_attributes == 400
    assert table.attributes_of(Record("s", "c", image_id="17")).tolist() == [1, 2]
    np.testing.assert_array_equal(regions.boxes, [[1, 2, 3, 4], [0, 0, 40, 30]])
    found = table.image("17")
    assert found.labels.tolist() == [5, 7] and found.scores.tolist() == [0.5, 0.25]
