"""Readers: one class a file format, all giving records by index; `open_corpus` picks among them."""

from unimo.data.readers.arrow import ArrowDataset
from unimo.data.readers.base import ConcatDataset, Dataset, Kind
from unimo.data.readers.open import find_splits, open_all_splits, open_answers, open_corpus
from unimo.data.readers.jsonl import JsonlDataset
from unimo.data.readers.tar import TarDataset

__all__ = [
    "ArrowDataset",
    "ConcatDataset",
    "Dataset",
    "JsonlDataset",
    "Kind",
    "TarDataset",
    "find_splits",
    "open_all_splits",
    "open_answers",
    "open_corpus",
]
