"""The config of text generation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from unimo.data.tokenizers import Tokenizer
from unimo.metrics.generation import MetricName
from unimo.ranges import LARGEST_INT, Range, Size
from unimo.tasks.generation import GenerationConfig

Format = Literal["auto", "coqa", "squad_qg", "lines", "tsv", "jsonl"]


@dataclass(frozen=True)
class Seq2SeqConfig(GenerationConfig):
    """Fields of the task section of a text generation run; `data.max_text_len` is the length of a column."""

    name: str = "seq2seq"
    format: Format = "auto"
    """Format of the files in `data.path`; `auto` goes by their names (`unimo/tasks/seq2seq/data.py`)."""
    tokenized_input: bool = False
    """`tsv` files hold GPT-2 ids in decimal instead of texts, as UNIMO's released files do."""
    dialog: bool = False
    """Sources are turns about some knowledge, with embeddings of roles and turns (CoQA)."""
    max_turns: Size = 15
    """Number of newest turns of a dialog that are read."""
    max_target_len: Annotated[int, Range(2, LARGEST_INT)] = 128
    """Largest number of tokens of a target with `<s>`; in training, longer ones are cut and do not end."""
    end_token: Literal["sep", "mask"] = "sep"
    """Token that ends a text: `</s>`, or, as in UNIMO's released code, `<mask>`."""
    metrics: list[MetricName] = field(default_factory=lambda: ["bleu", "coco_rouge_l", "exact"])
    """Scores that evaluation computes, see `unimo/metrics/generation.py`."""
    stem: bool = True
    """`rouge` compares Porter stems (option -m of ROUGE-1.5.5)."""
    pool_references: bool = False
    """Score equal sources once, against all of their targets together (question generation)."""

    def end_id(self, tokenizer: Tokenizer) -> int:
        return tokenizer.mask_token_id if self.end_token == "mask" else tokenizer.eos_token_id
