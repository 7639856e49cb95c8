"""SemVLP reads captions and questions in one run, and learns the answers that the questions have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unimo.data.processor import build_processor
from unimo.data.readers.answer_table import open_answer_table
from unimo.data.tokenizers import load_tokenizer
from unimo.registry import task_class
from unimo.settings import load_run_config
from unimo.training.run import resolve

WORDS = (
    "data.scenes.train_images=8",
    "data.scenes.val_images=3",
    "train.batch_size=40",
    "data.num_workers=0",
    "data.pairs=[{path: scenes, weight: 0.5}, {path: scenes, questions: true, weight: 0.5}]",
)


def test_a_batch_has_captions_and_questions_with_their_answers(tmp_path: Path) -> None:
    run = load_run_config("semvlp_tiny", "pretrain", WORDS, output_dir=str(tmp_path))
    processor = build_processor(run.data, load_tokenizer("scenes"))
    run = resolve(run, processor)
    table = open_answer_table("auto", run.data)
    assert run.model.objective.answers == len(table) == 23
    data = task_class("pretrain").open_data(run, processor)
    parts = data.train_datasets()
    assert {name: len(part) for name, part in parts.items()} == {"scenes": 32, "scenes_questions": 48}
    loader = data.train_loader(run)
    batch = next(loader)
    loader.close()
    # Both kinds are of the corpus `scenes`, whose samples have equal names; a question ends with its mark.
    asked = batch.input_ids[np.arange(40), batch.attention_mask.sum(axis=1) - 2]
    questions = asked == processor.ids_and_words("what ?")[0][-2]
    assert 12 <= questions.sum() <= 28
    matched = batch.itm_labels == 1
    assert ((batch.qa_labels >= 0) == (questions & matched)).all() and (questions & ~matched).any()
    held_out = next(iter(data.eval_loader("val", run)))
    assert len(held_out.sample_ids) == 30  # 3 pictures with 4 captions and 6 questions
