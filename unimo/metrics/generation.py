"""Scores of generated texts, each as defined where its data sets are compared.

    rouge        rouge_1, rouge_2, rouge_l of whole texts, rouge_lsum sentence by sentence: F1 by the
                 library rouge-score, which reproduces the Perl program ROUGE-1.5.5 (its option -m is `stem`)
    bleu         bleu_1 .. bleu_4 of the corpus, as in the evaluation of captions
    coco_rouge_l ROUGE-L of the evaluation of captions (beta 1.2)
    meteor       METEOR 1.5, where Java and pycocoevalcap are installed
    coqa         f1 and exact_match of CoQA, also by domain
    exact        share of texts that equal one of their references, token by token

Question generation is evaluated with `bleu`, `coco_rouge_l` and `meteor`; these and `exact` split texts as
BERT does: lower case, each punctuation mark a token. All times 100.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from tokenizers import normalizers, pre_tokenizers

from unimo.errors import ConfigError
from unimo.metrics import caption_java
from unimo.metrics.average import Averages
from unimo.metrics.caption import bleu, rouge_l
from unimo.metrics.coqa import coqa_scores

logger = logging.getLogger(__name__)
MetricName = Literal["rouge", "bleu", "coco_rouge_l", "meteor", "coqa", "exact"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}
"""The library's name of each score by our name."""
# Ends of sentences: marks of CNN/DailyMail files and line ends; without any, blanks after a period, ? or !.
_MARK, _STOP = re.compile(r"\s*(?:<q>|\[X_SEP\]|\n)\s*"), re.compile(r"(?<=[.!?])\s+")
_NORMALIZER = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
_SPLITTER = pre_tokenizers.BertPreTokenizer()


class Written(NamedTuple):
    """A generated text with its references."""

    text: str
    references: tuple[str, ...]
    part: str = ""
    """Part of the data set that the sample comes from (the source of a CoQA story)."""


def check_metrics(names: Sequence[MetricName]) -> None:
    """Refuse metrics that cannot be computed on this machine, before training begins.

    Raises:
        ConfigError: no metric, or `rouge` without its library.
    """
    if not names:
        raise ConfigError(f"task.metrics is empty; known: {', '.join(METRICS)}")
    if "rouge" in names and importlib.util.find_spec("rouge_score") is None:
        raise ConfigError(
            "task.metrics has rouge, which the library rouge-score computes; install it "
            '(pip install -e ".[generation]"), or set task.metrics without rouge'
        )
    if "meteor" in names and caption_java.find_evaluation() is None:
        logger.warning('no METEOR in the scores: it needs Java and pip install -e ".[caption]"')


def generation_scores(
    rows: Sequence[Written], names: Iterable[MetricName], stem: bool = True
) -> dict[str, float]:
    """Compute the chosen metrics of generated texts; {} without texts.

    Args:
        rows: texts, each with at least one reference.
        stem: compare Porter stems instead of words in `rouge`.
    """
    scores: dict[str, float] = {}
    if not rows:
        return scores
    candidates = [split(row.text) for row in rows]
    references = [[split(text) for text in row.references] for row in rows]
    for name in names:
        if name == "rouge":
            scores |= rouge_scores(rows, stem)
        elif name == "coqa":
            scores |= coqa_scores(rows)
        elif name == "bleu":
            values = bleu(candidates, references)
            scores |= {f"bleu_{order}": 100 * value for order, value in enumerate(values, start=1)}
        elif name == "coco_rouge_l":
            scores[name] = 100 * rouge_l(candidates, references)
        elif name == "meteor":
            keys = list(map(str, range(len(rows))))
            generated, human = (dict(zip(keys, texts, strict=True)) for texts in (candidates, references))
            scores |= caption_java.java_scores(generated, human, names=(name,))
        else:
            hits = sum(tokens in texts for tokens, texts in zip(candidates, references, strict=True))
            scores[name] = 100 * hits / len(candidates)
    return scores


def rouge_scores(rows: Iterable[Written], stem: bool = True) -> dict[str, float]:
    """Compute the mean F1 of ROUGE, with the best of several references."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer, means = RougeScorer(list(ROUGE.values()), use_stemmer=stem), Averages()
    for row in rows:
        marked = any(map(_MARK.search, (row.text, *row.references)))
        references = [sentences(text, marked) for text in row.references]
        found = scorer.score_multi(references, sentences(row.text, marked))
        for name, theirs in ROUGE.items():
            means.add(name, 100 * found[theirs].fmeasure)
    return means.compute()


def sentences(text: str, marked: bool) -> str:
    """Put one sentence on each line of a text, as `rouge_lsum` compares them.

    Args:
        marked: whether this text or those it is compared with mark sentences (`<q>`, `[X_SEP]`, line ends).
            Then only the marks count, as in the official scores: "mr. smith" does not end a sentence.
    """
    return (_MARK if marked else _STOP).sub("\n", text.strip())


def split(text: str) -> list[str]:
    """Split a text into lower-case tokens; punctuation marks are tokens of their own."""
    return [token for token, _ in _SPLITTER.pre_tokenize_str(_NORMALIZER.normalize_str(text))]
