"""Invalid input of the jobs is reported before anything is counted or indexed."""

from __future__ import annotations

import functools
import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from unimo.augment.corpus import CaptionCorpus
from unimo.augment.output import Job
from unimo.augment.parsers import open_parser
from unimo.augment.retrieval_job import RetrievalSettings, retrieve_images, retrieve_texts
from unimo.augment.rewrite_job import RewriteSettings, rewrite_corpus
from unimo.augment.statistics import CorpusStatistics
from unimo.errors import ConfigError, DataError
from unimo.jobs import Shard
from unimo.progress import Progress

TEXTS = (
    "A brown dog runs on a hill at noon .",
    "A white cat sits near a beach at noon .",
    "A gray horse walks along a street at noon .",
)


silent = functools.partial(Progress, quiet=True)


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """Write a jsonl file of texts alone."""
    return write_rows(tmp_path / "t.jsonl", [{"text": text} for text in TEXTS])


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"picture" * 50)
    rows = [{"image": f"{number}.jpg", "text": text} for number, text in enumerate(TEXTS)]
    return write_rows(tmp_path / "train.jsonl", rows)


@pytest.fixture
def tool(root: Path, tmp_path: Path) -> Callable[..., None]:
    main = runpy.run_path(str(root / "tools" / "augment_corpus.py"))["main"]

    def run(job: str, captions: str, *words: str) -> None:
        places = ["--out", str(tmp_path / "o.jsonl"), "--work", str(tmp_path / "w")]
        main([job, "--captions", captions, *places, "--quiet", *words])

    return run


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (RewriteSettings, "keep", -1),
        (RewriteSettings, "keep", 0),
        (RewriteSettings, "neighbours", -3),
        (RewriteSettings, "min_count", 0),
        (RewriteSettings, "seed", -1),
        (RewriteSettings, "seed", 2**32),
        (RewriteSettings, "memory_mb", 0),
        (RetrievalSettings, "candidates", 0),
        (RetrievalSettings, "keep", 0),
        (RetrievalSettings, "memory_mb", -5),
    ],
)
def test_numbers_out_of_range_are_refused(kind: type, name: str, value: int):
    with pytest.raises(ConfigError, match=f"^{name} {value}: expected .*; try [0-9]+"):
        kind(**{name: value})


@pytest.mark.parametrize(("neighbours", "seed"), [(0, 0), (10**9, 2**32 - 1)])
def test_the_ends_of_the_ranges_work(pairs: str, tmp_path: Path, neighbours: int, seed: int):
    settings = RewriteSettings(keep=1, neighbours=neighbours, min_count=1, seed=seed, memory_mb=1)
    out = tmp_path / "o.jsonl"
    rewrite_corpus(Job(CaptionCorpus(pairs), out, tmp_path / "w", Shard(), silent), settings)
    found = [line["negatives"] for line in read(out)]
    assert len(found) == 3 and all(len(levels["sentence"]) == 1 for levels in found)
    assert any(levels["word"] for levels in found) == (neighbours > 0)


def test_the_tool_checks_numbers_before_it_writes(tool: Callable[..., None], pairs: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="--neighbours -3: expected 0 or more; see"):
        tool("rewrite", pairs, "--neighbours", "-3")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("job", ["rewrite", "retrieve-text", "retrieve-images"])
def test_places_where_nothing_can_be_written(tool: Callable[..., None], pairs: str, tmp_path: Path, job: str):
    more = ["--corpus", pairs] if job == "retrieve-text" else []
    (tmp_path / "file").write_text("mine")
    (tmp_path / "aug").mkdir()
    with pytest.raises(ConfigError, match="file is a file; expected a folder"):
        tool(job, pairs, *more, "--work", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot make the folder .*file/in"):
        tool(job, pairs, *more, "--work", str(tmp_path / "file" / "in"))
    with pytest.raises(ConfigError, match="output .*aug is a folder; expected a file .*aug/augmented.jsonl"):
        tool(job, pairs, *more, "--out", str(tmp_path / "aug"))
    with pytest.raises(ConfigError, match="cannot make the folder .*file/in"):
        tool(job, pairs, *more, "--out", str(tmp_path / "file" / "in" / "o.jsonl"))
    assert not (tmp_path / "w").exists() and not list((tmp_path / "aug").iterdir())


def test_a_store_of_regions_is_a_collection(tool: Callable[..., None], pairs: str, tmp_path: Path):
    store = tmp_path / "regions"
    store.mkdir()
    with pytest.raises(DataError, match="collection .*regions is a folder without labels.jsonl; expected"):
        tool("retrieve-images", pairs, "--collection", str(store))
    write_rows(store / "labels.jsonl", [{"image_id": str(at), "labels": ["dog"]} for at in range(3)])
    tool("retrieve-images", pairs, "--collection", str(store))
    assert [row["image_id"] for row in read(tmp_path / "o.jsonl")[0]["images"]] == ["1", "2"]
    # The file itself is the same collection: the job is already done.
    tool("retrieve-images", pairs, "--collection", str(store / "labels.jsonl"))


def test_jsonl_without_images_is_read_as_texts(tool: Callable[..., None], texts: str, tmp_path: Path):
    assert CaptionCorpus(texts).kind == "texts"
    tool("rewrite", texts, "--min-count", "1")
    assert [line["text"] for line in read(tmp_path / "o.jsonl")] == list(TEXTS)
    work = str(tmp_path / "books")
    tool("retrieve-text", texts, "--corpus", texts, "--work", work, "--out", str(tmp_path / "r.jsonl"))
    assert all(line["texts"] for line in read(tmp_path / "r.jsonl"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"caption": "A dog ."}', "texts"),
        ('\nbroken\n{"texts": ["A dog ."], "image": null}', "texts"),
        ('{"image": "0.jpg", "text": "A dog ."}\n{"text": "A cat ."}', "pairs"),
        # Captions of one image belong together: texts alone would lose that.
        ('{"image_id": "7", "text": "A dog ."}', "pairs"),
        ('{"sentence": "A dog ."}', "pairs"),
    ],
)
def test_the_first_record_tells_the_kind(tmp_path: Path, content: str, kind: str):
    (tmp_path / "0.jpg").write_bytes(b"picture" * 50)
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (tmp_path / "a.jsonl", folder / "a.jsonl"):
        place.write_text(content)
    (folder / "0.jpg").write_bytes(b"picture" * 50)
    (folder / "notes.txt").write_text("jsonl is read before this")
    opened = [CaptionCorpus(str(path)) for path in (tmp_path / "a.jsonl", folder, folder / "*.jsonl")]
    assert [corpus.kind for corpus in opened] == [kind] * 3


def test_after_a_wrong_kind_the_corrected_command_works_in_the_same_place(
    tool: Callable[..., None], texts: str, pairs: str, tmp_path: Path
):
    with pytest.raises(DataError, match="3 of 3 samples .*for texts without images give --kind texts"):
        tool("rewrite", texts, "--kind", "pairs")
    tool("rewrite", texts, "--kind", "texts", "--min-count", "1")
    again = ["--work", str(tmp_path / "books"), "--out", str(tmp_path / "r.jsonl"), "--corpus", texts]
    with pytest.raises(DataError, match="for texts without images give --corpus-kind texts"):
        tool("retrieve-text", pairs, *again, "--corpus-kind", "pairs")
    tool("retrieve-text", pairs, *again, "--corpus-kind", "texts")
    assert len(read(tmp_path / "r.jsonl")) == 3


def test_files_that_do_not_fit_a_kind_name_the_option(tmp_path: Path):
    (tmp_path / "books.txt").write_text("A dog .\n")
    with pytest.raises(DataError, match="opened as pairs and looks like texts: give --corpus-kind texts"):
        CaptionCorpus(str(tmp_path / "books.txt"), kind="pairs", option="--corpus-kind")
    with pytest.raises(DataError, match="no data at") as caught:
        CaptionCorpus(str(tmp_path / "none.txt"), kind="pairs", option="--corpus-kind")
    assert "--corpus-kind" not in str(caught.value)


def test_too_many_broken_samples_stop_every_job_at_once(tmp_path: Path, pairs: str):
    rows = [{"image": "0.jpg", "text": "A dog ."}] + [{"image": "0.jpg", "text": " "}] * 2
    broken, whole = CaptionCorpus(write_rows(tmp_path / "b.jsonl", rows)), CaptionCorpus(pairs)
    out, work, settings = tmp_path / "o" / "a.jsonl", tmp_path / "w", RetrievalSettings()
    jobs = [
        lambda: rewrite_corpus(Job(broken, out, work, Shard(), silent), RewriteSettings()),
        lambda: retrieve_texts(Job(broken, out, work, Shard(), silent), whole, settings),
        lambda: retrieve_texts(Job(whole, out, work, Shard(), silent), broken, settings),
        lambda: retrieve_images(Job(broken, out, work, Shard(), silent), whole, settings),
        lambda: retrieve_images(Job(whole, out, work, Shard(), silent), broken, settings),
    ]
    for job in jobs:
        with pytest.raises(DataError, match=r"b.jsonl: 2 of 3 samples .*the first: .*b.jsonl, line 2"):
            job()
    assert not work.exists() and not list(out.parent.iterdir())


def test_a_broken_label_file_can_be_mended(tool: Callable[..., None], pairs: str, tmp_path: Path):
    labels = tmp_path / "labels.jsonl"
    lines = ['{"image_id": 1}\n']
    lines += [json.dumps({"image_id": value, "labels": ["dog"]}) for value in (None, True, ["x"], "", 0.5)]
    lines += [json.dumps({"image_id": "x", "labels": value}) for value in (None, "dog", [None], [5])]
    for content, said in (("", "nothing to index"), *((line, "labels.jsonl, line 1") for line in lines)):
        labels.write_text(content)
        with pytest.raises(DataError, match=said):
            tool("retrieve-images", pairs, "--collection", str(labels))
    write_rows(labels, [{"image_id": "x", "labels": ["dog"]}])
    tool("retrieve-images", pairs, "--collection", str(labels))
    assert [row["image_id"] for row in read(tmp_path / "o.jsonl")[0]["images"]] == ["x"]


def test_counts_of_nothing_are_not_kept(tmp_path: Path, texts: str):
    corpus = CaptionCorpus(texts, kind="pairs")
    statistics, file = CorpusStatistics(1), tmp_path / "statistics.npz"
    with pytest.raises(DataError, match="no readable caption"):
        statistics.collect(corpus, open_parser("textblob"), file, {}, lambda n: None)
    assert statistics.broken == 3 and not file.exists()
