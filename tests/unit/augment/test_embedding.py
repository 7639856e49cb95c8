"""Sentence embeddings: available functions, fitting, and reuse of stored embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unimo.augment.embedding import embed_index, open_embedder, unit_rows
from unimo.augment.index import Entry, TfidfIndex, build_index
from unimo.errors import ConfigError, DataError


def index_of(folder: Path, *texts: str) -> TfidfIndex:
    entries = [Entry(f"s{at}", "", text, text.split()) for at, text in enumerate(texts)]
    return build_index(lambda start: entries[start:], folder / str(len(texts)), {})


def letters(texts: list[str]) -> np.ndarray:
    return np.array([[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts], float)


def test_embedders_are_checked(tmp_path: Path):
    for name in ("no.such:thing", "json:nothing", "nonsense"):
        with pytest.raises(ConfigError, match="cannot load the embedder"):
            open_embedder(name, None)
    assert open_embedder("json:dumps", None) is json.dumps
    with pytest.raises(DataError, match="one finite row each"):
        unit_rows(lambda texts: np.full((len(texts), 2), np.nan), ["a"])


def test_embeddings_of_other_weights_are_refused(tmp_path: Path):
    index = index_of(tmp_path, "A cat .", "A dog .")
    whole = np.array(embed_index(index, letters, {}, id))
    np.testing.assert_array_equal(embed_index(index, letters, {}, id), whole)
    with pytest.raises(DataError, match="other embeddings: that of the first sentence differs"):
        embed_index(index, lambda texts: letters([text + "zzz" for text in texts]), {}, id)


def test_lsa_takes_no_more_than_its_sample_and_says_what_it_lacks(tmp_path: Path, monkeypatch):
    from sklearn.feature_extraction.text import TfidfVectorizer

    for texts in (["a !", "b ?", "c"], ["word"]):
        with pytest.raises(DataError, match="two different words .* --embedder"):
            open_embedder("lsa", index_of(tmp_path, *texts))
    assert open_embedder("lsa", index_of(tmp_path, "one", "two"))(["one"]).shape == (1, 1)
    sizes, fit = [], TfidfVectorizer.fit_transform
    monkeypatch.setattr(
        TfidfVectorizer, "fit_transform", lambda self, t: sizes.append(len(t)) or fit(self, t)
    )
    many = index_of(tmp_path, *[f"word {at}" for at in range(1500)])
    for sample in (100, 700, 800, 1499, 1500):
        open_embedder("lsa", many, size=2, sample=sample)
        assert sample / 4 <= sizes[-1] <= sample
