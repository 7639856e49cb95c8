"""The answers that pre-training on questions knows: one list for all corpora of questions (LXMERT)."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from unimo.data.readers.answers import check_classes
from unimo.data.readers.open import open_answers, open_corpus, resolve_path
from unimo.data.record import Record
from unimo.errors import ConfigError, DataError, RecordError, shown
from unimo.files import read_json
from unimo.settings import CorpusConfig, DataConfig

logger = logging.getLogger(__name__)
AUTO = "auto"
SIZE = 9500
"""Number of LXMERT's answers, which cover 90% of the questions of VQA v2, GQA and Visual Genome."""
NO_ANSWER = -1
"""Class of a text that is no question, and of a question whose answers are not in the table."""
_ARTICLE = re.compile(r"(?:a|an|the)\s+")
_WORDS = {
    **{word: str(n) for n, word in enumerate("one two three four five six seven eight nine ten".split(), 1)},
    "grey": "gray",
}


def common_form(answer: str) -> str:
    """Return the form in which answers of several data sets are equal (LXMERT's code).

    Lower case, without a period at the end and an article at the beginning; a number word alone is a number,
    and grey is gray.
    """
    text = answer.strip().lower().removesuffix(".").strip()
    found = _ARTICLE.match(text)
    text = text[found.end() :] if found else text
    return _WORDS.get(text, text)


class AnswerTable:
    """The classes of answers, in the order of their ids.

    Args:
        answers: answers, whose common forms are the classes; those that are equal in it are one.

    Attributes:
        places: class of each answer.
    """

    def __init__(self, answers: Iterable[str]) -> None:
        self.answers = [form for form in dict.fromkeys(map(common_form, answers)) if form]
        self.places = {answer: place for place, answer in enumerate(self.answers)}

    def __len__(self) -> int:
        return len(self.answers)

    def scores(self, record: Record) -> dict[int, float]:
        """Return the score of each class among the answers of a question, the best of several forms."""
        found: dict[int, float] = {}
        for answer, score in record.answer_scores.items():
            place = self.places.get(common_form(answer))
            if place is not None:
                found[place] = max(score, found.get(place, 0.0))
        return found

    def draw(self, record: Record, rng: np.random.Generator) -> int:
        """Draw the class that a question is to be answered with, each as likely as its share of the scores
        (LXMERT's code); `NO_ANSWER` if there is none."""
        scores = self.scores(record)
        if len(scores) < 2:
            return next(iter(scores), NO_ANSWER)
        shares = np.array(list(scores.values()))
        return int(rng.choice(list(scores), p=shares / shares.sum()))


def open_answer_table(answers: str, data: DataConfig) -> AnswerTable:
    """Open the answers that pre-training knows.

    Args:
        answers: a JSON list (`tools/prepare_data.py answers`), relative to `data.root`, or `auto` for all
            answers of the corpora of `data.pairs` that are questions, of which there may be none.
        data: those corpora.

    Raises:
        ConfigError: there is a list, and none of the corpora are questions.
        DataError: the file is missing or no list of answers.
    """
    questions = [corpus for corpus in data.pairs if corpus.questions]
    if answers == AUTO:
        return AnswerTable(answer for corpus in questions for answer in open_answers(corpus, data))
    if not questions:
        raise ConfigError(
            f"task.answers={answers}, and no corpus of data.pairs has questions; name one, such as "
            "{path: data/vqa, questions: true}, or leave task.answers out"
        )
    path = resolve_path(CorpusConfig(answers), data)
    return AnswerTable(check_classes(read_json(path, DataError, "answers"), path, DataError))


def check_answers(table: AnswerTable, answers: str, data: DataConfig) -> None:
    """Log how many of the answers to each corpus of questions are no class of a given list.

    Their questions are read as captions are.

    Raises:
        DataError: none of the answers to a corpus is a class.
    """
    for corpus in data.pairs if answers != AUTO else ():
        if not corpus.questions:
            continue
        known = open_answers(corpus, data)
        strange = [answer for answer in known if common_form(answer) not in table.places]
        if len(strange) == len(known):
            raise DataError(
                f"task.answers={answers}: none of the {len(known):,} answers of {corpus.path} is among its "
                f"{len(table):,} classes, e.g. {shown(strange[0])}; make a list of them with "
                "tools/prepare_data.py answers, or leave task.answers out"
            )
        if strange:
            logger.warning(
                "%s: %d of %d answers are none of the classes of task.answers=%s, e.g. %s; their questions "
                "teach and are scored in all but the answer",
                *(corpus.path, len(strange), len(known), answers, shown(strange[0])),
            )


def frequent_answers(
    corpora: Sequence[str], split: str, count: int, progress: Callable[..., Iterable[int]]
) -> tuple[list[str], float]:
    """Return the most frequent answers of corpora of questions, most frequent first, in their common form.

    A question counts for the best of its answers.

    Args:
        corpora: folders or files of questions.
        split: what is counted of each.
        count: largest number of answers.
        progress: wraps the samples of a corpus, as `unimo.progress.tracked` does.

    Returns:
        The answers, and the share of the questions that have one of them.

    Raises:
        DataError: a corpus or its split is missing, or no question has an answer.
    """
    counts: Counter[str] = Counter()
    for path in corpora:
        dataset = open_corpus(CorpusConfig(path), split, "vqa", DataConfig())
        for index in progress(range(len(dataset)), total=len(dataset), what=f"answers of {path}"):
            try:
                counts[common_form(dataset[index].best_answer)] += 1
            except RecordError:
                continue
    counts.pop("", None)
    if not counts:
        raise DataError(f"no question of {', '.join(corpora)} has an answer")
    chosen = counts.most_common(count)
    return [answer for answer, _ in chosen], sum(n for _, n in chosen) / counts.total()
