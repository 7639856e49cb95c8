"""Scene graphs of captions: rules on invented captions, and scores on 60 annotated captions of Flickr8k."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from scene_graphs import pairs, triples

from unimo.augment.parsers import open_parser
from unimo.data.masking import tagging
from unimo.errors import CapabilityError

ROOT = Path(__file__).resolve().parents[3]
CAPTIONS = ROOT / "../shared/data/flickr8k_800/dataset_flickr8k.json"


def test_objects_attributes_and_relations():
    text = "A brown dog jumps over two red hurdles while a woman holding a leash watches ."
    graph = open_parser()(text)
    assert [node.text for node in graph.objects] == ["dog", "hurdles", "woman", "leash"]
    assert pairs(graph) == [("dog", "brown"), ("hurdles", "red")]
    assert triples(graph) == [("dog", "jumps over", "hurdles"), ("woman", "holding", "leash")]
    for node in graph.nodes():
        assert text[node.start : node.end].lower() == node.text
    assert {node.form for _, node, _ in graph.relations} == {"VBZ+IN", "VBG"}


def test_joined_attributes_and_objects_are_distributed():
    graph = open_parser()("A black and white cat in a hat and a scarf sits next to a swimming pool .")
    assert pairs(graph) == [("cat", "black"), ("cat", "white")]
    assert triples(graph) == [
        ("cat", "in", "hat"),
        ("cat", "in", "scarf"),
        ("cat", "sits next to", "swimming pool"),
    ]
    shared = [node for _, node, _ in graph.relations][:2]
    assert shared[0] == shared[1] and len(graph.nodes()) == 4 + 2 + 2


@pytest.mark.parametrize("text", ["", "   ", "...", "!?", "♥"])
def test_texts_without_words_have_no_graph(text: str):
    assert open_parser()(text).nodes() == []


@pytest.mark.parametrize("text", ["A man stands next to", "Next to", "a dog in front of"])
def test_captions_may_break_off_within_a_long_preposition(text: str):
    assert open_parser()(text).relations == ()


def test_only_the_beginning_of_an_endless_sentence_is_read():
    graph = open_parser()("a red dog on a hill " * 5000)
    assert 0 < graph.objects[-1].end <= tagging.MAX_CHARACTERS
    assert tagging.clip_text("x" * 100_000) == "x" * tagging.MAX_CHARACTERS


def test_unknown_and_missing_parsers_are_named():
    with pytest.raises(CapabilityError, match="no parser 'pattern'"):
        open_parser("pattern")
    with pytest.raises(CapabilityError, match="spaCy pipeline 'no_such'"):
        open_parser("spacy:no_such")


def test_spacy_gives_the_tags_where_it_is_present(monkeypatch: pytest.MonkeyPatch):
    tags = {"a": "DT", "wug": "NN", "blicks": "VBZ", "daxes": "NNS"}
    spacy, tokens = ModuleType("spacy"), ModuleType("spacy.tokens")
    tokens.Doc = lambda vocab, words: words
    spacy.load = lambda name: Pipeline()

    class Pipeline:
        vocab = None

        def __call__(self, words: list[str]) -> list[SimpleNamespace]:
            return [SimpleNamespace(tag_=tags[word]) for word in words]

    monkeypatch.setitem(sys.modules, "spacy", spacy)
    monkeypatch.setitem(sys.modules, "spacy.tokens", tokens)
    assert triples(open_parser("spacy:stand_in")("A wug blicks daxes")) == [("wug", "blicks", "daxes")]


def test_precision_and_recall_on_annotated_captions():
    """A development set, annotated by the author of the rules before it ran: docs/results/augment.md."""
    if not CAPTIONS.is_file():
        pytest.skip("no ../shared")
    images = json.loads(CAPTIONS.read_bytes())["images"]
    raw = {sentence["sentid"]: sentence["raw"] for image in images for sentence in image["sentences"]}
    parse = open_parser()
    counts = {kind: [0, 0, 0] for kind in ("objects", "attributes", "relations")}
    lines = (ROOT / "tests/assets/scene_graphs.jsonl").read_text(encoding="utf8").splitlines()
    assert len(lines) == 60
    for line in lines:
        wanted = json.loads(line)
        text = raw[wanted["sentid"]]
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == wanted["sha256"]
        graph = parse(text)
        found = {
            "objects": {node.text for node in graph.objects},
            "attributes": set(pairs(graph)),
            "relations": set(triples(graph)),
        }
        for kind, parts in counts.items():
            truth = {item if isinstance(item, str) else tuple(item) for item in wanted[kind]}
            parts[0] += len(truth & found[kind])
            parts[1] += len(found[kind])
            parts[2] += len(truth)
    score = {kind: (both / found, both / truth) for kind, (both, found, truth) in counts.items()}
    assert min(score["objects"]) > 0.88, score
    assert min(score["attributes"]) > 0.88, score
    assert min(score["relations"]) > 0.64, score
