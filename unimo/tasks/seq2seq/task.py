"""Text generation: answers (CoQA), questions (SQuAD), summaries (CNN/DailyMail, Gigaword), and other texts.

A source may have several columns, or be a dialog with roles and turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paddle import Tensor

from unimo.data.checks import check_text
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import Processor
from unimo.data.readers.generation import GenerationRecord
from unimo.errors import ConfigError
from unimo.files import write_text
from unimo.losses.reduce import accuracy
from unimo.metrics.average import compute_on_first
from unimo.metrics.generation import Written, check_metrics, generation_scores
from unimo.models.base import Model
from unimo.nn.outputs import Encoded
from unimo.settings import RunConfig
from unimo.tasks.base import Batch, Metadata, Metric, Question, to_tensors
from unimo.tasks.generation import GenerationTask, check_length
from unimo.tasks.seq2seq.batches import KNOWLEDGE_ROLE, Seq2SeqCollator, SourceBatch
from unimo.tasks.seq2seq.config import Seq2SeqConfig
from unimo.tasks.seq2seq.data import open_generation


class Seq2SeqTask(GenerationTask):
    """A model that writes a text from another."""

    Config = Seq2SeqConfig
    pictures = 0
    asked_with = "generate"
    published_data = "CNN/DailyMail, Gigaword, SQuAD questions, CoQA"
    needs = frozenset({"text_generation"})

    def __init__(self, model: Model, config: Seq2SeqConfig, metadata: Metadata = None) -> None:
        super().__init__(model, config, metadata)
        check_length("task.max_target_len", config.max_target_len, model.config)
        roles, turns = getattr(model.config, "role_types", 0), getattr(model.config, "turn_types", 0)
        if config.dialog and (roles <= KNOWLEDGE_ROLE or turns <= config.max_turns):
            raise ConfigError(
                f"task.dialog: {model.config.name} has {roles} roles and {turns} turns; set "
                f"model.role_types={KNOWLEDGE_ROLE + 1} model.turn_types={config.max_turns + 1}"
            )
        self.freeze_unused(text=True, image=False, pooled=False)

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> TaskData:
        """Open the texts of `data.path`, read as `task.format` says."""
        check_metrics(run.task.metrics)
        check_length("data.max_text_len", run.data.max_text_len, run.model)
        return TaskData(
            corpora=run.data.path,
            open_split=lambda corpus, split: open_generation(corpus, split, run),
            processor=processor,
            collator=lambda train: Seq2SeqCollator(processor, run.task, train),
        )

    def encode(self, source: SourceBatch) -> Encoded:
        """Encode the sources of a batch."""
        return self.model.encode_text(
            source.source_ids,
            source.source_mask,
            positions=source.source_positions,
            roles=source.source_roles,
            turns=source.source_turns,
        )

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the label-smoothed cross-entropy, a mean over tokens; report the accuracy."""
        states = self.model.decode(self.encode(batch), batch.input_ids, batch.attention_mask)
        logits, loss = self.next_token(states, batch)
        return {"seq2seq": loss}, {"accuracy": 100 * accuracy(logits, batch.target_labels)}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Write `texts` [B], the best for each source; records are as in CoQA's result file for dialogs."""
        beams = self.generate(batch, batch.tokenizer)
        texts = [" ".join(batch.tokenizer.decode(beam[0].tokens).split()) for beam in beams]
        rows = zip(batch.sample_ids, batch.dialogs, texts, strict=True)
        records = [
            {"sample_id": sample, "text": text}
            if dialog is None
            else {"id": dialog[0], "turn_id": dialog[1], "answer": text}
            for sample, dialog, text in rows
        ]
        return {"texts": texts, "records": records}

    @staticmethod
    def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Write one text a line, or, if the name of the file ends in `.json`, a JSON list of the records."""
        if path.suffix == ".json":
            GenerationTask.write_records(path, records)
        else:  # rows of CoQA's result file have an `answer`
            write_text(path, "".join(f"{row.get('text', row.get('answer'))}\n" for row in records))

    def read(self, processor: Processor, questions: Sequence[Question]) -> SourceBatch:
        """Return the sources of questions.

        A source has the columns that the model was trained on, e.g. passage and answer. In a dialog the first
        is what the dialog is about, maybe empty, and the others are its turns.
        """
        collator, rng = Seq2SeqCollator(processor, self.config, train=False), np.random.default_rng(0)
        prepared = []
        for question in questions:
            text = question.text
            if isinstance(text, str):
                columns = tuple(text.split("\t"))  # the first of a dialog may be empty
            else:
                columns = tuple(text) if isinstance(text, (list, tuple)) else (check_text(text),)
            knowledge, columns = (columns[0], columns[1:]) if self.config.dialog else (None, columns)
            record = GenerationRecord("source", "", sources=columns, knowledge=knowledge)
            prepared.append(collator.prepare(record, rng))
        return to_tensors(collator.collate(prepared, rng))

    def new_metric(self) -> Seq2SeqMetric:
        return Seq2SeqMetric(self.config)


class Seq2SeqMetric(Metric):
    """Scores of generated texts against their references, times 100: those of `task.metrics`."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        self._config = config
        self._rows: list[tuple[str, Written]] = []

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        written = zip(prediction["texts"], batch.references, batch.parts, strict=True)
        self._rows += zip(batch.sources, itertools.starmap(Written, written), strict=True)

    def compute(self) -> dict[str, float]:
        return compute_on_first(self._rows, self._score)

    def _score(self, parts: list[list[tuple[str, Written]]]) -> dict[str, float]:
        rows = sorted(itertools.chain.from_iterable(parts))
        texts = [row for _, row in rows]
        if self._config.pool_references:
            pooled: dict[str, Written] = {}
            for source, row in rows:
                before = pooled.get(source, row._replace(references=()))
                pooled[source] = before._replace(references=(*before.references, *row.references))
            texts = list(pooled.values())
        return generation_scores(texts, self._config.metrics, self._config.stem)


TASK = Seq2SeqTask
