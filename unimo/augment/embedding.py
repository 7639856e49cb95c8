"""Sentence embeddings that rerank the results of the inverted index.

Any function from texts to rows of numbers can be named as `package.module:function`; the paper uses BERT.
The default needs no weights: latent semantic analysis of the corpus itself (TF-IDF and a truncated SVD).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unimo.augment.index import TfidfIndex
from unimo.digests import find_damage, seal
from unimo.errors import ConfigError, DataError
from unimo.files import write_text
from unimo.jobs import check_same_job

Embedder = Callable[[Sequence[str]], np.ndarray]
"""Maps texts to float rows [texts, size], which need not have length one."""

_BATCH = 4096
_DIGEST = "embeddings.sha256"


def open_embedder(name: str, index: TfidfIndex, *, size: int = 128, sample: int = 100_000) -> Embedder:
    """Open an embedder: `lsa`, fitted to at most `sample` sentences, or `package.module:function`.

    Raises:
        ConfigError: the function cannot be imported.
        DataError: too few words for `lsa`.
    """
    if name == "lsa":
        return _fit_lsa(index, size, sample)
    module, found, function = name.partition(":")
    try:
        if not found:
            raise ValueError("expected lsa or package.module:function")
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"cannot load the embedder {name!r}: {error}") from error


def _fit_lsa(index: TfidfIndex, size: int, sample: int) -> Embedder:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    step = -(-len(index) // sample)
    texts = [text for at in range(0, len(index), step * 256) for text in index.texts(at, at + 256)][:sample]
    vectorizer = TfidfVectorizer(sublinear_tf=True, max_features=50_000, dtype=np.float32)
    try:
        table = vectorizer.fit_transform(texts)
        reducer = TruncatedSVD(max(1, min(size, min(table.shape) - 1)), random_state=0).fit(table)
    except ValueError as error:
        raise DataError(
            f"lsa needs sentences with at least two different words of two letters, and found none in "
            f"{index.folder} ({error}); name another corpus and --work, or an --embedder of your own"
        ) from error
    return lambda texts: reducer.transform(vectorizer.transform(texts))


def unit_rows(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Compute embeddings of length one, float16; zeros stay zeros.

    Raises:
        DataError: the embedder did not return one finite row for each text.
    """
    rows = np.asarray(embedder(texts), np.float32)
    if rows.ndim != 2 or len(rows) != len(texts) or not np.isfinite(rows).all():
        raise DataError(
            f"the embedder returned {rows.shape} for {len(texts)} texts; expected one finite row each"
        )
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float16)


def embed_index(
    index: TfidfIndex, embedder: Embedder, about: Mapping[str, Any], advance: Callable[[int], object]
) -> np.ndarray:
    """Compute the embeddings of all sentences of an index, each once, as a memory map in its folder.

    A run continues where a killed one stopped, and calls `advance` with the number of finished sentences.
    The digest of finished embeddings is in `embeddings.sha256`; it is checked up to 1 GB.

    Raises:
        DataError: the folder has the embeddings of another function, by its name and settings in `about`, or
            damaged ones.
    """
    first = unit_rows(embedder, index.texts(0, 1))[0]
    size = len(first)
    path, note = index.folder / "embeddings.f16", index.folder / "embeddings.job.json"
    job = {**about, "size": size, "sentences": len(index)}
    if path.exists():
        check_same_job(note, job, f"{path} holds other embeddings")
        if path.stat().st_size < 2 * size * len(index):
            (index.folder / _DIGEST).unlink(missing_ok=True)
        elif damage := find_damage(index.folder, [path.name], _DIGEST):
            raise DataError(f"{damage}; remove {path} to embed again")
    else:
        (index.folder / _DIGEST).unlink(missing_ok=True)
        write_text(note, json.dumps(job, indent=2) + "\n")
        path.touch()
    done = path.stat().st_size // (2 * size)
    # The function of that name may have other weights than before.
    if done and not np.allclose(np.fromfile(path, np.float16, size), first, atol=0.02):
        raise DataError(
            f"{path} holds other embeddings: that of the first sentence differs from what the function "
            "returns now; name another folder, or remove the file to embed again"
        )
    advance(done)
    with open(path, "r+b") as file:
        file.truncate(done * 2 * size)
        file.seek(done * 2 * size)
        while done < len(index):
            rows = unit_rows(embedder, index.texts(done, min(done + _BATCH, len(index))))
            file.write(rows.tobytes())
            done += len(rows)
            advance(len(rows))
    if not (index.folder / _DIGEST).exists():
        seal(index.folder, [path.name], _DIGEST)
    return np.memmap(path, np.float16, "r", shape=(len(index), size))
