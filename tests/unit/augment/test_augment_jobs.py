"""The three jobs from corpus to jsonl: content, resuming after a kill, shards, invalid input."""

from __future__ import annotations

import functools
import json
import os
import runpy
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unimo.augment.corpus import CaptionCorpus
from unimo.augment.embedding import open_embedder
from unimo.augment.output import Job, ResumableWriter, describe_files, one_at_a_time
from unimo.augment.retrieval_job import RetrievalSettings, retrieve_images, retrieve_texts
from unimo.augment.rewrite_job import RewriteSettings, rewrite_corpus
from unimo.augment.terms import normalise
from unimo.errors import ConfigError, DataError
from unimo.jobs import Shard
from unimo.progress import Progress

ANIMALS, PLACES = ("dog", "cat", "horse", "bird"), ("beach", "hill", "street")
COLOURS, VERBS = ("brown", "white", "gray"), ("runs on", "sits near", "walks along")


silent = functools.partial(Progress, quiet=True)


@pytest.fixture
def pairs(tmp_path: Path) -> CaptionCorpus:
    lines = []
    for animal in ANIMALS:
        for place, colour, verb in zip(PLACES, COLOURS, VERBS, strict=True):
            name = f"{animal}_{place}.jpg"
            (tmp_path / name).write_bytes(b"picture" * 50)
            texts = [
                f"A {colour} {animal} {verb} a {place} .",
                f"Two people watch a {animal} near the {place} .",
            ]
            lines.append(json.dumps({"image": name, "texts": texts}))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    return CaptionCorpus(str(tmp_path / "train.jsonl"))


def rewrite(corpus: CaptionCorpus, out: Path, shard: str = "0/1", **settings: Any) -> list[dict]:
    chosen = RewriteSettings(min_count=1, keep=20, **settings)
    rewrite_corpus(Job(corpus, out, out.parent / "work", Shard.parse(shard), silent), chosen)
    return read(out)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rewrites_of_a_corpus(pairs: CaptionCorpus, tmp_path: Path):
    lines = rewrite(pairs, tmp_path / "out" / "a.jsonl")
    own: dict[str, set[str]] = {}
    for line in lines:
        own.setdefault(line["image_id"], set()).add(normalise(line["text"]))
    assert len(lines) == len(pairs) == 24 and all(len(texts) == 2 for texts in own.values())
    for line in lines:
        for level, rows in line["negatives"].items():
            # "Two people watch a dog near the hill" has no attribute and no node of several words.
            assert rows or (level == "phrase" and "people" in line["text"]), (level, line["text"])
            assert not own[line["image_id"]] & {normalise(row["text"]) for row in rows}
    first = lines[0]["negatives"]["sentence"]
    assert [row["score"] for row in first] == sorted((row["score"] for row in first), reverse=True)


def test_a_killed_rewrite_ends_as_an_unbroken_one(pairs: CaptionCorpus, tmp_path: Path):
    out = tmp_path / "out" / "a.jsonl"
    rewrite(pairs, out)
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    rewrite(pairs, out)
    assert out.read_bytes() == whole
    rewrite(pairs, tmp_path / "again" / "a.jsonl")
    assert (tmp_path / "again" / "a.jsonl").read_bytes() == whole
    with pytest.raises(DataError, match="another job .*seed 0 there, 1 here"):
        rewrite(pairs, out, seed=1)


def test_shards_together_are_the_whole(pairs: CaptionCorpus, tmp_path: Path):
    whole = rewrite(pairs, tmp_path / "out" / "a.jsonl")
    parts = [rewrite(pairs, tmp_path / "out" / f"{rank}.jsonl", shard=f"{rank}/3") for rank in range(3)]
    assert sorted((line for part in parts for line in part), key=lambda x: x["id"]) == sorted(
        whole, key=lambda x: x["id"]
    )
    for text in ("3/3", "1", "-1/2", "a/b"):
        with pytest.raises(ConfigError, match="RANK/OF"):
            Shard.parse(text)


def test_a_translator_that_fails_keeps_what_was_done(pairs: CaptionCorpus, tmp_path: Path, monkeypatch):
    calls = []

    def fails_later(captions: list) -> list:
        calls.append(len(captions))
        if len(calls) == 2:
            raise DataError("no usable answer")
        return [[{"text": "hello", "via": "fr"}] for _ in captions]

    monkeypatch.setattr("unimo.augment.rewrite_job._open_translator", lambda *_: fails_later)
    out = tmp_path / "out" / "a.jsonl"
    with pytest.raises(DataError, match="no usable answer"):
        rewrite(pairs, out)
    assert len(read(out)) == calls[0] == 16
    lines = rewrite(pairs, out)
    assert len(lines) == 24 and calls == [16, 8, 8] and lines[-1]["positives"]


def test_empty_and_endless_captions(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"picture" * 50)
    texts = ["A dog on a hill .", "", "a red dog " * 10_000]
    rows = [json.dumps({"image": "a.jpg", "text": text}) for text in texts]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    lines = rewrite(CaptionCorpus(str(tmp_path / "train.jsonl")), tmp_path / "out" / "a.jsonl")
    assert lines[1].pop("reason").startswith(f"{tmp_path}/train.jsonl, line 2: the text is empty")
    assert lines[1] == {"id": "train:2#0", "skipped": "no readable text"}
    assert len(lines) == 3 and len(lines[2]["text"]) <= 2000
    (tmp_path / "blank.jsonl").write_text('{"image": "a.jpg", "text": " "}\n' * 3)
    with pytest.raises(DataError, match="no readable caption|too few images"):
        rewrite(CaptionCorpus(str(tmp_path / "blank.jsonl")), tmp_path / "blank" / "a.jsonl")


def test_statistics_of_another_corpus_are_refused(pairs: CaptionCorpus, tmp_path: Path):
    rewrite(pairs, tmp_path / "out" / "a.jsonl")
    (tmp_path / "other.txt").write_text("A cat .\nA dog .\n")
    with pytest.raises(DataError, match="another corpus"):
        rewrite(CaptionCorpus(str(tmp_path / "other.txt")), tmp_path / "out" / "b.jsonl")


def letters(texts: list[str]) -> np.ndarray:
    """Embed texts as counts of letters."""
    return np.array([[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts], float)


@pytest.mark.parametrize("embedder", ["lsa", f"{__name__}:letters"])
def test_related_texts(pairs: CaptionCorpus, tmp_path: Path, embedder: str, monkeypatch):
    monkeypatch.setattr("unimo.augment.retrieval_job.open_embedder", _opener(embedder))
    sentences = [f"The {a} sleeps on the {p}." for a in ANIMALS for p in PLACES] + [
        "Nothing alike",
        "a ." * 50_000,
    ]
    (tmp_path / "books.txt").write_text("\n".join([*sentences, pairs[0].text]))
    corpus = CaptionCorpus(str(tmp_path / "books.txt"))
    out, folder = tmp_path / "texts.jsonl", tmp_path / "index"
    settings = RetrievalSettings(keep=4, candidates=6, embedder=embedder)
    retrieve_texts(Job(pairs, out, folder, Shard(), silent), corpus, settings)
    lines, whole = read(out), out.read_bytes()
    assert len(lines) == 24 and all(len(line["texts"]) == 4 for line in lines)
    assert pairs[0].text not in [row["text"] for row in lines[0]["texts"]]
    scores = [row["score"] for row in lines[0]["texts"]]
    assert scores == sorted(scores, reverse=True)
    assert "dog" in lines[0]["texts"][0]["text"] or embedder != "lsa"
    out.write_bytes(whole[:700])
    (folder / "embeddings.f16").write_bytes((folder / "embeddings.f16").read_bytes()[:101])
    retrieve_texts(Job(pairs, out, folder, Shard(), silent), corpus, settings)
    assert out.read_bytes() == whole
    (tmp_path / "other.txt").write_text("A cat .\n")
    with pytest.raises(DataError, match="built from another corpus"):
        retrieve_texts(
            Job(pairs, out, folder, Shard(), silent), CaptionCorpus(str(tmp_path / "other.txt")), settings
        )


def _opener(embedder: str) -> Any:
    return open_embedder if embedder == "lsa" else lambda name, index: letters


def test_related_images_by_labels_and_by_captions(pairs: CaptionCorpus, tmp_path: Path):
    labels = tmp_path / "labels.jsonl"
    rows = [
        ("dog_beach.jpg", ["dog", "sand", "sea"]),
        ("x1", ["dog", "sand"]),
        ("x2", ["sea"]),
        ("x3", ["sofa"]),
    ]
    rows = [{"image_id": image, "labels": found} for image, found in rows]
    image = pairs[0].image_id
    rows[0]["image_id"] = image
    labels.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "images.jsonl"
    retrieve_images(Job(pairs, out, tmp_path / "a", Shard(), silent), labels, RetrievalSettings())
    first = read(out)[0]
    assert first["image_id"] == image and first["labels"] == ["dog", "sand", "sea"]
    assert [row["image_id"] for row in first["images"]] == ["x1", "x2"]
    out = tmp_path / "by_captions.jsonl"
    retrieve_images(Job(pairs, out, tmp_path / "b", Shard(), silent), pairs, RetrievalSettings(keep=3))
    lines = read(out)
    assert all(line["image_id"] not in [row["image_id"] for row in line["images"]] for line in lines)
    assert "dog" in lines[0]["images"][0]["image_id"]
    labels.write_text('{"image_id": "x1", "labels": "dog"}\n')
    with pytest.raises(DataError, match=r"labels.jsonl, line 1"):
        retrieve_images(
            Job(pairs, tmp_path / "c.jsonl", tmp_path / "c", Shard(), silent), labels, RetrievalSettings()
        )


def test_the_tool_runs_a_job(root: Path, pairs: CaptionCorpus, tmp_path: Path, capsys):
    main = runpy.run_path(str(root / "tools" / "augment_corpus.py"))["main"]
    words = [
        "--captions",
        pairs.path,
        "--out",
        str(tmp_path / "o.jsonl"),
        "--work",
        str(tmp_path / "w"),
        "--quiet",
    ]
    main(["rewrite", *words, "--min-count", "1"])
    assert json.loads(capsys.readouterr().out) == {"samples": 24, "with_objects": 24, "broken": 0}
    assert len(read(tmp_path / "o.jsonl")) == 24


def test_ranks_of_the_launcher_take_their_shares_into_files_of_their_own(
    root: Path, pairs: CaptionCorpus, tmp_path: Path
):
    """Two processes start at once: one prepares, the other waits."""
    command = [sys.executable, str(root / "tools" / "augment_corpus.py"), "rewrite", "--min-count", "1"]
    command += ["--keep", "20", "--captions", pairs.path, "--work", str(tmp_path / "other"), "--out"]
    whole = rewrite(pairs, tmp_path / "whole.jsonl")
    ranks = [
        subprocess.Popen(
            [*command, str(tmp_path / "part.jsonl")],
            env=os.environ | {"PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": "2"},
            stdout=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    said = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0] and [bool(text) for text in said] == [True, False]
    parts = [read(tmp_path / f"part-{rank}-of-2.jsonl") for rank in range(2)]
    assert [part[0] for part in parts] == whole[:2] and sum(map(len, parts)) == len(whole)
    assert Shard.of_rank({}) == Shard() and Shard().file(Path("a.jsonl")) == Path("a.jsonl")


def test_two_processes_do_not_write_one_file(tmp_path: Path):
    with ResumableWriter(tmp_path / "a.jsonl", {"job": 1}) as writer:
        writer.write({"id": "a"})
        with pytest.raises(DataError, match="another process is writing"):
            ResumableWriter(tmp_path / "a.jsonl", {"job": 1})
    with ResumableWriter(tmp_path / "a.jsonl", {"job": 1}) as writer:
        assert writer.done == 1


def test_one_at_a_time(tmp_path: Path):
    order = []

    def work(name: str) -> None:
        with one_at_a_time(tmp_path / "new"):
            order.append(name)
            time.sleep(0.05)
            order.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order[0::2] == order[1::2] and sorted(order[::2]) == ["a", "b", "c"]


def test_positives_are_no_captions_of_the_image_and_their_words_do_not_come_in(
    pairs: CaptionCorpus, tmp_path: Path
):
    first, second = pairs[0], pairs[1]
    assert first.image_id == second.image_id
    told = [("A brown hound runs on a hill .", "fr"), (second.text, "es"), (first.text.lower(), "zh")]
    ready = tmp_path / "ready.jsonl"
    ready.write_text(
        "".join(json.dumps({"id": first.sample_id, "text": t, "via": v}) + "\n" for t, v in told)
    )
    plain = rewrite(pairs, tmp_path / "plain" / "a.jsonl")[0]["negatives"]
    line = rewrite(pairs, tmp_path / "out" / "a.jsonl", translator=str(ready))[0]
    assert line["positives"] == [{"text": told[0][0], "via": "fr"}]
    new = {change[2] for row in line["negatives"]["word"] for change in row["changes"]}
    assert "hill" not in new and "hill" in {change[2] for row in plain["word"] for change in row["changes"]}


def test_texts_with_half_a_character_are_skipped(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"picture" * 50)
    lines = [{"image": "a.jpg", "text": "A dog \ud83d on a hill ."}, {"image": "a.jpg", "text": "A cat ."}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus = CaptionCorpus(str(tmp_path / "train.jsonl"))
    broken, whole = rewrite(corpus, tmp_path / "out" / "a.jsonl")
    assert broken["skipped"] == "no readable text" and whole["text"] == "A cat ."
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps({"image_id": "x", "labels": ["cat", "odd \ud83d"]}))
    out = tmp_path / "images.jsonl"
    retrieve_images(Job(corpus, out, tmp_path / "i", Shard(), silent), labels, RetrievalSettings())
    broken, whole = read(out)
    assert "skipped" in broken and [row["image_id"] for row in whole["images"]] == ["x"]


def test_shards_with_one_out_are_files_of_their_own(root: Path, pairs: CaptionCorpus, tmp_path: Path):
    main = runpy.run_path(str(root / "tools" / "augment_corpus.py"))["main"]
    words = ["retrieve-images", "--captions", pairs.path, "--work", str(tmp_path / "w"), "--quiet"]
    for shard in ("0/2", "1/2", "1/2"):
        main([*words, "--out", str(tmp_path / "o.jsonl"), "--shard", shard])
    assert [len(read(tmp_path / f"o-{rank}-of-2.jsonl")) for rank in range(2)] == [12, 12]
    assert not (tmp_path / "o.jsonl").exists()


def test_another_content_of_the_translations_is_another_job(pairs: CaptionCorpus, tmp_path: Path):
    ready = tmp_path / "ready.jsonl"
    ready.write_text(json.dumps({"id": pairs[0].sample_id, "text": "A hound ."}))
    rewrite(pairs, tmp_path / "out" / "a.jsonl", translator=str(ready))
    ready.write_text(json.dumps({"id": pairs[0].sample_id, "text": "A pup ."}))
    with pytest.raises(DataError, match="holds the work of another job .*translations"):
        rewrite(pairs, tmp_path / "out" / "a.jsonl", translator=str(ready))


def test_files_are_told_apart(tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.bin").write_bytes(b"one")
    before = describe_files(tmp_path / "m")
    assert before == describe_files(tmp_path / "m") and before.startswith("m, 3 bytes")
    os.utime(tmp_path / "m" / "model.bin", ns=(1, 1))
    assert describe_files(tmp_path / "m") != before != describe_files(tmp_path / "m" / "model.bin")
    with pytest.raises(DataError, match="cannot read .*none"):
        describe_files(tmp_path / "none")


def test_other_images_are_another_corpus(tmp_path: Path):
    found = []
    for image in ("a.jpg", "b.jpg"):
        (tmp_path / image).write_bytes(b"picture" * 50)
        (tmp_path / "train.jsonl").write_text(json.dumps({"image": image, "text": "A dog ."}))
        found.append(CaptionCorpus(str(tmp_path / "train.jsonl")).fingerprint())
    assert found[0] != found[1]


@pytest.mark.parametrize("how", [Path.unlink, lambda path: path.rename(path.with_name("b.jsonl"))])
def test_an_output_that_goes_away_is_an_error(tmp_path: Path, how: Any):
    with pytest.raises(DataError, match="a.jsonl was removed or moved while it was written"):
        with ResumableWriter(tmp_path / "a.jsonl", {"job": 1}) as writer:
            writer.write({"line": 1})
            how(tmp_path / "a.jsonl")
