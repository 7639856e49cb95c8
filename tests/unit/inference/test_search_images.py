"""An index of images: both directions, resumed and appended, re-ranked, shown; what is refused."""

from __future__ import annotations

import html
import logging
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from micro import TOWER, saved
from micro_unimo2 import MODEL
from picture_files import write_pictures

from unimo.analysis.search_page import write_page
from unimo.errors import CapabilityError, ConfigError, DataError
from unimo.inference.search import build
from unimo.inference.search.build import Corpus, Counts, build_index
from unimo.inference.search.encoder import Encoder
from unimo.inference.search.searcher import Searcher
from unimo.tasks.base import to_tensors

NAMES = [f"{number:02d}.jpg" for number in range(7)]
TEXT = "there is a red circle ."


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("retrieval", tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def encoder(directory: Path) -> Encoder:
    return Encoder.open(directory)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    write_pictures(folder, NAMES)
    return folder


@pytest.fixture
def searcher(tmp_path: Path, pictures: Path, encoder: Encoder) -> Searcher:
    build_index(encoder, Corpus(str(pictures)), tmp_path / "index", batch_size=3)
    return Searcher(tmp_path / "index", encoder)


def plain_vectors(encoder: Encoder, files: list[Path]) -> np.ndarray:
    """Vectors of the task itself, one image at a time."""
    found = []
    for file in files:
        with paddle.no_grad():
            pixels = to_tensors(encoder.processor(images=file))["pixels"]
            found.append(encoder.task.image_vectors(encoder.task.model.encode_image(pixels)).numpy()[0])
    return np.array(found)


def test_both_directions_are_the_order_of_the_cosines(
    searcher: Searcher, encoder: Encoder, pictures: Path
) -> None:
    vectors = plain_vectors(encoder, [pictures / name for name in NAMES])
    by_text, by_image = searcher.search([TEXT, pictures / NAMES[4]], count=7)
    for hits, query in ((by_text, encoder.texts([TEXT])[0]), (by_image, vectors[4])):
        cosines = vectors @ query
        np.testing.assert_allclose([hit.cosine for hit in hits], np.sort(cosines)[::-1], atol=1e-5)
        assert [cosines[NAMES.index(hit.id)] for hit in hits] == pytest.approx(
            sorted(cosines)[::-1], abs=1e-5
        )
    assert by_image[0].id == NAMES[4]
    assert by_image[0].path == str(pictures / NAMES[4])
    assert searcher.recall([TEXT]) == 1.0


VLMO = {
    "name": "vlmo_tiny",
    "text": {"vocab_size": 300},
    "vision": {"image_size": 32, "patch_size": 8},
    "transformer": {**TOWER, "num_layers": 3, "pair_layers": 1},
}
CONTRASTED = {**MODEL, "objective": {"contrastive": True}}


@pytest.mark.parametrize(
    ("task", "model"),
    [("pretrain", VLMO), ("pretrain", CONTRASTED), ("retrieval", VLMO), ("retrieval", MODEL)],
    ids=["vlmo", "unimo2", "vlmo tuned", "unimo2 tuned"],
)
def test_every_dual_encoder_searches(
    tmp_path: Path, pictures: Path, task: str, model: dict[str, Any]
) -> None:
    encoder = Encoder.open(saved(task, tmp_path / "run", model=model))
    build_index(encoder, Corpus(str(pictures)), tmp_path / "index")
    (hits,) = Searcher(tmp_path / "index").search([pictures / NAMES[2]], count=3)
    assert (len(hits), hits[0].id) == (3, NAMES[2])
    assert hits[0].cosine == pytest.approx(1.0, abs=1e-5)


def test_stopped_and_run_again_nothing_is_lost_or_doubled(
    tmp_path: Path, pictures: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SECONDS_OF_PART", 0)
    corpus, index = Corpus(str(pictures)), tmp_path / "index"
    real, calls = Encoder.images, []

    def stopped(self: Encoder, ready: list[object]) -> np.ndarray:
        calls.append(ready)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, ready)

    monkeypatch.setattr(Encoder, "images", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_index(encoder, corpus, index, batch_size=2)
    assert len(list(Searcher(index, encoder).store.names())) == 4
    assert build_index(encoder, corpus, index, batch_size=2) == Counts(added=3, known=4, broken=0, rows=7)
    assert build_index(encoder, corpus, index) == Counts(added=0, known=7, broken=0, rows=7)
    assert [name["id"] for name in Searcher(index, encoder).store.names()] == NAMES


def test_another_folder_may_have_the_same_names(searcher: Searcher, encoder: Encoder, tmp_path: Path) -> None:
    write_pictures(tmp_path / "more", NAMES[:2])
    done = build_index(encoder, Corpus(str(tmp_path / "more")), searcher.store.folder)
    assert done == Counts(added=2, known=0, broken=0, rows=9)


def test_a_broken_picture_is_counted_and_skipped(
    tmp_path: Path, pictures: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / NAMES[3]).write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        done = build_index(encoder, Corpus(str(pictures)), tmp_path / "index")
    assert done == Counts(added=6, known=0, broken=1, rows=6)
    assert f"skipped {NAMES[3]}" in caplog.text


def test_no_picture_can_be_read(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="none of 1 images can be read"):
        build_index(encoder, Corpus(str(tmp_path / "bad")), tmp_path / "index")


def test_the_fusion_encoder_puts_the_best_into_its_order(
    searcher: Searcher, encoder: Encoder, pictures: Path
) -> None:
    (plain,) = searcher.search([TEXT], count=7)
    (hits,) = searcher.search([TEXT], count=7, rerank=4)
    assert [hit.id for hit in hits[4:]] == [hit.id for hit in plain[4:]]
    matches = []
    for hit in hits[:4]:
        batch = to_tensors(encoder.processor(images=pictures / hit.id, texts=TEXT))
        with paddle.no_grad():
            text = encoder.task.model.encode_text(batch["input_ids"], batch["attention_mask"])
            score = encoder.task.match_scores(text, encoder.task.model.encode_image(batch["pixels"]))
        matches.append(1 / (1 + np.exp(-float(score[0]))))
    assert [hit.match for hit in hits[:4]] == pytest.approx(matches, abs=1e-5)
    assert matches == sorted(matches, reverse=True)
    with pytest.raises(ConfigError, match="--rerank: .* holds images, which are matched with texts, and one"):
        searcher.search([pictures / NAMES[0]], rerank=2)


def test_an_image_that_is_gone_is_ranked_last(
    searcher: Searcher, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (plain,) = searcher.search([TEXT], count=7)
    (pictures / plain[0].id).unlink()
    with caplog.at_level(logging.WARNING):
        (hits,) = searcher.search([TEXT], count=3, rerank=3)
    assert hits[2] == plain[0] and None not in (hits[0].match, hits[1].match)
    assert f"leaves out {plain[0].id}" in caplog.text


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.txt"
    path.write_text("a dog\n\na red circle\na blue cross\na dog\n")
    return path


def test_texts_are_indexed_once_and_found_for_images_and_texts(
    tmp_path: Path, captions: Path, pictures: Path, encoder: Encoder
) -> None:
    corpus, index = Corpus(str(captions), "texts", holds="texts"), tmp_path / "texts"
    assert build_index(encoder, corpus, index) == Counts(added=3, known=0, broken=0, rows=3)
    with captions.open("ab") as file:
        file.write(b"a cat\n" + b"\xff\n")
    assert build_index(encoder, corpus, index) == Counts(added=1, known=3, broken=1, rows=4)
    searcher, picture = Searcher(index, encoder), pictures / NAMES[4]
    by_text, by_image = searcher.search(["a red circle", picture])
    assert (by_text[0].id, by_text[0].cosine) == ("a red circle", pytest.approx(1, abs=1e-5))
    texts = ["a dog", "a red circle", "a blue cross", "a cat"]
    cosines = dict(zip(texts, encoder.texts(texts) @ searcher.vectors([picture])[0], strict=True))
    assert [hit.id for hit in by_image] == sorted(texts, key=lambda text: -cosines[text])
    assert [hit.cosine for hit in by_image] == pytest.approx(sorted(cosines.values())[::-1], abs=1e-5)
    (judged,) = searcher.search([picture], rerank=4)
    with pytest.raises(ConfigError, match="holds texts, which are matched with images"):
        searcher.search(["a dog"], rerank=2)
    with pytest.raises(ConfigError, match="holds texts; build another index for images"):
        build_index(encoder, Corpus(str(pictures)), index)
    # The same pairs, asked from the other side.
    build_index(encoder, Corpus(str(picture.parent)), tmp_path / "images")
    for hit in judged:
        (found,) = Searcher(tmp_path / "images", encoder).search([hit.id], rerank=7)
        assert hit.match == pytest.approx({each.id: each.match for each in found}[NAMES[4]], abs=1e-5)
    write_page(tmp_path / "found.html", searcher, [picture], [judged])
    page = (tmp_path / "found.html").read_text()
    assert page.count("data:image/jpeg") == 1 and all(text in page for text in texts)


@pytest.mark.parametrize(("holds", "kind"), [("texts", "labels"), ("images", "texts")])
def test_a_kind_without_such_entries_is_refused(encoder: Encoder, holds: Any, kind: Any) -> None:
    with pytest.raises(ConfigError, match=f"--kind {kind}"):
        Corpus("scenes", kind, holds=holds).open(encoder)


@pytest.mark.parametrize("queries", [[], [""], [TEXT, "  "]], ids=str)
def test_an_empty_query_is_refused(searcher: Searcher, queries: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected a query, found an empty one"):
        searcher.search(queries)


def test_an_index_of_another_model_is_refused(searcher: Searcher, tmp_path: Path) -> None:
    other = Encoder.open(saved("retrieval", tmp_path / "other", seed=1))
    with pytest.raises(ConfigError, match="was made with another model"):
        Searcher(searcher.store.folder, other)


def test_a_model_without_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="pre-trained"):
        Encoder.open(saved("vqa", tmp_path / "vqa"))
    with pytest.raises(CapabilityError, match="no vectors of images and texts to search by"):
        Encoder.open(saved("pretrain", tmp_path / "unimo3"))


def test_the_page_shows_every_result(searcher: Searcher, pictures: Path, tmp_path: Path) -> None:
    queries = ["a <b> & c", pictures / NAMES[1]]
    results = searcher.search(queries, count=3)
    (pictures / results[0][0].id).unlink()
    write_page(tmp_path / "found.html", searcher, queries, results)
    page = (tmp_path / "found.html").read_text()
    assert html.escape(queries[0]) in page and "<b>" not in page
    assert page.count("<li>") == 6
    for hit in (*results[0], *results[1]):
        assert f"{hit.cosine:.3f}" in page and hit.id in page
    gone = results[0][0].id
    shown = sum(hit.id != gone for hits in results for hit in hits)
    assert page.count("data:image/jpeg") == shown + (gone != NAMES[1])
    with pytest.raises(DataError):
        searcher.source(results[0][0])
