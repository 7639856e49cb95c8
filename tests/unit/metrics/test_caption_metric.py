"""Caption metrics: by hand, and equal to pycocoevalcap's on 200 human captions of Flickr8k."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unimo.errors import DataError
from unimo.metrics import caption
from unimo.metrics.caption import bleu, caption_scores, cider, rouge_l, tokenize

Flickr = dict[str, list[str]]


@pytest.fixture(scope="module")
def flickr(shared: Path) -> Flickr:
    """200 images with their five captions."""
    content = json.loads((shared / "data/flickr8k_800/dataset_flickr8k.json").read_text())
    return {
        image["filename"]: [sentence["raw"] for sentence in image["sentences"]]
        for image in content["images"][:200]
    }


def held_out(flickr: Flickr) -> tuple[list[list[str]], list[list[list[str]]]]:
    """One caption of each image as candidate, in turn, and the others as references."""
    tokens = [[tokenize(text) for text in texts] for texts in flickr.values()]
    candidates = [texts[row % len(texts)] for row, texts in enumerate(tokens)]
    references = [
        [text for place, text in enumerate(texts) if place != row % len(texts)]
        for row, texts in enumerate(tokens)
    ]
    return candidates, references


def as_rows(candidates: Any, references: Any) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and candidates in the form of pycocoevalcap: tokens joined by spaces."""
    human = {row: [" ".join(text) for text in texts] for row, texts in enumerate(references)}
    return human, {row: [" ".join(text)] for row, text in enumerate(candidates)}


def official_scores(candidates: Any, references: Any) -> dict[str, float]:
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    rows = as_rows(candidates, references)
    bleus, _ = Bleu(4).compute_score(*rows, verbose=0)
    scores = {f"bleu_{order}": 100 * value for order, value in enumerate(bleus, start=1)}
    return scores | {
        "rouge_l": 100 * Rouge().compute_score(*rows)[0],
        "cider": 100 * Cider().compute_score(*rows)[0],
    }


def test_equal_to_pycocoevalcap_on_flickr8k(flickr: Flickr):
    candidates, references = held_out(flickr)
    ours = caption_scores(
        {f"{row:03}": text for row, text in enumerate(candidates)},
        {f"{row:03}": texts for row, texts in enumerate(references)},
    )
    assert ours == pytest.approx(official_scores(candidates, references), abs=1e-6, rel=1e-8)
    assert 15 < ours["bleu_4"] < 35 and 50 < ours["cider"] < 120


def test_equal_to_pycocoevalcap_where_words_repeat_and_sentences_are_short(flickr: Flickr):
    candidates, references = held_out(flickr)
    rng = np.random.default_rng(0)
    odd = [
        [text[i] for i in rng.integers(0, len(text), rng.integers(1, 2 * len(text)))] for text in candidates
    ]
    odd[0], odd[1] = [], ["xyzzy"] * 3
    ours = caption_scores(
        {f"{row:03}": text for row, text in enumerate(odd)},
        {f"{row:03}": texts for row, texts in enumerate(references)},
    )
    assert ours == pytest.approx(official_scores(odd, references), abs=1e-6, rel=1e-8)


def test_a_caption_that_is_a_reference_scores_in_full():
    texts = [
        tokenize(text) for text in ("a dog runs on grass", "two men sit on a bench", "the red bus stops")
    ]
    assert bleu(texts, [[text] for text in texts]) == pytest.approx([1.0] * 4)
    assert rouge_l(texts, [[text] for text in texts]) == pytest.approx(1.0)
    assert cider(texts, [[text] for text in texts]) == pytest.approx(10.0)


def test_bleu_by_hand():
    candidate, reference = "the the the cat".split(), "the cat sat on the mat".split()
    values = bleu([candidate], [[reference]])
    brevity = np.exp(1 - 6 / 4)
    assert values[0] == pytest.approx(brevity * 3 / 4, rel=1e-6)
    assert values[1] == pytest.approx(brevity * (3 / 4 * 1 / 3) ** 0.5, rel=1e-6)
    # Of equally close lengths the shorter one counts, so there is no brevity penalty.
    assert bleu([candidate], [[reference, "the cat".split()]])[0] == pytest.approx(3 / 4, rel=1e-6)


def test_rouge_by_hand():
    candidate, references = "a b c d".split(), ["a x c".split(), "d a b e f g".split()]
    precision, recall = 2 / 4, 2 / 3
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l([candidate], [references]) == pytest.approx(expected)
    assert rouge_l([["z"], []], [references, references]) == 0.0


def test_missing_references_name_the_image():
    with pytest.raises(DataError, match=r"1 of 2 images have no reference captions, e\.g\. b\.jpg"):
        caption_scores({"a.jpg": ["a"], "b.jpg": ["b"]}, {"a.jpg": [["a"]], "b.jpg": []})
    assert caption_scores({}, {}) == {}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's T-shirt, they're red.", "a man 's t-shirt they 're red"),
        ("It doesn't move; the dogs' toys...", "it does n't move the dogs toys"),
        ("Two (2) people -- cannot see!", "two -lrb- 2 -rrb- people can not see"),
        ('says "stop" & waits 3.5 hours: 1,000 U.S. men', "says stop & waits 3.5 hours 1,000 u.s. men"),
        ("  ", ""),
    ],
)  # fmt: skip
def test_tokens(text: str, tokens: str):
    assert tokenize(text) == tokens.split()


needs_java = pytest.mark.skipif(caption.find_evaluation() is None, reason="no pycocoevalcap or no Java")


@needs_java
def test_own_tokens_are_nearly_always_those_of_the_stanford_tokenizer(flickr: Flickr):
    texts = [text for texts in flickr.values() for text in texts] + ["", "a\nb"]
    official = caption.ptb_tokenize(texts)
    assert len(official) == len(texts) and official[-2:] == [[], ["a", "b"]]
    same = sum(tokenize(text) == tokens for text, tokens in zip(texts, official, strict=True))
    assert same / len(texts) > 0.99


@needs_java
@pytest.mark.slow
def test_meteor_is_highest_for_the_reference_itself():
    references = {"1": [tokenize("a brown dog runs on the grass")], "2": [tokenize("two men sit on a bench")]}
    exact = caption.java_scores({key: texts[0] for key, texts in references.items()}, references)
    swapped = caption.java_scores({"1": references["2"][0], "2": references["1"][0]}, references)
    assert exact["meteor"] == pytest.approx(100.0, abs=1.0)
    assert swapped["meteor"] < 20


@pytest.mark.parametrize("has_parser", [False, True])
def test_scores_of_java_programs_are_times_100_and_spice_needs_its_parser(
    has_parser: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Stand-ins for the programs: one counts captions, one fails."""
    (tmp_path / "spice/lib").mkdir(parents=True)
    if has_parser:
        (tmp_path / "spice/lib" / caption._SPICE_NEEDS.replace("*", "")).touch()
    asked = []

    class Meteor:
        def compute_score(self, human: Any, generated: Any) -> tuple[float, list[float]]:
            asked.append((human, generated))
            return 0.25, []

    class Spice(Meteor):
        def compute_score(self, human: Any, generated: Any) -> tuple[float, list[float]]:
            raise ValueError("no Java")

    for scorer in (Meteor, Spice):
        name = scorer.__name__.lower()
        monkeypatch.setitem(
            sys.modules, f"pycocoevalcap.{name}.{name}", SimpleNamespace(**{scorer.__name__: scorer})
        )
    monkeypatch.setattr(caption, "find_evaluation", lambda: tmp_path)
    given = {1: ["a", "dog"], 2: ["cats"]}, {1: [["a", "dog"], ["dogs"]], 2: [["two", "cats"]], 3: [["no"]]}
    with caplog.at_level("INFO"):
        assert caption.java_scores(*given) == {"meteor": 25.0}
    assert asked == [({1: ["a dog", "dogs"], 2: ["two cats"]}, {1: ["a dog"], 2: ["cats"]})]
    assert ("SPICE: its Java program failed (no Java)" if has_parser else "no SPICE: ") in caplog.text
    assert caption.java_scores({}, {}) == caption.java_scores(*given, names=()) == {}
    monkeypatch.setattr(caption, "find_evaluation", lambda: None)
    assert caption.java_scores(*given) == {}


def test_what_a_metric_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spice/lib").mkdir(parents=True)
    monkeypatch.setattr(caption, "find_evaluation", lambda: None)
    for metric in ("meteor", "spice"):
        assert caption.missing_program(metric) == 'Java and pip install -c constraints.txt -e ".[caption]"'
    monkeypatch.setattr(caption, "find_evaluation", lambda: tmp_path)
    assert caption.missing_program("meteor") == ""
    assert caption.missing_program("spice") == f"stanford-corenlp-3.6.0*.jar in {tmp_path / 'spice/lib'}"
    (tmp_path / "spice/lib/stanford-corenlp-3.6.0.jar").touch()
    assert caption.missing_program("spice") == caption.missing_program("cider") == ""
