"""BLEU-1 to 4, ROUGE-L and CIDEr-D of captions, as the COCO evaluation computes them.

Values equal those of pycocoevalcap on the same tokens (tests/unit/metrics/test_caption_metric.py), including
the small constants in its quotients. Legend: a caption is a sequence of tokens; `candidates` holds one per
image, `references` all human captions of the same image at the same index.

The parts of that evaluation that are Java programs, its tokenizer, METEOR and SPICE, come with pycocoevalcap
(`pip install -e ".[caption]"`) and are used where it and Java are installed.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from unimo.errors import DataError
from unimo.metrics.text import encodable

logger = logging.getLogger(__name__)
Caption = Sequence[str]
Ngram = tuple[str, ...]
MAX_ORDER = 4
_TINY, _SMALL = 1e-15, 1e-9
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0
_SPICE_NEEDS = "stanford-corenlp-3.6.0*.jar"
JAVA_NEEDS = 'Java and pip install -c constraints.txt -e ".[caption]"'
"""What METEOR, SPICE and the Stanford tokenizer need."""

_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))(?!\w)")
_TOKEN = re.compile(r"n't|'(?:s|m|d|re|ve|ll)\b|(?:[^\W\d_]\.){2,}|\w+(?:[-.,:'&*@]\w+)*|\.\.+|--+|[^\w\s]")
_JOINED = {
    word.replace(" ", ""): word for word in ("can not", "gon na", "got ta", "wan na", "lem me", "gim me")
}
_DROPPED = frozenset("' ` \" . ? ! , : - ; … “ ” ‘ ’ – —".split())
_BRACKETS = dict(zip("()[]{}", "-lrb- -rrb- -lsb- -rsb- -lcb- -rcb-".split(), strict=True))


def tokenize(text: str) -> list[str]:
    """Split a text into lower-case tokens in the style of the Penn Treebank, without punctuation marks.

    Stands in for the Stanford tokenizer of the COCO evaluation where Java is missing: clitics are split off
    ("man's" -> man 's, "don't" -> do n't), hyphenated words stay whole.
    """
    text = _CLITIC.sub(r" \1", text.lower().replace("’", "'"))
    tokens: list[str] = []
    for token in _TOKEN.findall(text):
        if token not in _DROPPED and not re.fullmatch(r"\.\.+|--+", token):
            tokens += _JOINED.get(token, _BRACKETS.get(token, token)).split()
    return tokens


def caption_scores(
    candidates: Mapping[str, Caption], references: Mapping[str, Sequence[Caption]]
) -> dict[str, float]:
    """Compute all scores that need no Java, times 100, as papers print them.

    Args:
        candidates: tokens of the generated caption by image.
        references: tokens of the human captions by image; further images are ignored.

    Returns:
        `bleu_1` .. `bleu_4`, `rouge_l`, `cider` (CIDEr-D). Empty without candidates.

    Raises:
        DataError: an image has no references.
    """
    images = sorted(candidates)
    missing = [image for image in images if not references.get(image)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} images have no reference captions, e.g. "
            f"{', '.join(missing[:3])}; give each at least one, or leave them out"
        )
    if not images:
        return {}
    generated = [candidates[image] for image in images]
    human = [references[image] for image in images]
    scores = {f"bleu_{order}": value for order, value in enumerate(bleu(generated, human), start=1)}
    scores |= {"rouge_l": rouge_l(generated, human), "cider": cider(generated, human)}
    return {name: 100 * value for name, value in scores.items()}


def bleu(candidates: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> list[float]:
    """Compute BLEU-1 .. BLEU-4 of the corpus (Papineni et al., 2002) with the closest reference lengths."""
    right, guessed = [0] * MAX_ORDER, [0] * MAX_ORDER
    length, reference_length = 0, 0
    for candidate, human in zip(candidates, references, strict=True):
        most: Counter[Ngram] = Counter()
        for reference in human:
            most |= _count(reference)
        for ngram, count in _count(candidate).items():
            right[len(ngram) - 1] += min(count, most[ngram])
            guessed[len(ngram) - 1] += count
        length += len(candidate)
        reference_length += min((abs(len(text) - len(candidate)), len(text)) for text in human)[1]
    ratio = (length + _TINY) / (reference_length + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    values, product = [], 1.0
    for order in range(MAX_ORDER):
        product *= (right[order] + _TINY) / (guessed[order] + _SMALL)
        values.append(brevity * product ** (1 / (order + 1)))
    return values


def rouge_l(candidates: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> float:
    """Compute the mean F-score of the longest common subsequence (Lin, 2004), beta 1.2.

    Precision and recall are each the best over the references.
    """
    total = 0.0
    for candidate, human in zip(candidates, references, strict=True):
        common = [_common_length(candidate, reference) for reference in human]
        precision = max(common) / max(1, len(candidate))
        recall = max(value / max(1, len(text)) for value, text in zip(common, human, strict=True))
        if precision and recall:
            weight = _ROUGE_BETA**2
            total += (1 + weight) * precision * recall / (recall + weight * precision)
    return total / len(candidates)


def cider(candidates: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> float:
    """Compute CIDEr-D (Vedantam et al., 2015), 0 to 10, with the document frequencies of these references.

    The difference of lengths in its Gaussian penalty is counted in bigrams, as in the reference code.
    """
    human = [[_count(reference) for reference in group] for group in references]
    frequency: Counter[Ngram] = Counter()
    for group in human:
        frequency.update({ngram for counts in group for ngram in counts})
    log_images = math.log(len(references))
    weight = {ngram: log_images - math.log(count) for ngram, count in frequency.items()}
    total = 0.0
    for candidate, group in zip(candidates, human, strict=True):
        vector = _TfIdf(_count(candidate), weight, log_images)
        total += sum(vector.similarity(_TfIdf(counts, weight, log_images)) for counts in group) / len(group)
    return 10 * total / len(candidates)


class _TfIdf:
    """Counts of n-grams times inverse document frequencies, with their norm for each order."""

    def __init__(self, counts: Counter[Ngram], weight: Mapping[Ngram, float], unseen: float) -> None:
        self.values: list[dict[Ngram, float]] = [{} for _ in range(MAX_ORDER)]
        for ngram, count in counts.items():
            self.values[len(ngram) - 1][ngram] = count * weight.get(ngram, unseen)
        self.norms = [math.sqrt(sum(value**2 for value in order.values())) for order in self.values]
        self.bigrams = sum(count for ngram, count in counts.items() if len(ngram) == 2)

    def similarity(self, reference: _TfIdf) -> float:
        """Return the clipped cosine, averaged over the orders, times the length penalty."""
        cosines = 0.0
        for order, own in enumerate(self.values):
            other, norm = reference.values[order], self.norms[order] * reference.norms[order]
            product = sum(
                min(value, other[ngram]) * other[ngram] for ngram, value in own.items() if ngram in other
            )
            cosines += product / norm if norm else product
        gap = self.bigrams - reference.bigrams
        return cosines / MAX_ORDER * math.exp(-(gap**2) / (2 * _CIDER_SIGMA**2))


def _count(tokens: Caption) -> Counter[Ngram]:
    """Count all n-grams of one to four tokens."""
    return Counter(
        tuple(tokens[start : start + order])
        for order in range(1, MAX_ORDER + 1)
        for start in range(len(tokens) - order + 1)
    )


def _common_length(first: Caption, second: Caption) -> int:
    """Return the length of the longest common subsequence."""
    above = [0] * (len(second) + 1)
    for token in first:
        row = [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if token == other else max(above[column + 1], row[-1]))
        above = row
    return above[-1]


def find_evaluation() -> Path | None:
    """Return the folder of pycocoevalcap if it and Java are installed, else None."""
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations or shutil.which("java") is None:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def missing_program(metric: str) -> str:
    """Return what must be installed before a metric can be computed; empty if nothing is missing."""
    if metric not in ("meteor", "spice"):
        return ""
    folder = find_evaluation()
    if folder is None:
        return JAVA_NEEDS
    return (
        "" if metric == "meteor" or _has_parser(folder) else f"{_SPICE_NEEDS} in {folder / 'spice' / 'lib'}"
    )


def _has_parser(folder: Path) -> bool:
    """Return whether SPICE's parser is there, which SPICE would otherwise download at its first use."""
    return any(folder.glob(f"spice/lib/{_SPICE_NEEDS}"))


def ptb_tokenize(texts: Sequence[str]) -> list[list[str]]:
    """Split texts with the Stanford tokenizer into lower-case tokens, without punctuation marks.

    Requires pycocoevalcap and Java, see `find_evaluation`.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # The program reads one text a line and would skip an empty one.
    rows = {
        number: [{"caption": " ".join(encodable(text).split()) or "."}] for number, text in enumerate(texts)
    }
    tokenized = PTBTokenizer().tokenize(rows)
    return [tokenized[number][0].split() for number in rows]


def java_scores(
    candidates: Mapping[str, Caption],
    references: Mapping[str, Sequence[Caption]],
    names: Collection[str] = ("meteor", "spice"),
) -> dict[str, float]:
    """Compute `meteor`, and `spice` where its parser is present, times 100; {} without the Java programs.

    Args:
        candidates: tokens of the generated caption by image.
        references: tokens of the human captions by image.
        names: `meteor`, `spice` or both.
    """
    folder = find_evaluation()
    if folder is None or not candidates:
        return {}
    generated = {image: [" ".join(tokens)] for image, tokens in candidates.items()}
    human = {image: [" ".join(tokens) for tokens in references[image]] for image in candidates}
    scores = {}
    for name in names:
        if name == "spice" and not _has_parser(folder):  # a download is the user's decision
            logger.info("no SPICE: %s is not in %s", _SPICE_NEEDS, folder / "spice" / "lib")
            continue
        scorer = getattr(importlib.import_module(f"pycocoevalcap.{name}.{name}"), name.capitalize())
        try:
            scores[name] = 100 * float(scorer().compute_score(human, generated)[0])
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            logger.warning("no %s: its Java program failed (%s)", name.upper(), error)
    return scores
