"""Finding the files of a corpus split and opening them with the reader of their format.

The split is the end of a file's name: `f30k_caption_karpathy_val.arrow`, `vqav2_train_fix.arrow`,
`conceptual_caption_train_7.arrow`, `Validation.jsonl`, `train-00012-of-00100.tar`. `data/splits.py` knows how
they are spelled. Rules:

- files whose names say no split (`vg.arrow`, `sbu_3.arrow`, `00042.tar`) belong to train; beside files whose
  names do they are refused;
- `train` includes `restval`, where there is one (as is usual); `val` also finds `dev`, else `rest_val`;
  `test` is only `test`; several splits are joined with a plus: `train+trainable_val`. Each must be there, and
  two that share samples (`val` and `rest_val`) are refused;
- of VQA files written twice, raw and normalised (`_fix`), the raw ones are read; `train_fix` selects the
  others;
- in a folder with several kinds of Arrow tables (ViLT users keep all of theirs together), those with the
  columns of the requested kind are read;
- of several formats in one folder Arrow goes before tar, and tar before jsonl;
- a JSON list of the same objects (`coco_train.json` of ALBEF) and a `.token` file of Flickr30k are read if
  named, alone or by a pattern;
- if no file of the folder names a split, its records may: a column `split` of Arrow tables, or the key of
  jsonl lines and JSON lists; tar shards that name none are train;
- records that say another split than the name of their file are broken;
- if neither files nor records say one, images of jsonl files are split by hash (`readers/jsonl.py`);
- texts alone may also be `*.txt` files, one sentence a line; images alone a folder of image files, with a
  subfolder for each split or without splits (all of them train). Such corpora are not split by hash.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unimo.data.readers.answers import check_classes, unnamed_class
from unimo.data.readers.arrow import CLASS_MAP, PAIR_OF_IMAGES, TEXT_COLUMN, ArrowDataset
from unimo.data.readers.base import (
    Dataset,
    Kind,
    LabeledImages,
    RelabeledImages,
    concat,
    relabel,
)
from unimo.data.readers.cifar import open_cifar
from unimo.data.readers.divided import TRAIN, Division, divide_by_hash, divide_by_records, open_divided
from unimo.data.readers.image_folder import (
    PictureDataset,
    PromptDataset,
    class_folders,
    find_pictures,
    open_image_folder,
    split_folders,
)
from unimo.data.readers.jsonl import HASHED_SPLITS, JsonlDataset, TextLinesDataset
from unimo.data.readers.tar import TarDataset
from unimo.data.scenes.dataset import SceneShapes, open_scenes
from unimo.data.scenes.dataset import answers as scene_answers
from unimo.data.splits import Split, select, split_words, splits_of
from unimo.data.tables import column_names
from unimo.errors import DataError, RecordError, SplitError, shown
from unimo.files import checked_path, listed, read_json
from unimo.settings import CorpusConfig, DataConfig

log = logging.getLogger(__name__)
_WHOLE = "all"
_UNPAIRED = ("texts", "images")
_READERS: dict[str, Callable[[Path, Kind, str], Dataset]] = {
    ".arrow": ArrowDataset,
    ".tar": TarDataset,
    ".jsonl": JsonlDataset,
    ".json": JsonlDataset,
    ".token": JsonlDataset,
    ".txt": lambda path, kind, name: TextLinesDataset(path, name),
}
_NAMED = (".json", ".token")
"""Formats that are read if a file or a pattern is named: most files with these endings are something else."""
_OTHER_FORMATS = {
    ".tar.gz": "unpack *.tar.gz with gunzip: members are read by their place in the file",
    ".tgz": "unpack *.tgz with gunzip: members are read by their place in the file",
    ".parquet": "convert *.parquet to jsonl and files of images, or to Arrow files (pyarrow.ipc.new_file)",
    ".token": "lines of *.token become jsonl lines if their file is named, with its pictures beside it; "
    "Flickr30k with its usual splits: tools/prepare_data.py karpathy --annotations dataset_flickr30k.json",
    ".csv": 'write a line {"image": ..., "text": ...} of jsonl for each row',
    ".json": 'a JSON list of {"image": ..., "caption": ...} (ALBEF) is read if its file is named, or a '
    "pattern such as DIR/coco_*.json; Karpathy's, VQA's and others: tools/prepare_data.py",
}
"""Suffix -> what to do with files of that format."""


class _File(NamedTuple):
    path: Path
    split: Split | None
    """None where no file of the corpus says its split."""


def open_corpus(corpus: CorpusConfig, split: str, kind: Kind, data: DataConfig) -> Dataset:
    """Open one split of a corpus.

    Args:
        corpus: `scenes`, a folder, one file, or a pattern such as `arrows/coco_*`.
        split: `train`, `val`, `test`, another name in the file names, or several joined by `+`.
        kind: kind of samples. Pairs of a corpus with a `prompt` are made from labelled images.
        data: the root of relative paths and the size of `scenes`.

    Raises:
        DataError: no such corpus or split (those found are listed), damaged files, or annotations without
            images.
    """
    kind = kind_of(corpus, kind)
    if corpus.prompt and kind == "pairs":
        return PromptDataset(open_labeled_images(corpus, split, data), corpus.prompt)
    if corpus.path == "scenes":
        return open_scenes(kind, split, data.scenes)
    name, path = corpus.name or Path(corpus.path.rstrip("/*")).stem, resolve_path(corpus, data)
    if kind == "images" and (pictures := _picture_folder(path)):
        return _open_pictures(pictures, split, name)
    files = _find_files(path, kind)
    opened, division = _divide(files, kind, name)
    if division:
        return open_divided(opened, division, split, name, path)
    splits, chosen = [file.split or TRAIN for file in files], {}
    for word in split_words(split):
        found = select(splits, word)
        if not found:
            raise SplitError(
                f"{path} has no split {word!r} of {kind}; found: {', '.join(_split_names(files))} "
                "(data.train_split says what to train on)"
            )
        # train may have brought restval already
        chosen |= dict.fromkeys(files[place].path for place in found)
    parts = [opened.get(path) or _open_file(path, kind, name) for path in chosen]
    dataset = concat(parts, name)
    if len(dataset) == 0:
        raise SplitError(f"split {split!r} in {path} has no samples")
    log.info("corpus %s, %s: %d samples in %d files", name, split, len(dataset), len(parts))
    return dataset


def kind_of(corpus: CorpusConfig, kind: Kind) -> Kind:
    """Return the kind that a corpus is read as where `kind` is asked for: `pairs` may be questions."""
    return "vqa" if corpus.questions and kind == "pairs" else kind


def open_all_splits(corpus: CorpusConfig, kind: Kind, data: DataConfig) -> Dataset:
    """Open all splits of a corpus; of a folder of image files also those outside the subfolders of splits.

    Raises:
        DataError: as `open_corpus`.
    """
    folder = corpus.path != "scenes" and kind == "images" and _picture_folder(resolve_path(corpus, data))
    words = [_WHOLE] if folder else find_splits(corpus, kind, data)
    parts = [open_corpus(corpus, word, kind, data) for word in words]
    return concat(parts, parts[0].name)


def find_splits(corpus: CorpusConfig, kind: Kind, data: DataConfig) -> list[str]:
    """Return the names of the splits of a corpus.

    Raises:
        DataError: no such corpus.
    """
    if corpus.path == "scenes":
        return list(HASHED_SPLITS)
    kind, path = kind_of(corpus, kind), resolve_path(corpus, data)
    if kind == "images" and (pictures := _picture_folder(path)):
        return [split.label for split in _picture_splits(pictures).values()]
    files = _find_files(path, kind)
    division = _divide(files, kind, "")[1]
    return [split.label for split in division] if division else _split_names(files)


def open_answers(corpus: CorpusConfig, data: DataConfig) -> list[str]:
    """Return the answer classes of a VQA corpus, in the order of their ids.

    They are read from `answers.json` beside the files if there is one; else from the (label, answer) pairs of
    the Arrow tables, as in ViLT; else they are all training answers in first-seen order.

    Raises:
        DataError: no answers, or tables whose ids contradict each other or leave gaps.
    """
    if corpus.path == "scenes":
        return scene_answers()
    path = resolve_path(corpus, data)
    classes = (path if path.is_dir() else path.parent) / "answers.json"
    if classes.is_file():
        return check_classes(read_json(classes, DataError), classes, DataError)
    files = _find_files(path, "vqa")
    train = [file.path for file in files if "test" not in (file.split or TRAIN).name]
    answers = _answers_of_tables(path for path in train if path.suffix.lower() == ".arrow")
    return answers or _answers_of_records(open_corpus(corpus, data.train_split, "vqa", data))


def resolve_path(corpus: CorpusConfig, data: DataConfig) -> Path:
    """Return the path of a corpus, which is relative to `data.root`.

    Raises:
        DataError: no file can have this name.
    """
    root, path = (checked_path(each, DataError, "data at") for each in (data.root, corpus.path))
    return checked_path(root / path, DataError, "data at")


def _find_files(path: Path, kind: Kind) -> list[_File]:
    """Find the files of the preferred format of a folder, file or pattern."""
    suffixes = _suffixes(kind)
    if path.is_dir():
        candidates = listed(path)
    elif path.is_file():
        candidates, suffixes = [path], (*suffixes, *_NAMED)
    elif "*" in path.name and path.parent.is_dir():
        candidates, suffixes = listed(path.parent, path.name), (*suffixes, *_NAMED)
    else:
        raise DataError(
            f"no data at {path.absolute()}; make it with tools/prepare_data.py, give another folder, "
            "or use the built-in corpus `scenes`"
        )
    is_pair = kind == "nlvr2"  # whose tables have `questions` as those of VQA do
    alone = {"nlvr2": PAIR_OF_IMAGES[0], "segmentation": CLASS_MAP}
    column = alone.get(kind) or TEXT_COLUMN.get(kind, "image")
    for suffix in suffixes:
        files = [file for file in candidates if file.suffix.lower() == suffix]
        if suffix == ".arrow":
            columns = {file: column_names(file) for file in files}
            pairs = {file for file in files if set(PAIR_OF_IMAGES) & set(columns[file])}
            files = [file for file in files if column in columns[file] and (file in pairs) == is_pair]
        if files:
            splits = splits_of([file.stem for file in files], path) or [None] * len(files)
            return list(map(_File, files, splits))
    seen = ", ".join(file.name for file in candidates[:5])
    others = " or ".join([f"*{suffix}" for suffix in _suffixes(kind)[1:]])
    more = {"images": f"{others}, or a folder of pictures", "segmentation": "of tools/prepare_data.py ade20k"}
    raise DataError(
        f"{path} holds no {kind} data: expected *.arrow with a column `{column}`, {more.get(kind, others)}; "
        f"found {seen or 'nothing'}{_way_out(candidates)}"
    )


def _way_out(files: Sequence[Path]) -> str:
    """Return what to do with files in known formats that are not read; empty if there are none."""
    for suffix, advice in _OTHER_FORMATS.items():
        if any(file.name.lower().endswith(suffix) for file in files):
            return f"; {advice}"
    return ""


def _suffixes(kind: Kind) -> tuple[str, ...]:
    """Return the suffixes of the formats of a kind, in order of preference."""
    if kind == "segmentation":
        return (".arrow",)
    if kind == "nlvr2":
        return (".arrow", ".jsonl")  # a sample of a shard has one image
    return (".arrow", ".tar", ".jsonl", *((".txt",) if kind == "texts" else ()))


def _picture_folder(path: Path) -> Path | None:
    """Return the folder if its images are plain files rather than in tables or shards."""
    if path.is_dir() and not any(file.suffix.lower() in _suffixes("images") for file in listed(path)):
        return path
    return None


def _picture_splits(folder: Path) -> dict[str, Split]:
    return split_folders(folder, labeled=False) or {"": TRAIN}


def _open_pictures(folder: Path, split: str, name: str) -> Dataset:
    """Open the images of a split's subfolder, or of the whole folder, which without subfolders is train."""
    roots = []
    splits = {} if split == _WHOLE else _picture_splits(folder)
    for word in split_words(split):
        found = [""] if word == _WHOLE else [list(splits)[i] for i in select(list(splits.values()), word)]
        if not found:
            labels = ", ".join(split.label for split in splits.values())
            raise SplitError(f"{folder} has no split {word!r} of images; found: {labels}")
        roots += [folder / part for part in found]
    files = [file for root in roots for file in find_pictures(root)]
    if not files:
        seen = ", ".join(sorted(file.name for file in folder.iterdir())[:5])
        raise DataError(f"{folder} holds no pictures (jpg, png, webp, ...); found {seen or 'nothing'}")
    log.info("corpus %s, %s: %d pictures", name, split, len(files))
    return PictureDataset(files, folder, name)


def _split_names(files: list[_File]) -> list[str]:
    return sorted({(file.split or TRAIN).label for file in files})


def _open_file(path: Path, kind: Kind, name: str) -> Dataset:
    return _READERS[path.suffix.lower()](path, kind, name)


def _divide(files: list[_File], kind: Kind, name: str) -> tuple[dict[Path, Dataset], Division]:
    """Open files whose names say no split, if their records may, and divide their samples.

    Returns:
        The opened files; none, and no splits, if names say them or all samples are of train.
    """
    suffix = files[0].path.suffix.lower()
    if files[0].split or suffix not in (".arrow", ".jsonl", *_NAMED):
        return {}, {}
    opened = {file.path: _open_file(file.path, kind, name) for file in files}
    division = divide_by_records(opened)
    if not division and suffix != ".arrow" and kind not in _UNPAIRED:
        division = divide_by_hash(opened)
        for dataset in opened.values():
            dataset.may_share = False
    return opened, division


def _answers_of_tables(paths: Iterable[Path]) -> list[str]:
    found: dict[int, str] = {}
    labels: dict[str, int] = {}
    for path in paths:
        for label, answer in ArrowDataset(path, "vqa").answers().items():
            if found.setdefault(label, answer) != answer:
                raise DataError(
                    f"{path}: answer {label} is {shown(answer)} here and {shown(found[label])} elsewhere"
                )
            if labels.setdefault(answer, label) != label:
                raise DataError(
                    f"{path}: {shown(answer)} is answer {label} here and {labels[answer]} elsewhere"
                )
    count = max(found, default=-1) + 1
    if len(found) < count:
        # Rare answers may have lost all their questions; their class keeps its id, with a placeholder name.
        log.warning("%d of %d answer ids occur in no table", count - len(found), count)
    return [found.get(label, unnamed_class(label)) for label in range(count)]


def _answers_of_records(dataset: Dataset) -> list[str]:
    found: dict[str, Any] = {}
    for index in range(len(dataset)):
        try:
            found.update(dict.fromkeys(dataset[index].answer_scores))
        except RecordError:
            continue
    if not found:
        raise DataError(f"corpus {dataset.name} has no answers to learn from")
    return list(found)


def open_labeled_images(corpus: CorpusConfig, split: str, data: DataConfig) -> LabeledImages:
    """Open one split of an image classification set.

    Args:
        corpus: `scenes` (the shape of an object), a tree with one folder for each class
            (`readers/image_folder.py`), or a folder of CIFAR files (`readers/cifar.py`).
        split: `train`, `val`, `test`, or several joined by `+`.

    Raises:
        DataError: no such data set or split, or damaged files.
    """
    parts = [_open_labeled(corpus, word, data) for word in split_words(split)]
    if len(parts) == 1:
        return parts[0]
    names = parts[0].class_names
    whole = concat([relabel(part, names) for part in parts], parts[0].name)
    return RelabeledImages(whole, names, range(len(names)))


def _open_labeled(corpus: CorpusConfig, split: str, data: DataConfig) -> LabeledImages:
    if corpus.path == "scenes":
        return SceneShapes(split, data.scenes)
    path = resolve_path(corpus, data)
    if not path.is_dir():
        raise DataError(
            f"no folder {path.absolute()}; expected one folder a class (train/<class>/*.jpg) or the files "
            "of CIFAR-10 or CIFAR-100; the built-in data set is `scenes`"
        )
    name = corpus.name or path.name
    cifar = open_cifar(path, split, name)
    if cifar is None and not class_folders(path) and (shards := listed(path, "*.tar")):
        raise DataError(
            f"{path} holds tar shards ({shards[0].name}), expected one folder a class; unpack them, and put "
            "the pictures into train/<class>/ as their cls members say"
        )
    return open_image_folder(path, split, name) if cifar is None else cifar
