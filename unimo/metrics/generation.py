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
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from tokenizers import normalizers, pre_tokenizers

from unimo.errors import ConfigError
from unimo.metrics import caption
from unimo.metrics.average import Averages
from unimo.metrics.text import encodable

logger = logging.getLogger(__name__)
MetricName = Literal["rouge", "bleu", "coco_rouge_l", "meteor", "coqa", "exact"]
ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}
"""The library's name of each score by our name."""
DOMAINS = {
    "mctest": "children_stories",
    "gutenberg": "literature",
    "race": "mid-high_school",
    "cnn": "news",
}
"""Reported name of a domain by the `source` of a story, where they differ."""
# Ends of sentences: marks of CNN/DailyMail files and line ends; without any, blanks after a period, ? or !.
_MARK, _STOP = re.compile(r"\s*(?:<q>|\[X_SEP\]|\n)\s*"), re.compile(r"(?<=[.!?])\s+")
_NORMALIZER = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
_SPLITTER = pre_tokenizers.BertPreTokenizer()
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


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
        raise ConfigError(f"task.metrics is empty; known: {', '.join(get_args(MetricName))}")
    if "rouge" in names and importlib.util.find_spec("rouge_score") is None:
        raise ConfigError(
            "task.metrics has rouge, which the library rouge-score computes; install it "
            '(pip install -c constraints.txt -e ".[generation]"), or set task.metrics without rouge'
        )
    if "meteor" in names and caption.find_evaluation() is None:
        logger.warning("no METEOR in the scores: it needs %s", caption.JAVA_NEEDS)


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
            values = caption.bleu(candidates, references)
            scores |= {f"bleu_{order}": 100 * value for order, value in enumerate(values, start=1)}
        elif name == "coco_rouge_l":
            scores[name] = 100 * caption.rouge_l(candidates, references)
        elif name == "meteor":
            keys = list(map(str, range(len(rows))))
            generated, human = (dict(zip(keys, texts, strict=True)) for texts in (candidates, references))
            scores |= caption.java_scores(generated, human, names=(name,))
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
    return [token for token, _ in _SPLITTER.pre_tokenize_str(_NORMALIZER.normalize_str(encodable(text)))]


def answer_tokens(text: str) -> list[str]:
    """Split a text into lower-case words, without punctuation marks and articles."""
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def token_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Compute F1 of the words of two answers as multisets; with an empty one, 1 if both are empty, else 0."""
    if not answer or not reference:
        return float(answer == reference)
    common = (Counter(answer) & Counter(reference)).total()
    return 2 * common / (len(answer) + len(reference))


def turn_score(values: Sequence[float]) -> float:
    """Return the best score over the references, averaged over leaving out each of several in turn.

    A human answer is scored against the others, so this gives predictions as many references as humans have.
    """
    if len(values) == 1:
        return values[0]
    return sum(max(values[:left] + values[left + 1 :]) for left in range(len(values))) / len(values)


def coqa_scores(rows: Iterable[Written]) -> dict[str, float]:
    """Compute the scores of answers, averaged over all turns, times 100.

    Args:
        rows: answers, each with the `source` of its story as `part`.

    Returns:
        `f1`, `exact_match`, and `f1/<domain>` for each domain of the stories.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for text, references, source in rows:
        answer, accepted = answer_tokens(text), [answer_tokens(reference) for reference in references]
        f1 = turn_score([token_f1(answer, other) for other in accepted])
        found["f1"].append(f1)
        found["exact_match"].append(turn_score([float(answer == other) for other in accepted]))
        if source:
            found[f"f1/{DOMAINS.get(source, source)}"].append(f1)
    return {name: 100 * sum(values) / len(values) for name, values in found.items()}
