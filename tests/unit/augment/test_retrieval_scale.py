"""Cost of retrieval among 100,000 and a million sentences. Prints its figures:

pytest -m slow -s tests/unit/augment/test_retrieval_scale.py
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SMALL, LARGE, QUERIES = 100_000, 1_000_000, 100
WORDS = 100_000


def write_sentences(path: Path, count: int, seed: int = 0) -> None:
    """Make sentences of 5 to 25 words whose frequencies fall as 1 / rank, like those of real words."""
    rng = np.random.default_rng(seed)
    shares = np.cumsum(1 / np.arange(1, WORDS + 1))
    with open(path, "w") as file:
        for start in range(0, count, 10_000):
            sizes = rng.integers(5, 26, min(10_000, count - start))
            words = iter(np.searchsorted(shares, rng.random(sizes.sum()) * shares[-1]).tolist())
            file.writelines(" ".join(f"w{next(words)}" for _ in range(size)) + "\n" for size in sizes)


def measure(folder: Path, count: int) -> dict[str, float]:
    """Build index and embeddings of `count` sentences, search, and print seconds and megabytes."""
    import functools

    from unimo.augment.corpus import CaptionCorpus
    from unimo.augment.embedding import embed_index, open_embedder
    from unimo.augment.retrieval_job import _rank
    from unimo.augment.rewrite_job import index_captions
    from unimo.augment.terms import normalise, terms_of
    from unimo.progress import Progress

    silent = functools.partial(Progress, quiet=True)

    sentences = folder / f"{count}.txt"
    write_sentences(sentences, count)
    times = [time.perf_counter()]
    corpus = CaptionCorpus(str(sentences))
    index = index_captions(corpus, folder / str(count), 500, silent)
    times.append(time.perf_counter())
    embedder = open_embedder("lsa", index)
    rows = embed_index(index, embedder, {}, lambda n: None)
    times.append(time.perf_counter())
    asked = [corpus[int(at)] for at in np.linspace(0, count - 1, QUERIES)]
    times.append(time.perf_counter())
    found = [index.search(terms_of(one.text), 1000, without_texts={normalise(one.text)}) for one in asked]
    times.append(time.perf_counter())
    query = [np.asarray(row, np.float32) for row in embedder([caption.text for caption in asked])]
    kept = [len(_rank(hits, rows, row)[:100]) for hits, row in zip(found, query, strict=True)]
    times.append(time.perf_counter())
    index_s, embed_s, _, search, rank = np.diff(times)
    return {
        "sentences": count, "index_s": round(index_s, 1), "embeddings_s": round(embed_s, 1),
        "search_ms": round(1000 * search / QUERIES, 1), "rank_ms": round(1000 * rank / QUERIES, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "disk_mb": round(sum(f.stat().st_size for f in (folder / str(count)).iterdir()) / 1e6),
        "kept": min(kept),
    }  # fmt: skip


@pytest.mark.slow
def test_time_grows_with_the_corpus_and_memory_does_not(tmp_path: Path):
    told = []
    for count in (SMALL, LARGE):
        # Separate processes have separate peaks of memory.
        command = [sys.executable, __file__, str(tmp_path), str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        told.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(told[-1]))
    small, large = told
    assert small["kept"] == large["kept"] == 100
    assert large["index_s"] + large["embeddings_s"] < 15 * (small["index_s"] + small["embeddings_s"])
    assert large["search_ms"] < 15 * small["search_ms"]
    assert large["peak_mb"] < 3 * small["peak_mb"]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
