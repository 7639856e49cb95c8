"""Index terms of sentences and labels: what the inverted index finds a text by."""

from __future__ import annotations

from unimo.augment.tagging import split_words

STOP_WORDS = frozenset(
    "a an the this that these those and or but of in on at to from by with for into onto as while is are was "
    "were be been being has have had do does did it its he she they them his her their him who which there "
    "'s ’s".split()
)
"""Words that nearly every sentence has: their postings are the longest and say the least."""

_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "sheep": "sheep", "leaves": "leaf", "knives": "knife",
    "wolves": "wolf", "shelves": "shelf", "loaves": "loaf", "calves": "calf",
    "shoes": "shoe", "canoes": "canoe",
}  # fmt: skip


def terms_of(text: str) -> list[str]:
    """Words of a sentence in lower case, without punctuation and `STOP_WORDS`."""
    return [word for word in split_words(text) if word[0].isalnum() and word not in STOP_WORDS]


def singular(words: str) -> str:
    """The singular of a plural noun phrase, its last word changed: "tennis balls" -> "tennis ball"."""
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
