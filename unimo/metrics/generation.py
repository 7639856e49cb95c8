"""Scores of generated texts, each under the definition by which its data sets are compared.

    rouge        rouge_1, rouge_2, rouge_l of whole texts, rouge_lsum sentence by sentence: F1 by the
                 library rouge-score, written to give the numbers of ROUGE-1.5.5 (the Perl program; its
                 option -m is `stem`)
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
from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""Our names of its scores -> those of the library."""
# Marks of CNN/DailyMail files, line ends; where there are none, blanks behind a full stop, ? or !.
_MARK, _STOP = re.compile(r"\s*(?:<q>|\[X_SEP\]|\n)\s*"), re.compile(r"(?<=[.!?])\s+")
_NORMALIZER = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
_SPLITTER = pre_tokenizers.BertPreTokenizer()


class Written(NamedTuple):
    """A generated text, the texts that would be right, and where the sample is from."""

    text: str
    references: tuple[str, ...]
    part: str = ""


def check_metrics(names: Sequence[MetricName]) -> None:
    """Refuse metrics that cannot be computed here, before a training begins.

    Raises:
        ConfigError: none, or `rouge` without its library.
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
    """The chosen metrics of generated texts; nothing without texts.

    Args:
        rows: texts with their references, one at least for each.
        names: see the head of this file.
        stem: compare Porter stems instead of words in `rouge`.
    """
    scores: dict[str, float] = {}
    for name in dict.fromkeys(names) if rows else ():
        if name == "rouge":
            scores |= rouge_scores(rows, stem)
        elif name == "coqa":
            scores |= coqa_scores(rows)
        else:
            candidates = [split(row.text) for row in rows]
            scores |= _BY_TOKENS[name](candidates, [[split(text) for text in row.references] for row in rows])
    return scores


def rouge_scores(rows: Iterable[Written], stem: bool = True) -> dict[str, float]:
    """Mean F1 of ROUGE; of several references the best."""
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
    """A text with one sentence a line, as `rouge_lsum` compares them. Where sentences of it or of what it is
    compared with are marked (`<q>`, `[X_SEP]`, line ends) the marks alone count, as in the official scores:
    "mr. smith" is no end of one."""
    return (_MARK if marked else _STOP).sub("\n", text.strip())


def split(text: str) -> list[str]:
    """Lower-case tokens; punctuation marks are tokens of their own."""
    return [token for token, _ in _SPLITTER.pre_tokenize_str(_NORMALIZER.normalize_str(text))]


Tokens = Sequence[str]


def _bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    values = bleu(candidates, references)
    return {f"bleu_{order}": 100 * value for order, value in enumerate(values, start=1)}


def _coco_rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    return {"coco_rouge_l": 100 * rouge_l(candidates, references)}


def _meteor(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    generated = {str(row): tokens for row, tokens in enumerate(candidates)}
    human = {str(row): texts for row, texts in enumerate(references)}
    return caption_java.java_scores(generated, human, names=("meteor",))


def _exact(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    hits = sum(tokens in texts for tokens, texts in zip(candidates, references, strict=True))
    return {"exact": 100 * hits / len(candidates)}


_BY_TOKENS: Mapping[str, Callable[..., dict[str, float]]] = {
    "bleu": _bleu,
    "coco_rouge_l": _coco_rouge_l,
    "meteor": _meteor,
    "exact": _exact,
}
