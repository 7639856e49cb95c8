"""Rewrites: allowed replacements, their positions, and their order."""

from __future__ import annotations

import numpy as np
import pytest

from unimo.augment.ngram import TrigramCounter, TrigramModel
from unimo.augment.parsers import open_parser
from unimo.augment.rewriting import Rewriter, replace_nodes
from unimo.augment.scene_graph import Node
from unimo.augment.terms import normalise, stems
from unimo.augment.vocabulary import Vocabulary, VocabularyCounter
from unimo.data.masking.tagging import split_words

COLOURS, ANIMALS, VERBS = ("brown", "white", "orange"), ("dog", "cat", "elephant"), ("jumps over", "sits on")
CORPUS = [
    f"A {colour} {animal} {verb} a {thing} ."
    for colour in COLOURS
    for animal in ANIMALS
    for verb in VERBS
    for thing in ("bench", "tennis ball")
]


@pytest.fixture(scope="module")
def statistics() -> tuple[Vocabulary, TrigramModel]:
    parse, entries, trigrams = open_parser(), VocabularyCounter(10_000), TrigramCounter(10_000)
    for text in CORPUS:
        entries.add(parse(text), text)
        trigrams.add(split_words(text))
    trigrams.trigrams.settle()
    model = TrigramModel(trigrams)
    return entries.finish(min_count=2, neighbours=10, seed=0), model


def rewriter(statistics: tuple[Vocabulary, TrigramModel], **settings: int) -> Rewriter:
    return Rewriter(open_parser(), *statistics, **settings)


def test_entries_in_the_same_places_are_similar(statistics):
    vocabulary = statistics[0]
    assert set(vocabulary.similar("object", "NN", "dog")[:2]) == {"cat", "elephant"}
    assert vocabulary.similar("attribute", "JJ", "brown")[0] in ("white", "orange")
    assert vocabulary.similar("relation", "VBZ+IN", "sits on") == ["jumps over"]
    assert vocabulary.similar("object", "NNS", "dog") == []


def test_levels_and_order(statistics):
    found = rewriter(statistics).rewrite(CORPUS[0], "1")
    assert {one.level for one in found} == {"word", "phrase"}
    assert [one.fluency for one in found] == sorted((one.fluency for one in found), reverse=True)
    by_text = {one.text: one for one in found}
    assert by_text["A brown cat jumps over a bench ."].level == "word"
    joint = by_text["An orange elephant jumps over a bench ."]
    assert joint.level == "phrase"
    assert joint.changes == (("attribute", "brown", "orange"), ("object", "dog", "elephant"))
    assert by_text["A brown dog sits on a bench ."].changes == (("relation", "jumps over", "sits on"),)


def test_no_rewrite_is_a_caption_of_the_image_or_uses_its_words(statistics):
    others = ["a white dog sits on a bench", "The CAT"]
    found = rewriter(statistics).rewrite(CORPUS[0], "1", others)
    keys = [normalise(one.text) for one in found]
    assert found and len(set(keys)) == len(keys)
    assert not {normalise(text) for text in (CORPUS[0], *others)} & set(keys)
    assert not any({"cat", "white", "sits"} & set(key.split()) for key in keys)


def test_the_draw_follows_seed_and_sample(statistics):
    def texts(sample: str, seed: int) -> list[str]:
        few = rewriter(statistics, max_candidates=6, seed=seed)
        return [one.text for one in few.rewrite(CORPUS[0], sample)]

    assert texts("a", 1) == texts("a", 1) and len(texts("a", 1)) <= 6
    assert len({tuple(texts("a", seed)) for seed in range(6)}) > 1
    assert len({tuple(texts(sample, 1)) for sample in "abcdef"}) > 1
    assert len(rewriter(statistics, keep=3).rewrite(CORPUS[0], "a")) == 3


@pytest.mark.parametrize("text", ["", "...", "Zzyzx"])
def test_captions_without_known_nodes_have_no_rewrites(statistics, text: str):
    assert rewriter(statistics).rewrite(text, "1") == []


def test_articles_and_capitals_follow():
    dog = Node("object", "dog", "NN", 2, 5)
    assert replace_nodes("A dog runs", ((dog, "elephant"),)) == "An elephant runs"
    first = Node("object", "dogs", "NNS", 0, 4)
    assert replace_nodes("Dogs run", ((first, "cats"),)) == "Cats run"


def test_a_vocabulary_without_contexts_has_no_neighbours():
    parse, counter = open_parser(), VocabularyCounter(100)
    counter.add(parse("dog"), "dog")
    vocabulary = counter.finish(min_count=1, neighbours=5, seed=0)
    assert vocabulary.similar("object", "NN", "dog") == [] and np.all(vocabulary.counts == 1)


@pytest.mark.parametrize(
    ("text", "similar", "others"),
    [("A dog jumps over a log .", "runs over", "it was running ."),
     ("A man plays with a soccer ball .", "tennis racket", "two tennis players ."),
     ("A dark woman sits on a bench .", "blonde", "a blond lady ."),
     ("A brown dog sits on a bench .", "grey", "a gray puppy ."),
     ("A man sits on a bench .", "woman", "Two women wait ."),
     ("A tennis ball lies on a bench .", "balls", "it is green ."),
     ("A dog sits on a bench .", "sits in", "nothing ."),
     ("A woman sits on a bench .", "harbor", "Boats in harbours .")],
)  # fmt: skip
def test_no_word_comes_in_whose_stem_a_caption_has(statistics, text: str, similar: str, others: str):
    """All nodes are similar to one entry, which only an unrelated caption allows."""

    class Similar:
        def similar(self, kind: str, form: str, text: str) -> list[str]:
            return [similar]

    one = Rewriter(open_parser(), Similar(), statistics[1])
    assert one.rewrite(text, "1", [others]) == []
    assert one.rewrite("A boy eats an apple .", "1", ["He is happy ."])


def test_stems_are_equal_for_forms_and_spellings():
    assert stems("Blonde women ran to the coloured theatres") == stems("a blond woman runs , colors theater")
    assert stems("a dog") != stems("a cat") and stems("on the ...") == frozenset()
