"""Names of splits: one table of how they are spelled, and what follows from it.

Files, folders, records and lists joined by `+` are read by it alone, so that no validation or test set is
trained on because of an unusual name.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unimo.errors import ConfigError, DataError, RecordError, shown
from unimo.settings import DataConfig

log = logging.getLogger(__name__)
SPELLINGS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "devel", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
    "restval": ("restval",),
    "trainable_val": ("trainable_val", "trainableval", "valminusminival", "nominival"),
    "rest_val": ("rest_val", "minival"),
    "trainval": ("trainval", "train_val", "trainval35k"),
    "test-dev": ("test-dev", "testdev"),
    "test-std": ("test-std", "teststd", "test-standard"),
    "testA": ("testA",),
    "testB": ("testB",),
    "unlabeled": ("unlabeled", "unlabelled"),
}
"""Split -> how its name is spelled, first as here; case does not matter, nor does which of `_-.` and blank
separates words. `test1` to `test9` (NLVR2) are splits of their own, too."""
_WHOLES = {"trainable_val": "val", "rest_val": "val", "test-dev": "test", "test-std": "test"}
"""Part of a split -> the whole; the parts of one split have no samples in common."""
_ALSO = {"train": ("train", "restval")}
_INSTEAD = {"val": ("rest_val",)}
_warned: set[str] = set()
"""Splits of files in which records of train were found; one warning each is enough."""


def _words(text: str) -> str:
    """Return a name in lower case with `_` between its words: `cocoVal-2014` becomes `coco_val_2014`."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[A-Za-z0-9])(?=[A-Z][a-z])", "_", text).lower())


_NAMES = {_words(spelling): name for name, many in SPELLINGS.items() for spelling in many}
_SHOWN = {_words(spelling): spelling for many in SPELLINGS.values() for spelling in many}
_ORDER = {spelling: place for place, spelling in enumerate(_SHOWN.values())}
_SPLIT = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(_NAMES, key=len, reverse=True))})(?:_?(?:set|split))?(\d*)(?![a-z0-9])"
)
_SHARES = ("balanced", "unbalanced")
"""Lists with some samples of a split of NLVR2: words before its name that mean what those behind it do."""
# What may follow without meaning another part of the data: numbers of shards and versions.
_NUMBER = re.compile(r"(?:of|part|shard|chunk|file|v)?\d*")
_SAYS_NOTHING = frozenset(
    ("", "image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "data")
)
_YEAR = re.compile(r"(?:19|20)\d\d")


class Split(NamedTuple):
    """Reading of the name of a file or folder, or of a request, as that of a split."""

    name: str
    """One of `SPELLINGS`, or `test1` to `test9`."""
    spelling: str
    """The name as it is spelled: `dev`."""
    year: str = ""
    """`2014` in `val2014`."""
    part: str = ""
    """Further words behind it: `matched` in `dev_matched`."""
    is_fixed: bool = False
    """Whether it ends in `_fix`: VQA v2 with normalised answers."""
    prefix: str = ""
    """Words before it: `coco` in `coco_val`."""

    @property
    def label(self) -> str:
        """The words to ask for it: `dev_matched`, `balanced_dev`, `val2014`, `rest_val_fix`."""
        if self.part in _SHARES:
            return f"{self.part}_{self.spelling}{self.year}{'_fix' * self.is_fixed}"
        return f"{self.spelling}{self.year}{'_' * bool(self.part)}{self.part}{'_fix' * self.is_fixed}"

    @property
    def alone(self) -> bool:
        """Whether the name says nothing else, as those of folders and of files for text generation do."""
        return set(f"{self.prefix}_{self.part}".split("_")) <= _SAYS_NOTHING


@functools.lru_cache(maxsize=1 << 10)
def read_split(text: str) -> Split | None:
    """Find the split that the name of a file (without its suffix) or of a folder says; None if it says none.

    The name of the split stands at the end, before a year, `_fix` and numbers of shards, else anywhere. A
    name that says several is in none of them, but in a split of its own.
    """
    text = _words(text)
    found = list(_SPLIT.finditer(text))
    if not found:
        return None
    last = found[-1]
    behind = text[last.end() :].split("_")
    part = "_".join(word for word in behind if word != "fix" and not _NUMBER.fullmatch(word))
    names = {_NAMES[match[1]] for match in found}
    if part and len(names) > 1:
        return Split("+".join(sorted(names)), "_".join(match[1] for match in found), part=part)
    name, spelling, digits = _NAMES[last[1]], _SHOWN[last[1]], last[2]
    if name == "test" and len(digits) == 1:
        name = spelling = f"test{digits}"
    year = digits if _YEAR.fullmatch(digits) else ""
    prefix = text[: last.start()].strip("_")
    before, _, word = prefix.rpartition("_")
    if word in _SHARES and not part:
        prefix, part = before, word
    return Split(name, spelling, year, part, "fix" in behind, prefix)


def splits_of(names: Sequence[str], where: object) -> list[Split] | None:
    """Return the split of each file, from its name without suffix; None if no name says one.

    Args:
        where: the folder or pattern, for messages.

    Raises:
        DataError: some names say their split and others do not.
    """
    splits = [read_split(name) for name in names]
    if not any(splits):
        return None
    if None in splits:
        unclear = [name for name, split in zip(names, splits, strict=True) if split is None]
        known = next(name for name in names if name not in unclear)
        raise DataError(
            f"{where}: no telling to which split {', '.join(unclear[:5])} belong, beside {known}, whose name "
            f"says it; rename them ({unclear[0]}_train), move them, or give a pattern such as {known[:3]}*"
        )
    return splits


def select(splits: Sequence[Split], word: str) -> list[int]:
    """Return the places of a split among those of files or folders.

    `train` takes `restval` along, where there is one (as is usual); `val` without files is `rest_val`. A
    variant, raw or `_fix`, is read, the raw one if there are both. Of the files that differ only in how they
    spell the split, those spelled as asked for are taken; the others are left out with a warning.

    Raises:
        DataError: only the year tells whether files belong to the split.
    """
    wanted = read_split(word)
    if wanted is None or _words(wanted.label) != _words(word):  # "dev2" is not "dev"
        return []
    for name in (wanted.name, *_INSTEAD.get(wanted.name, ())):
        for is_fixed in {wanted.is_fixed: None, True: None}:
            groups: dict[tuple[str, str], list[int]] = {}
            for place, split in enumerate(splits):
                if split.name in _ALSO.get(name, (name,)) and split.is_fixed == is_fixed:
                    groups.setdefault((split.name, split.prefix), []).append(place)
            if chosen := [place for places in groups.values() for place in _prefer(splits, places, wanted)]:
                return sorted(chosen)
    return []


def _prefer(splits: Sequence[Split], places: list[int], wanted: Split) -> list[int]:
    """Choose among files of one corpus and split, which differ in spelling, year and further words."""
    year, part = wanted.year, wanted.part
    kept = [i for i in places if part in ("", splits[i].part) and year in ("", splits[i].year)]
    orders = [(splits[i].spelling != wanted.spelling, _ORDER.get(splits[i].spelling, 0)) for i in kept]
    kept = [i for i, order in zip(kept, orders, strict=True) if order == min(orders)]
    kept = [i for i in kept if splits[i].year == year] or kept
    if len({splits[i].year for i in kept}) > 1:
        labels = list(dict.fromkeys(splits[i].label for i in kept))
        raise DataError(f"no telling which of {', '.join(labels)} to read; ask for {labels[0]}, for example")
    kept = [i for i in kept if splits[i].part == part] or kept
    left = [splits[i].label for i in places if i not in kept]
    if kept and left and not (part or year):
        log.warning("%s is read, %s left out", splits[kept[0]].label, ", ".join(left))
    return kept


def said_split(value: object, where: str) -> Split | None:
    """Return the split that a record says it is of, without year and spelling; None where it says none.

    Args:
        value: what stands under `split` in the record; an empty text says none.
        where: file and place, for messages.

    Raises:
        RecordError: no name of a split.
    """
    if value is None or value == "":
        return None
    split = read_split(value) if isinstance(value, str) else None
    if split is None:
        raise RecordError(f"{where}: split {shown(value)} is none of {', '.join(SPELLINGS)}; correct it")
    return Split(split.name, SPELLINGS.get(split.name, (split.name,))[0], part=split.part)


def check_said_split(value: object, file: Split | None, where: str, needed: bool = False) -> None:
    """Check that a record belongs to its file, as far as it says so itself: no val record in a train file.

    One of train in another file is no fault of training: the first is a warning.

    Args:
        value, where: see `said_split`.
        file: split that the name of the file says; None if it says none.
        needed: whether the record must say its split, as others of such a file do.

    Raises:
        RecordError: no name of a split, a split that is held out from that of the file, or none where it is
            needed.
    """
    said = said_split(value, where)
    if said is None and needed:
        raise RecordError(f"{where}: it says no `split`, and others of the file do; give it one")
    if said is None or file is None or common(file.label, [said.label]) or select([said], file.label):
        return
    if said.name not in _ALSO["train"]:
        raise RecordError(
            f"{where}: it says that it is of split {shown(value)}, and its file is of {file.label}; move it "
            "to another file"
        )
    if file.label not in _warned:
        _warned.add(file.label)
        log.warning("%s: it says that it is of %s, in a file of %s", where, said.label, file.label)


def split_words(splits: str) -> tuple[str, ...]:
    """Return the names in a list such as `train+trainable_val`.

    Raises:
        ConfigError: an empty name, or two names that share samples.
    """
    words = tuple(splits.split("+"))
    if not all(words):
        raise ConfigError(f"split {splits!r}: expected names joined by +, such as train+trainable_val")
    for number, word in enumerate(words):
        if other := common(word, words[:number]):
            raise ConfigError(
                f"split {splits!r} reads samples twice: {word} and {other} share them; leave one of them out"
            )
    return words


def common(word: str, others: Iterable[str]) -> str:
    """Return the first of other splits that shares samples with a split, or an empty string."""
    own = _places(word)
    for other in others:
        for whole, part in _places(other):
            if any(whole == its and not (part and mine and part != mine) for its, mine in own):
                return other
    return ""


def _places(word: str) -> list[tuple[str, str]]:
    """Return the whole splits that a split has samples of, each with its part, empty for all of it."""
    split = read_split(word)
    if split is None:
        return [(word, "")]
    if split.name == "trainval":
        return [("train", ""), ("val", "")]
    if split.name in _WHOLES:
        return [(_WHOLES[split.name], split.name)]
    return [(split.name, split.part)]


def validation_split(data: DataConfig, paper: str = "") -> str:
    """Return the split that is evaluated during training and chooses the checkpoint.

    It is `rest_val` after training on `trainable_val`, else `val`; with `data.selection=paper` it is `paper`.

    Args:
        data: `train_split` and `selection` of a run.
        paper: split of `data.selection=paper`; empty for tasks that have none.

    Raises:
        ConfigError: it is trained on (with `data.selection=paper` it may be), the test split is, or
            `selection` does not belong to the task.
    """
    words = split_words(data.train_split)
    if data.selection == "paper" and not paper:
        raise ConfigError(
            "data.selection=paper is for --task retrieval, vqa, gqa and image_classification; leave it out"
        )
    splits = {word: read_split(word) or Split(word, word) for word in words}
    divided = any(split.name == "trainable_val" for split in splits.values())
    found = paper if data.selection == "paper" else "rest_val" if divided else "val"
    if any(split.is_fixed for split in splits.values()):
        found += "_fix"
    if tested := next((word for word, split in splits.items() if split.name.startswith("test")), ""):
        raise ConfigError(f"data.train_split={data.train_split}: {tested} is to test; leave it out")
    if data.selection == "clean" and (trained := common(found, words)):
        raise ConfigError(
            f"data.train_split={data.train_split}: {trained} shares samples with {found}, which chooses the "
            "checkpoint; train on train+trainable_val, which leaves rest_val for that"
            + (f", or give data.selection=paper, which chooses it by {paper}" if paper else "")
        )
    return found
