"""SBU and Conceptual Captions: every layout of annotations and of downloaded pictures, and what is broken."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from picture_files import jpeg, write_json, write_pictures

from unimo.data.prepare.conceptual import prepare_conceptual
from unimo.data.prepare.sbu import prepare_sbu
from unimo.data.readers.open import find_splits, open_corpus
from unimo.errors import DataError
from unimo.settings import CorpusConfig, DataConfig

ROWS = [
    ("http://static.flickr.com/2723/4385058960_b0f291553e.jpg", "a wooden chair ."),
    ("http://static.flickr.com/1/1_a.jpg", 'the "best" view'),
    ("http://static.flickr.com/2/2_b.jpg", "  "),
    ("http://static.flickr.com/1/1_a.jpg", "the same address again"),
    ("http://static.flickr.com/3/3_c.jpg", "nobody can download this ."),
    ("http://static.flickr.com/1/1_a.jpg", "the same address again"),
]
FOUND = {0: [ROWS[0][1]], 1: [ROWS[1][1], ROWS[3][1]]}
"""Number of a row -> captions of its picture."""


def vilt(row: int) -> str:
    return f"images_train/0000/{row:07d}"


def img2dataset(row: int) -> str:
    return f"00000/{row:09d}.jpg"


def address(row: int) -> str:
    return ROWS[row][0].rpartition("/")[2]


def rows_of(folder: Path, stem: str = "*") -> list[tuple[bytes, list[str], str, str]]:
    """Rows of tables: image, captions, name, split."""
    tables = [pa.ipc.open_file(str(path)).read_all() for path in sorted(folder.glob(f"{stem}.arrow"))]
    assert all(table.schema.names == ["image", "caption", "image_id", "split"] for table in tables)
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


def sbu_json(folder: Path) -> Path:
    content = {"image_urls": [row[0] for row in ROWS], "captions": [row[1] for row in ROWS], "user_ids": []}
    path = folder / "notes" / "sbu-captions-all.json"
    path.parent.mkdir()
    path.write_bytes(codecs.BOM_UTF8 + json.dumps(content).encode())
    return path


def sbu_lines(folder: Path) -> Path:
    (folder / "notes").mkdir()
    for place, name in enumerate(("urls", "captions")):
        text = "\r\n".join(row[place] for row in ROWS) + "\r\n"
        (folder / f"notes/SBU_captioned_photo_dataset_{name}.txt").write_bytes(
            codecs.BOM_UTF8 + text.encode()
        )
    return folder / "notes"


@pytest.mark.parametrize("naming", [vilt, img2dataset, address])
@pytest.mark.parametrize("annotations", [sbu_json, sbu_lines])
def test_sbu(tmp_path: Path, annotations: Any, naming: Any) -> None:
    write_pictures(tmp_path / "images", [naming(row) for row in FOUND])
    summary = prepare_sbu(annotations(tmp_path), tmp_path / "images", tmp_path / "out", rows_per_file=1)
    assert rows_of(tmp_path / "out") == [
        (jpeg(row), captions, naming(row), "train") for row, captions in FOUND.items()
    ]
    files = ["sbu_0.arrow", "sbu_1.arrow"]
    assert summary["splits"]["train"] == {"images": 2, "captions": 3, "not_downloaded": 1, "files": files}
    assert (summary["captions_empty"], summary["broken"], summary["images_missing"]) == (1, 0, 0)
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary
    data = open_corpus(CorpusConfig(str(tmp_path / "out")), "train", "pairs", DataConfig())
    assert [record.text for record in data] == sum(FOUND.values(), [])
    assert data[1].image_group == data[2].image_group != data[0].image_group


def test_later_rows_of_an_address_have_its_picture_too(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", [img2dataset(3), img2dataset(5)])
    prepare_sbu(sbu_json(tmp_path), tmp_path / "images", tmp_path / "out")
    assert rows_of(tmp_path / "out") == [(jpeg(0), FOUND[1], img2dataset(3), "train")]


def test_last_pictures_become_val(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", [vilt(row) for row in FOUND])
    source = sbu_json(tmp_path).parent
    prepare_sbu(source, tmp_path / "images", tmp_path / "out", val_images=1, rows_per_file=0)
    assert [row[1] for row in rows_of(tmp_path / "out", "sbu_train")] == [FOUND[0]]
    assert [(row[1], row[3]) for row in rows_of(tmp_path / "out", "sbu_val")] == [(FOUND[1], "val")]
    assert find_splits(CorpusConfig(str(tmp_path / "out")), "pairs", DataConfig()) == ["train", "val"]
    with pytest.raises(DataError, match="--val-images 2, and only 2 pictures are there"):
        prepare_sbu(source, tmp_path / "images", tmp_path / "out", val_images=2)


def test_lists_of_vilt(tmp_path: Path) -> None:
    """The file name alone tells the picture, whatever folder the list says."""
    names = ["images_train/0000/0000000", "images_train/0001/0001000", "images_train/0001/0001001"]
    write_pictures(tmp_path, names[:2])
    listed = [[f"/home/me/sbu/{name}", f"caption {number}"] for number, name in enumerate(names)]
    write_json(tmp_path / "annot.json", listed)
    summary = prepare_sbu(tmp_path, tmp_path, tmp_path / "out")
    expected = [(jpeg(n), [f"caption {n}"], names[n], "train") for n in (0, 1)]
    assert rows_of(tmp_path / "out") == expected and summary["splits"]["train"]["not_downloaded"] == 1
    for name in ("train", "val"):
        write_json(tmp_path / "cc" / f"{name}_annot.json", [[f"images_{name}/0000/0000000", f"of {name}"]])
        write_pictures(tmp_path / "cc", [f"images_{name}/0000/0000000"])
    prepare_conceptual(tmp_path / "cc", tmp_path / "cc", tmp_path / "cc_out")
    assert [row[1:] for row in rows_of(tmp_path / "cc_out")] == [
        ([f"of {name}"], f"images_{name}/0000/0000000", name) for name in ("train", "val")
    ]


LINES = [(f"caption {number}", f"https://x.org/{number + 1}/image.jpg") for number in range(3)]
TSV = {
    "as it is": "".join("\t".join(line) + "\n" for line in LINES),
    "header": "caption\turl\n" + "".join("\t".join(line) + "\n" for line in LINES),
    "order": "url\tcaption\r\n" + "".join("\t".join(line[::-1]) + "\r\n" for line in LINES),
    "quotes": '"caption"\t"url"\n' + "".join(f'"{text}"\t"{url}"\n' for text, url in LINES),
    "labels": "".join("\t".join([*line, "sky,sea", "/m/1,/m/2"]) + "\n" for line in LINES),
}


@pytest.mark.parametrize("form", TSV)
def test_lines_of_conceptual_captions(tmp_path: Path, form: str) -> None:
    source = tmp_path / "Train_GCC-training.tsv"
    source.write_bytes(codecs.BOM_UTF8 + TSV[form].encode())
    write_pictures(tmp_path / "images", [img2dataset(row) for row in (0, 2)])
    summary = prepare_conceptual(source, tmp_path / "images", tmp_path / "out")
    assert rows_of(tmp_path / "out") == [
        (jpeg(n), [f"caption {row}"], img2dataset(row), "train") for n, row in enumerate((0, 2))
    ]
    assert summary["splits"]["train"]["files"] == ["conceptual_caption_train_0.arrow"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('"the ""best"" view"', 'the "best" view'),
        ('"go" he said "now"', '"go" he said "now"'),
        ('the "best', 'the "best'),
        ('"', '"'),
    ],
)
def test_quotes_of_csv_files_and_of_captions(tmp_path: Path, field: str, text: str) -> None:
    (tmp_path / "train.tsv").write_text(f"{field}\thttp://x.org/a\n")
    write_pictures(tmp_path / "images", ["0.jpg"])
    prepare_conceptual(tmp_path / "train.tsv", tmp_path / "images", tmp_path / "out")
    assert rows_of(tmp_path / "out")[0][1] == [text]


def downloaded(folder: Path, names: Sequence[str], urls: Sequence[str]) -> None:
    """Pictures with the files that img2dataset puts beside them."""
    write_pictures(folder, list(names))
    for name, url in zip(names, urls, strict=True):
        stem = folder / name.removesuffix(".jpg")
        stem.with_suffix(".json").write_text(json.dumps({"url": url, "key": stem.name, "status": "success"}))
        stem.with_suffix(".txt").write_text("a caption")
    (folder / "00000.parquet").write_bytes(b"table")


def two_splits(folder: Path) -> Path:
    for name, lines in (("Train_GCC-training", LINES), ("Validation_GCC-1.1.0-Validation", LINES[2:])):
        url = "https://x.org/{}{}/image.jpg".format
        text = "".join(f"{text}\t{url(name[0], n)}\n" for n, (text, _) in enumerate(lines))
        (folder / f"{name}.tsv").write_text(text)
    return folder


def test_addresses_beside_pictures_go_before_numbers(tmp_path: Path) -> None:
    """Pictures of both splits in one folder, from shuffled lists, so that no number fits."""
    urls = ["https://x.org/V0/image.jpg", "https://x.org/T0/image.jpg", "https://x.org/T2/image.jpg"]
    names = [img2dataset(row) for row in (0, 1, 2)]
    downloaded(tmp_path / "images", names, urls)
    prepare_conceptual(two_splits(tmp_path), tmp_path / "images", tmp_path / "out")
    assert rows_of(tmp_path / "out") == [
        (jpeg(1), ["caption 0"], names[1], "train"),
        (jpeg(2), ["caption 2"], names[2], "train"),
        (jpeg(0), ["caption 2"], names[0], "val"),
    ]


def test_each_split_has_its_folder(tmp_path: Path) -> None:
    names = ["images_train/0000/0000001", "images_val/0000/0000000"]
    write_pictures(tmp_path / "images", names)
    summary = prepare_conceptual(two_splits(tmp_path), tmp_path / "images", tmp_path / "out")
    assert [(*row[1], row[2], row[3]) for row in rows_of(tmp_path / "out")] == [
        ("caption 1", names[0], "train"),
        ("caption 2", names[1], "val"),
    ]
    assert summary["images_in_two_splits"] == 0
    write_pictures(tmp_path / "images", ["training/0.jpg"])
    with pytest.raises(
        DataError, match="one subfolder with the pictures of train, found images_train, train"
    ):
        prepare_conceptual(tmp_path, tmp_path / "images", tmp_path / "out")
    write_pictures(tmp_path / "mixed", ["0.jpg", "1.jpg"])
    with pytest.raises(DataError, match="none of 3 pictures is in .*folders train and val"):
        prepare_conceptual(tmp_path, tmp_path / "mixed", tmp_path / "out")


def test_no_number_comes_from_an_address(tmp_path: Path) -> None:
    """`https://.../2.jpg` is not row 2, and two pictures of one number are told."""
    (tmp_path / "train.tsv").write_text("a\thttp://x.org/1.jpg\nb\thttp://x.org/0.jpg\n")
    write_pictures(tmp_path / "images", ["0/1.jpg"])
    prepare_conceptual(tmp_path / "train.tsv", tmp_path / "images", tmp_path / "out")
    assert [row[1] for row in rows_of(tmp_path / "out")] == [["b"]]
    write_pictures(tmp_path / "images", ["0/0001.png", "0/2.jpg"])
    with pytest.raises(
        DataError, match=r"no telling whether 0/0001.png or 0/1.jpg is of 'http://x.org/0.jpg'"
    ):
        prepare_conceptual(tmp_path / "train.tsv", tmp_path / "images", tmp_path / "out")


BROKEN_LINES = [
    b"no address",
    b"https://x.org/a\tthe wrong way round",
    b"caption \xff\thttps://x.org/a",
    b"a caption\t",
    b"a\0caption\thttps://x.org/a",
]


@pytest.mark.parametrize("line", BROKEN_LINES)
def test_broken_lines_are_counted_and_keep_their_number(tmp_path: Path, line: bytes, caplog: Any) -> None:
    source = tmp_path / "train.tsv"
    source.write_bytes(line + b"\n" + TSV["as it is"].encode() + b"\n \t https://x.org/b\n")
    write_pictures(tmp_path / "images", [f"{row}.jpg" for row in (0, 1, 2)])
    with pytest.raises(DataError, match="1 of 4 samples of .* are broken"):
        prepare_conceptual(source, tmp_path / "images", tmp_path / "out")
    caplog.clear()
    summary = prepare_conceptual(source, tmp_path / "images", tmp_path / "out", max_missing_rate=0.5)
    assert (summary["broken"], summary["captions_empty"]) == (1, 1)
    assert caplog.text.count("skipped ") == 1
    assert [row[1:3] for row in rows_of(tmp_path / "out")] == [
        (["caption 0"], "1.jpg"),
        (["caption 1"], "2.jpg"),
    ]


def test_damaged_pictures_and_notes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", [img2dataset(row) for row in (0, 1, 4)])
    (tmp_path / "images" / img2dataset(1)).write_bytes(jpeg(1)[:-200])
    (tmp_path / "images/00000/000000004.json").write_text("{")
    source = sbu_json(tmp_path)
    with pytest.raises(DataError, match="images are missing or broken in .*for example .*000000004.jpg"):
        prepare_sbu(source, tmp_path / "images", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.arrow"))
    summary = prepare_sbu(source, tmp_path / "images", tmp_path / "out", max_missing_rate=0.7)
    assert (summary["images_broken"], summary["broken"]) == (2, 0)
    assert [row[2] for row in rows_of(tmp_path / "out")] == [img2dataset(0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image_urls": ["http://x.org/a"]}, "not of SBU: expected an object with lists"),
        ({"image_urls": ["http://x.org/a"], "captions": []}, "1 addresses and 0 captions"),
        ([["a.jpg", "t", "u"], "x"], r"2 of 2 samples .* broken.*\[0\]: expected \[file, caption\]"),
        ({"image_urls": [], "captions": []}, "none of 0 pictures is in"),
    ],
)
def test_annotations_of_another_form(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(jpeg(0))
    with pytest.raises(DataError, match=message):
        prepare_sbu(write_json(tmp_path / "sbu-captions-all.json", content), tmp_path / "images", tmp_path)


def test_without_annotations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sbu-captions-all.json, SBU_captioned.*annot.json in"):
        prepare_sbu(tmp_path, tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="no Train_GCC-training.tsv"):
        prepare_conceptual(tmp_path, tmp_path, tmp_path / "out")
    (tmp_path / "cc3m.tsv").write_text(TSV["as it is"])
    with pytest.raises(DataError, match="says neither train nor validation"):
        prepare_conceptual(tmp_path, tmp_path, tmp_path / "out")


def test_a_name_that_is_not_utf8_is_a_broken_picture(tmp_path: Path) -> None:
    downloaded(tmp_path / "images", ["a/0.jpg", "b/1.jpg"], [ROWS[0][0], ROWS[1][0]])
    (tmp_path / "images/b").rename(tmp_path / "images" / b"\xff".decode("utf8", "surrogateescape"))
    source = sbu_json(tmp_path)
    summary = prepare_sbu(source, tmp_path / "images", tmp_path / "out", max_missing_rate=0.5)
    assert [row[2] for row in rows_of(tmp_path / "out")] == ["a/0.jpg"] and summary["images_broken"] == 1
