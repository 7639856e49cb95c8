"""Batches for text generation: sources of several columns, targets, and their positions.

    source   <s> column </s> column </s> ...
    target   <s> text </s>, or with another end token

As in UNIMO's released code, positions count from 2 on (1 is padding) and start again at 3 in each column and
in the target, whose `<s>` is at 2 like that of the source. In dialogs each column also has a role, and a
number of turns back. Legend: B batch, S longest source.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers

from unimo.data.checks import check_text
from unimo.data.loading.batch import Array, Batch, PairCollator, Prepared
from unimo.data.processor import Processor, pad
from unimo.data.readers.generation import GenerationRecord
from unimo.data.tokenizers import SPECIAL_NAMES, Tokenizer
from unimo.errors import ConfigError, RecordError
from unimo.tasks.generation import TargetBatch, join_targets
from unimo.tasks.seq2seq.config import Seq2SeqConfig

PADDING, FIRST = 1, 2
"""Positions of padding and of `<s>`."""
KNOWLEDGE_ROLE = 2
"""Role of what a dialog is about; turns have the roles 0 and 1."""
GPT2_MERGES = 50_000


@dataclass(kw_only=True)
class SourceBatch(Batch):
    """Texts to write from, with references to compare with; the latter are None in training."""

    source_ids: Array
    """[B, S] int64 token ids."""
    source_mask: Array
    """[B, S] int64, 1 = token."""
    source_positions: Array
    """[B, S] int64 rows of the position table."""
    source_roles: Array | None = None
    """[B, S] int64, dialogs only."""
    source_turns: Array | None = None
    """[B, S] int64 turns back, dialogs only."""
    references: list[tuple[str, ...]] | None = None
    """Right texts of each sample."""
    sources: list[str] | None = None
    """Equal for samples with equal sources."""
    dialogs: list[tuple[Any, Any] | None] | None = None
    """Id and turn of each sample of a dialog."""
    parts: list[str] | None = None
    """Names under which scores are broken down."""
    tokenizer: Tokenizer | None = None
    """Turns generated ids into text."""


@dataclass(kw_only=True)
class Seq2SeqBatch(TargetBatch, SourceBatch):
    """Texts to learn to write from others."""


class Seq2SeqCollator(PairCollator):
    """Make a `Seq2SeqBatch` in training, else a `SourceBatch`.

    Args:
        processor: tokenizer, and the length of a column: `max_text_len` tokens with `<s>`.
        config: how texts become sequences.
        train: make targets; of several references one is drawn.
    """

    def __init__(self, processor: Processor, config: Seq2SeqConfig, train: bool) -> None:
        super().__init__(processor, train)
        self.config = config

    def prepare(self, record: GenerationRecord, rng: np.random.Generator) -> Prepared:
        """Tokenize one record.

        Raises:
            RecordError: an empty text, no source, or no target in training.
        """
        if not record.sources or (self.train and not record.references):
            raise RecordError(f"sample {record.sample_id} has no {'target' if record.sources else 'source'}")
        prepared: Prepared = {"record": record, "source": self._source(record)}
        if self.train:
            text = record.references[int(rng.integers(len(record.references)))]
            tokenizer = self.processor.tokenizer
            tokens = [*self._ids(text, record), self.config.end_id(tokenizer)]
            prepared["target"] = [tokenizer.bos_token_id, *tokens[: self.config.max_target_len - 1]]
        elif record.is_tokenized:
            texts = (self.processor.tokenizer.decode(self._ids(text, record)) for text in record.references)
            prepared["references"] = tuple(text.strip() for text in texts)
        else:
            prepared["references"] = record.references
        return prepared

    def _source(self, record: GenerationRecord) -> list[tuple[int, int, int, int]]:
        """Return the tokens of a source, each with its position, role and number of turns back."""
        tokenizer, most = self.processor.tokenizer, self.processor.config.max_text_len - 2
        columns = [self._ids(text, record)[:most] for text in record.sources]
        if self.config.dialog:
            columns = columns[-self.config.max_turns :]
        count = len(columns)
        # The newest turn is 1 back, and its role is 1.
        parts = [(ids, back % 2, back) for back, ids in zip(range(count, 0, -1), columns, strict=True)]
        if record.knowledge:
            parts.insert(0, (self._ids(record.knowledge, record)[:most], KNOWLEDGE_ROLE, 0))
        rows = [(tokenizer.bos_token_id, FIRST, count % 2, count)]
        for ids, role, turn in parts:
            column = enumerate([*ids, tokenizer.eos_token_id], FIRST + 1)
            rows += [(token, position, role, turn) for position, token in column]
        return rows

    def _ids(self, text: str, record: GenerationRecord) -> list[int]:
        text, tokenizer = " ".join(check_text(text).split()), self.processor.tokenizer
        if not record.is_tokenized:
            return tokenizer.backend.encode(text, add_special_tokens=False).ids
        known = gpt2_entries(tokenizer)
        tokens = text.split()
        unknown = next((token for token in tokens if token not in known), None)
        if unknown is not None:
            raise RecordError(
                f"sample {record.sample_id}: {unknown[:40]!r} is no GPT-2 id and no special token; "
                "task.tokenized_input=false reads plain text"
            )
        ids = [known[token] for token in tokens]
        return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> SourceBatch:
        """Join prepared samples; sources and targets are padded to the longest of them."""
        pad_id = self.processor.tokenizer.pad_token_id
        records: list[GenerationRecord] = [sample["record"] for sample in prepared]
        columns = [zip(*sample["source"], strict=True) for sample in prepared]
        ids, positions, roles, turns = zip(*columns, strict=True)
        tokens = pad(ids, pad_id)
        fields: dict[str, Any] = {
            "source_ids": tokens["input_ids"],
            "source_mask": tokens["attention_mask"],
            "source_positions": pad(positions, PADDING)["input_ids"],
            "sample_ids": [record.sample_id for record in records],
        }
        if self.config.dialog:
            fields["source_roles"] = pad(roles, 0)["input_ids"]
            fields["source_turns"] = pad(turns, 0)["input_ids"]
        if not self.train:
            return SourceBatch(
                **fields,
                references=[sample["references"] for sample in prepared],
                sources=["\t".join((record.knowledge or "", *record.sources)) for record in records],
                dialogs=[
                    None if record.turn_id is None else (record.question_id, record.turn_id)
                    for record in records
                ],
                parts=[record.question_type for record in records],
                tokenizer=self.processor.tokenizer,
            )
        return Seq2SeqBatch(**fields, **join_targets([sample["target"] for sample in prepared], pad_id))


@lru_cache(maxsize=2)
def gpt2_entries(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the id of each word of UNIMO's released files: GPT-2 ids in decimal, names of special tokens.

    GPT-2 numbers the 256 bytes first, then the merges in their order, then the end of a text.

    Raises:
        ConfigError: not a byte-level BPE with GPT-2's merges.
    """
    model = json.loads(tokenizer.backend.to_str())["model"]
    merges = model.get("merges", [])
    if len(merges) != GPT2_MERGES:
        raise ConfigError(
            f"task.tokenized_input: the files hold ids of GPT-2's {GPT2_MERGES:,} merges, and the tokenizer "
            f"has {len(merges):,}; set data.tokenizer to UNIMO's or RoBERTa's files"
        )
    # Pairs, or in older versions of the library both parts with a blank between them.
    joined = ("".join(pair).replace(" ", "") for pair in merges)
    strings = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *joined, "<|endoftext|>"]
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    special = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id,
               tokenizer.unk_token_id, tokenizer.mask_token_id)  # fmt: skip
    names = {name: index for family in SPECIAL_NAMES for name, index in zip(family, special, strict=True)}
    return names | {str(number): vocabulary[text] for number, text in enumerate(strings)}
