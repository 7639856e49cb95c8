"""Reduced forms of words and texts: index terms, stems, singulars."""

from __future__ import annotations

import functools
from collections.abc import Callable

from unimo.data.masking.tagging import split_words
from unimo.errors import CapabilityError

STOP_WORDS = frozenset(
    "a an the this that these those and or but of in on at to from by with for into onto as while is are was "
    "were be been being has have had do does did it its he she they them his her their him who which there "
    "'s ’s".split()
)
"""Words of nearly every sentence, whose postings are the longest and the least informative."""

_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "sheep": "sheep", "leaves": "leaf", "knives": "knife",
    "wolves": "wolf", "shelves": "shelf", "loaves": "loaf", "calves": "calf",
    "shoes": "shoe", "canoes": "canoe",
}  # fmt: skip

_VARIANTS = (
    "grey gray theatre theater centre center tyre tire pyjamas pajamas doughnut donut moustache mustache "
    "plough plow kerb curb aeroplane airplane ran run sat sit stood stand lay lie held hold wore wear "
    "worn wear rode ride ridden ride threw throw thrown throw caught catch swam swim swung swing stuck "
    "stick drove drive driven drive ate eat eaten eat drank drink flew fly flown fly fell fall fallen "
    "fall took take taken take made make went go gone go led lead bit bite blew blow built build dug dig "
    "fought fight hung hang kept keep knelt kneel leapt leap met meet shot shoot slept sleep spun spin "
    "broke break broken break wrote write written write drew draw drawn draw grew grow grown grow sang "
    "sing gave give given give got get hid hide hidden hide shook shake tore tear torn tear bent bend "
    "swept sweep froze freeze frozen freeze"
).split()
"""Spellings and verb forms that a stemmer does not unify, each followed by its standard form."""


def terms_of(text: str) -> list[str]:
    """Return the words of a sentence in lower case, without punctuation and `STOP_WORDS`."""
    return [word for word in split_words(text) if word[0].isalnum() and word not in STOP_WORDS]


def singular(words: str) -> str:
    """Return the singular of a plural noun phrase: "tennis balls" -> "tennis ball"."""
    start, space, last = words.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("ies") and len(last) > 4:
        last = last[:-3] + "y"
    elif last.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        last = last[:-2]
    elif last.endswith("s") and not last.endswith(("ss", "us")):
        last = last[:-1]
    return start + space + last


def stems(text: str) -> frozenset[str]:
    """Return the stems of the terms of a text: the same for "Blonde women ran" and "a blond woman runs".

    Raises:
        CapabilityError: NLTK is not installed.
    """
    return frozenset(map(_stemmer(), terms_of(text)))


@functools.cache
def _stemmer() -> Callable[[str], str]:
    try:
        from nltk.stem.snowball import EnglishStemmer
    except ImportError as error:
        raise CapabilityError(
            f"stems need nltk, which textblob brings ({error}); try pip install textblob"
        ) from error
    stem = EnglishStemmer().stem
    pairs = dict(zip(_VARIANTS[::2], _VARIANTS[1::2], strict=True)) | _IRREGULAR
    variants = {stem(word): stem(other) for word, other in pairs.items()}

    @functools.lru_cache(100_000)
    def unified(word: str) -> str:
        return variants.get(stem(word), stem(word)).replace("our", "or")  # colour, neighbour

    return unified


def normalise(text: str) -> str:
    """Reduce a caption to its words without case and punctuation, by which captions are compared."""
    return " ".join(word for word in split_words(text) if word[0].isalnum())
