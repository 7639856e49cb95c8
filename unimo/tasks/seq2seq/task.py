"""Text generation: answers (CoQA), questions (SQuAD), summaries (CNN/DailyMail, Gigaword), and other texts.

The model encodes a source and decodes as it does captions; a source may have several columns, and a dialog
roles and turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import paddle.distributed as dist
from paddle import Tensor

from unimo.data.loading.task_data import TaskData
from unimo.data.readers.generation import GenerationRecord
from unimo.data.tokenizers import Tokenizer
from unimo.errors import ConfigError
from unimo.files import write_text
from unimo.losses.seq2seq import token_accuracy
from unimo.metrics.average import gather_objects
from unimo.metrics.generation import MetricName, Written, check_metrics, generation_scores
from unimo.models.base import Model
from unimo.nn.beam_search import BeamConfig, Hypothesis
from unimo.nn.outputs import Encoded
from unimo.tasks.base import Answer, Batch, Question, to_tensors
from unimo.tasks.generation import GenerationConfig, GenerationTask, written
from unimo.tasks.seq2seq.batches import KNOWLEDGE_ROLE, Seq2SeqCollator, end_id
from unimo.tasks.seq2seq.data import Format, layout_of, open_generation

if TYPE_CHECKING:
    from unimo.data.processor import Processor
    from unimo.settings import RunConfig


@dataclass(frozen=True)
class Seq2SeqConfig(GenerationConfig):
    """Fields of the task section of a text generation run. `data.max_text_len` is the length of a column."""

    name: str = "seq2seq"
    format: Format = "auto"
    """Of the files in `data.path`; `auto` knows them by their names (`unimo/tasks/seq2seq/data.py`)."""
    tokenized_input: bool = False
    """`tsv` files hold GPT-2 ids in decimal instead of texts, as UNIMO's released files do."""
    dialog: bool = False
    """Sources are turns about some knowledge, with embeddings of roles and turns (CoQA)."""
    max_turns: int = 15
    """Newest turns of a dialog that are read."""
    max_target_len: int = 128
    """Tokens of a target with `<s>` in training; longer ones are cut and do not end."""
    end_token: Literal["sep", "mask"] = "sep"
    """What ends a text: `</s>`, or as in UNIMO's released code `<mask>`."""
    metrics: list[MetricName] = field(default_factory=lambda: ["bleu", "coco_rouge_l", "exact"])
    """What evaluation computes, see `unimo/metrics/generation.py`."""
    stem: bool = True
    """`rouge` compares Porter stems (option -m of ROUGE-1.5.5)."""
    pool_references: bool = False
    """Score equal sources once, against all of their targets together (question generation)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_target_len < 2 or self.max_turns < 1:
            raise ConfigError(
                f"task.max_target_len {self.max_target_len} and task.max_turns {self.max_turns}: expected at "
                "least 2 and 1"
            )


class Seq2SeqTask(GenerationTask):
    """A model that writes a text from another."""

    Config = Seq2SeqConfig
    reads_images = False

    asked_with = "generate"
    needs = frozenset({"text_generation"})

    def __init__(
        self, model: Model, config: Seq2SeqConfig, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(model, config, metadata)
        _check_sizes(config, model.config)
        self.freeze_unused(text=True, image=False, pooled=False)

    @classmethod
    def open_data(
        cls, run: RunConfig, processor: Processor, metadata: Mapping[str, Any] | None = None
    ) -> TaskData:
        """The texts of `data.path`, read as `task.format` says.

        Raises:
            ConfigError: a metric cannot be computed, or columns may be longer than the table of positions.
        """
        check_metrics(run.task.metrics)
        text = run.model.text
        longest = text.max_position - text.padding_id - 1
        if run.data.max_text_len > longest:
            raise ConfigError(
                f"data.max_text_len {run.data.max_text_len}: {run.model.name} has text positions for "
                f"{longest} tokens; set it to at most that"
            )
        layout = layout_of(run.task)
        return TaskData(
            corpora=run.data.path,
            open_split=lambda corpus, split: open_generation(corpus, split, run),
            processor=processor,
            collator=lambda train: Seq2SeqCollator(processor, layout, train),
        )

    def encode(self, batch: Batch) -> Encoded:
        """The sources of a batch."""
        return self.model.encode_text(
            batch.source_ids,
            batch.source_mask,
            positions=batch.source_positions,
            roles=batch.source_roles,
            turns=batch.source_turns,
        )

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Label-smoothed cross-entropy, mean over tokens; report: accuracy of the next token."""
        states = self.model.decode(self.encode(batch), batch.input_ids, batch.attention_mask)
        logits, loss = self.next_token(states, batch)
        return {"seq2seq": loss}, {"accuracy": 100 * token_accuracy(logits, batch.target_labels)}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The one loss."""
        return losses["seq2seq"]

    def generate(
        self, batch: Batch, tokenizer: Tokenizer, beam: BeamConfig | None = None
    ) -> list[list[Hypothesis]]:
        """The best texts for the sources of a batch, best first, without special tokens inside.

        Args:
            batch: as `Seq2SeqCollator` makes it.
            tokenizer: of the texts that the model was trained on.
            beam: another search than that of the config.
        """
        eos_id = end_id(tokenizer, self.config.end_token)
        return self.search(self.encode(batch), batch.source_ids.shape[0], tokenizer, beam, eos_id)

    def predict(self, batch: Batch) -> dict[str, Any]:
        """`texts` [B], the best for each source, and the rows of a result file; for CoQA those of its own."""
        tokenizer: Tokenizer = batch.tokenizer
        texts = [
            " ".join(tokenizer.decode(beam[0].tokens).split()) for beam in self.generate(batch, tokenizer)
        ]
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
        """Write plain lines, one text each, unless the name of the file ends in `.json`."""
        if path.suffix == ".json":
            GenerationTask.write_records(path, records)
        else:  # rows of CoQA's result file have an answer
            write_text(path, "".join(f"{row.get('text', row.get('answer'))}\n" for row in records))

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Write texts from sources. A beam smaller than `count` is widened.

        A source has the columns that the model was trained on, e.g. passage and answer. A dialog begins with
        what it is about (maybe empty), then come the turns.
        """
        tokenizer = processor.tokenizer
        collator = Seq2SeqCollator(processor, layout_of(self.config), train=False)
        rng = np.random.default_rng(0)
        records = [self._asked(question) for question in questions]
        batch = to_tensors(collator.collate([collator.prepare(record, rng) for record in records], rng))
        beam = replace(self.config.beam, size=max(self.config.beam.size, count))
        return [written(found[:count], tokenizer) for found in self.generate(batch, tokenizer, beam)]

    def _asked(self, question: Question) -> GenerationRecord:
        columns = tuple(question.text.split("\t") if isinstance(question.text, str) else question.text or ())
        knowledge, columns = (columns[0], columns[1:]) if self.config.dialog else (None, columns)
        return GenerationRecord("source", "", sources=columns, knowledge=knowledge)

    def new_metric(self) -> Seq2SeqMetric:
        """The metrics of `task.metrics`."""
        return Seq2SeqMetric(self.config)


class Seq2SeqMetric:
    """Scores of generated texts against their references, times 100."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        self._config = config
        self._rows: list[tuple[str, Written]] = []

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Take the texts of one batch."""
        written = zip(prediction["texts"], batch.references, batch.parts, strict=True)
        self._rows += zip(batch.sources, itertools.starmap(Written, written), strict=True)

    def compute(self) -> dict[str, float]:
        """The scores over all ranks, computed on the first."""
        parts = gather_objects(self._rows)
        if dist.get_rank() != 0:
            return gather_objects(None)[0]
        rows = sorted(itertools.chain.from_iterable(parts))
        written = _pool(rows) if self._config.pool_references else [row for _, row in rows]
        return gather_objects(generation_scores(written, self._config.metrics, self._config.stem))[0]


def _pool(rows: Sequence[tuple[str, Written]]) -> list[Written]:
    """One row for each source, with all of its references."""
    pooled: dict[str, Written] = {}
    for source, row in rows:
        before = pooled.get(source, row._replace(references=()))
        pooled[source] = before._replace(references=(*before.references, *row.references))
    return list(pooled.values())


def _check_sizes(config: Seq2SeqConfig, model: Any) -> None:
    """Refuse targets that are longer than the table of positions, and dialogs without tables of their own."""
    longest = model.text.max_position - model.text.padding_id - 1
    if config.max_target_len > longest:
        raise ConfigError(
            f"task.max_target_len {config.max_target_len}: {model.name} has text positions for {longest} "
            "tokens; set it to at most that"
        )
    roles, turns = getattr(model, "role_types", 0), getattr(model, "turn_types", 0)
    if config.dialog and (roles <= KNOWLEDGE_ROLE or turns <= config.max_turns):
        raise ConfigError(
            f"task.dialog: {model.name} has {roles} roles and {turns} turns; set "
            f"model.role_types={KNOWLEDGE_ROLE + 1} model.turn_types={config.max_turns + 1}"
        )


TASK = Seq2SeqTask
