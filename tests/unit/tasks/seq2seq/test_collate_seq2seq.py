"""Sequences of text generation: columns, positions, roles and turns as in the release, and its GPT-2 ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unimo.data.processor import Processor, ProcessorConfig
from unimo.data.readers.generation import GenerationRecord
from unimo.data.scenes.language import describe, questions
from unimo.data.scenes.scene import make_scene
from unimo.data.scenes.texts import SceneWriting, questions_by_answer
from unimo.data.tokenizers import Tokenizer, load_tokenizer
from unimo.errors import ConfigError, RecordError
from unimo.settings import ScenesConfig
from unimo.tasks.seq2seq.batches import Seq2SeqCollator, gpt2_entries
from unimo.tasks.seq2seq.config import Seq2SeqConfig

BOS, PAD, EOS = 0, 1, 2


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return load_tokenizer("scenes")


def record(*sources: str, references: tuple[str, ...] = ("yes",), **more: Any) -> GenerationRecord:
    return GenerationRecord("s:1", "test", sources=sources, references=references, **more)


def batch_of(
    tokenizer: Tokenizer, *records: GenerationRecord, train: bool = True, most: int = 20, **layout: Any
):
    processor = Processor(tokenizer, ProcessorConfig(max_text_len=most))
    collator = Seq2SeqCollator(processor, Seq2SeqConfig(**layout), train)
    rng = np.random.default_rng(0)
    return collator.collate([collator.prepare(one, rng) for one in records], rng)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.backend.encode(text).ids


def test_each_column_ends_and_counts_from_three(words: Tokenizer) -> None:
    batch = batch_of(words, record("red circle", "blue"), record("is it red ?"))
    first = [BOS, *ids(words, "red circle"), EOS, *ids(words, "blue"), EOS]
    second = [BOS, *ids(words, "is it red ?"), EOS]
    assert batch.source_ids.tolist() == [first, second]
    assert batch.source_positions.tolist() == [[2, 3, 4, 5, 3, 4], [2, 3, 4, 5, 6, 7]]
    assert batch.source_mask.all() and batch.source_roles is None
    (short,) = batch_of(words, record("red")).source_positions.tolist()
    assert short == [2, 3, 4]
    padded = batch_of(words, record("red"), record("red circle"))
    assert padded.source_ids[0, -1] == PAD and padded.source_positions[0].tolist() == [2, 3, 4, 1]
    assert padded.source_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_targets_predict_the_next_token_and_end(words: Tokenizer) -> None:
    batch = batch_of(words, record("red", references=("red circle",)), record("red"))
    red, circle = ids(words, "red circle")
    (yes,) = ids(words, "yes")
    assert batch.input_ids.tolist() == [[BOS, red, circle], [BOS, yes, PAD]]
    assert batch.target_positions.tolist() == [0, 1, 2, 3, 4]
    assert batch.target_labels.tolist() == [red, circle, EOS, yes, EOS]
    masked = batch_of(words, record("red"), end_token="mask")
    assert masked.target_labels.tolist() == [yes, words.mask_token_id]


def test_what_is_too_long_is_cut_as_in_the_release(words: Tokenizer) -> None:
    long = "red blue green black white"
    batch = batch_of(words, record(long, long, references=(long,)), most=5, max_target_len=4)
    kept = [*ids(words, "red blue green"), EOS]  # a column has 4 ids, its end among them
    assert batch.source_ids.tolist() == [[BOS, *kept, *kept]]
    assert batch.target_labels.tolist() == ids(words, "red blue green")  # and does not end
    whole = batch_of(words, record("red", references=("red blue",)), max_target_len=4)
    assert whole.target_labels.tolist() == [*ids(words, "red blue"), EOS]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_roles_and_turns_of_dialogs(words: Tokenizer, count: int) -> None:
    turns = ["is it red ?", "no", "blue ?", "yes"][:count]
    batch = batch_of(words, record(*turns, knowledge="the circle is blue"), dialog=True)
    rows = [(BOS, 2, count % 2, count)]
    rows += [(t, 3 + i, 2, 0) for i, t in enumerate([*ids(words, "the circle is blue"), EOS])]
    role = count % 2
    for turn, text in zip(range(count, 0, -1), turns, strict=True):
        rows += [(t, 3 + i, role, turn) for i, t in enumerate([*ids(words, text), EOS])]
        role = 1 - role
    assert role == 0  # so the newest turn had role 1
    keys = ("source_ids", "source_positions", "source_roles", "source_turns")
    assert [getattr(batch, key)[0].tolist() for key in keys] == [
        list(column) for column in zip(*rows, strict=True)
    ]


def test_only_the_newest_turns_are_read(words: Tokenizer) -> None:
    turns = [color for color in ("red", "blue", "green", "black") for _ in range(5)]
    cut = batch_of(words, record(*turns, knowledge="circle"), dialog=True)
    newest = batch_of(words, record(*turns[-15:], knowledge="circle"), dialog=True)
    for key in ("source_ids", "source_positions", "source_roles", "source_turns"):
        np.testing.assert_array_equal(getattr(cut, key), getattr(newest, key))
    assert cut.source_turns.max() == 15
    longer = batch_of(words, record(*turns, knowledge="circle"), dialog=False)
    assert longer.source_ids.shape[1] == 1 + 2 + 2 * 20


def test_evaluation_hands_over_what_metrics_and_files_need(words: Tokenizer) -> None:
    one = record("red", knowledge="circle", question_id="story", turn_id=3, question_type="cnn")
    batch = batch_of(words, one, record("red", references=("a", "b")), train=False)
    assert batch.references == [("yes",), ("a", "b")] and not hasattr(batch, "input_ids")
    assert batch.dialogs == [("story", 3), None] and batch.parts == ["cnn", ""]
    assert batch.sources == ["circle\tred", "\tred"] and batch.tokenizer is words


def test_training_draws_one_of_several_references(words: Tokenizer) -> None:
    collator = Seq2SeqCollator(Processor(words), Seq2SeqConfig(), train=True)
    rng = np.random.default_rng(0)
    drawn = {collator.prepare(record("x", references=("red", "blue")), rng)["target"][1] for _ in range(20)}
    assert drawn == {ids(words, "red")[0], ids(words, "blue")[0]}


def test_samples_that_cannot_be_read(words: Tokenizer) -> None:
    with pytest.raises(RecordError, match="s:1 has no target"):
        batch_of(words, record("x", references=()))
    with pytest.raises(RecordError, match="s:1 has no source"):
        batch_of(words, record())
    with pytest.raises(RecordError, match="the text is empty"):
        batch_of(words, record("red", " "))
    with pytest.raises(ConfigError, match="50,000 merges, and the tokenizer has 0"):
        batch_of(words, record("32 582", is_tokenized=True))


TEXT = 'A man rides a horse; "naïve" prices: 1,234 € — isn\'t it?'


def test_gpt2_ids_of_the_released_files(shared: Path) -> None:
    folder = shared / "data/tokenizer/unimo_en"
    tokenizer = load_tokenizer(folder)
    numbers = json.loads((folder / "unimo_en.encoder.json").read_text(encoding="utf8"))
    entries = (folder / "unimo_en.vocab.txt").read_text(encoding="utf8").split("\n")[:50265]
    known = gpt2_entries(tokenizer)
    assert all(known[entry.split("\t")[0]] == row for row, entry in enumerate(entries) if "made" not in entry)
    expected = [32, 582, 17445, 257, 8223, 13]  # "A man rides a horse."
    assert [known[str(number)] for number in expected] == [250, 313, 9668, 10, 5253, 4]
    written = " ".join(str(numbers[token]) for token in tokenizer.backend.encode(TEXT).tokens)
    told = record(f"{written} [SEP] {written}", references=(f"{written} [SEP]",), is_tokenized=True)
    batch = batch_of(tokenizer, told, most=100)
    plain = ids(tokenizer, TEXT)
    assert batch.source_ids[0].tolist() == [BOS, *plain, EOS, *plain, EOS]
    assert batch.target_labels.tolist() == [*plain, EOS]
    assert batch_of(tokenizer, told, train=False, most=100).references == [(TEXT,)]
    with pytest.raises(RecordError, match="'horse' is no GPT-2 id"):
        batch_of(tokenizer, record("32 horse", is_tokenized=True))


def test_scenes_asks_for_a_given_answer(words: Tokenizer) -> None:
    data = SceneWriting("val", ScenesConfig(val_images=200))
    kinds = set()
    for index, one in enumerate(data):
        told, answer = one.sources
        assert one == data[index] and told == describe(data._whole.scene(index).objects)
        assert words.unk_token_id not in ids(words, " ".join((told, answer, *one.references)))
        kinds |= {text.split()[1] for text in one.references}
        for text in one.references:  # what is asked about stands in the source, and so does the answer
            assert answer in told or text == "how many objects are there ?"
    assert kinds == {"color", "shape", "size", "is", "many"}
    assert max(len(one.references) for one in data) > 1
    with pytest.raises(ConfigError, match="no split 'dev'"):
        SceneWriting("dev")


def test_questions_have_the_answer_that_scenes_gives() -> None:
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(100):
        scene = make_scene(rng)
        found = questions_by_answer(scene)
        for question in questions(scene, 6, rng):
            if question.kind in ("color", "shape", "size", "place", "count"):
                assert question.text in found[question.answer]
                checked += 1
    assert checked > 200


def test_scenes_as_dialogs(words: Tokenizer) -> None:
    data = SceneWriting("train", ScenesConfig(train_images=50), dialog=True)
    assert {len(one.sources) for one in data} == {1, 3, 5}
    assert all(one.turn_id == (len(one.sources) + 1) // 2 and one.knowledge for one in data)
    batch = batch_of(words, *data, dialog=True, most=60)
    assert set(batch.source_roles.ravel().tolist()) == {0, 1, 2} and batch.source_turns.max() == 5
