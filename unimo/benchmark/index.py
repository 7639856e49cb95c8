"""Compare an index of images with plain FAISS: processor time to build, append and search, memory, recall.

Each side runs in a process of its own. Vectors are made up, of two kinds: around centres, as those of images
are, and without any structure, where no index can save much.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unimo.inference.search.nearest import Found, faiss, open_nearest, prepare, recall
from unimo.inference.search.store import open_store, writing
from unimo.registry import model_config

QUERIES, APPENDED, COUNT = 200, 1000, 10
_CENTRES, _SPREAD = 1000, 0.7
"""Clusters, and length of what is added to a centre of length 1."""
_AT_ONCE = 20_000
KINDS = ("around centres", "without structure")
Side = Callable[[str, int, int, str], tuple[dict[str, Any], np.ndarray]]


def made_up(kind: str, count: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw unit vectors [count, width], float32."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, width), np.float32)
    if kind == KINDS[0]:
        centres = np.random.default_rng(12345).standard_normal((_CENTRES, width), np.float32)
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        vectors *= _SPREAD / np.sqrt(width)
        vectors += centres[rng.integers(_CENTRES, size=count)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _parts(kind: str, rows: int, width: int) -> Iterator[np.ndarray]:
    for number, start in enumerate(range(0, rows, _AT_ONCE)):
        yield made_up(kind, min(_AT_ONCE, rows - start), width, number + 1)


def _ours(kind: str, rows: int, width: int, folder: str) -> tuple[dict[str, Any], np.ndarray]:
    figures: dict[str, Any] = {}
    begun = time.process_time()
    with writing(folder, width, {}) as store:
        for vectors in _parts(kind, rows, width):
            store.append(vectors, [{"id": n} for n in range(len(vectors))])
        prepare(store)
    figures["build"] = time.process_time() - begun
    begun = time.process_time()
    index = open_nearest(open_store(folder))
    figures["open"] = time.process_time() - begun
    rows_found = _search(index.search, kind, width, figures)
    begun = time.process_time()
    with writing(folder, width, {}) as store:
        store.append(made_up(kind, APPENDED, width, 10**6), [{"id": n} for n in range(APPENDED)])
        prepare(store)
    figures |= {"append": time.process_time() - begun, "how": index.name}
    figures["disk"] = sum(path.stat().st_size for path in Path(folder).iterdir())
    return figures, rows_found


def _plain(kind: str, rows: int, width: int, folder: str) -> tuple[dict[str, Any], np.ndarray]:
    figures: dict[str, Any] = {}
    path = str(Path(folder) / "flat.faiss")
    begun = time.process_time()
    index = faiss().IndexFlatIP(width)
    for vectors in _parts(kind, rows, width):
        index.add(vectors)
    faiss().write_index(index, path)
    figures["build"] = time.process_time() - begun
    del index
    begun = time.process_time()
    index = faiss().read_index(path)
    figures["open"] = time.process_time() - begun
    rows_found = _search(lambda query, count: Found(*index.search(query, count)[::-1]), kind, width, figures)
    begun = time.process_time()
    index.add(made_up(kind, APPENDED, width, 10**6))
    faiss().write_index(index, path)
    figures |= {"append": time.process_time() - begun, "how": "IndexFlatIP, written whole"}
    figures["disk"] = Path(path).stat().st_size
    return figures, rows_found


def _search(
    search: Callable[[np.ndarray, int], Found], kind: str, width: int, figures: dict[str, Any]
) -> np.ndarray:
    """Search one query at a time, and note the processor time of a query."""
    queries = made_up(kind, QUERIES, width, 10**7)
    search(queries[:1], COUNT)  # reads what is read once
    begun = time.process_time()
    found = np.concatenate([search(query[None], COUNT).rows for query in queries])
    figures["query"] = (time.process_time() - begun) / QUERIES
    return found


SIDES: dict[str, Side] = {"ours": _ours, "plain FAISS": _plain}


def _run(side: str, kind: str, rows: int, width: int, result: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        figures, found = SIDES[side](kind, rows, width, folder)
    figures["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    result.send((figures, found))


def measure(model: str, rows: int) -> dict[str, Any]:
    """Measure both sides on both kinds of vectors.

    Args:
        model: name of a model, whose width the vectors have.
        rows: number of vectors.

    Returns:
        `rows`, `width`, and figures by kind and side: processor seconds `build`, `open`, `append` and
        `query`, bytes of `memory` and `disk`, `recall`.
    """
    width = model_config(model).hidden_size
    content: dict[str, Any] = {"rows": rows, "width": width, "kinds": {}}
    context = multiprocessing.get_context("spawn")
    for kind in KINDS:
        sides, found = {}, {}
        for side in SIDES:
            end, other = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(side, kind, rows, width, other))
            process.start()
            other.close()
            sides[side], found[side] = end.recv()
            process.join()
        exact = Found(found["plain FAISS"], np.empty(0))
        for side in SIDES:
            sides[side]["recall"] = recall(Found(found[side], np.empty(0)), exact)
        content["kinds"][kind] = sides
    return content


def format_report(content: dict[str, Any]) -> str:
    """Format the figures as a table."""
    lines = [
        f"{content['rows']:,} vectors of {content['width']} numbers; processor seconds",
        f"{'':32} {'build':>8} {'open':>7} {'query':>9} {'+1,000':>7} "
        f"{'memory':>8} {'disk':>8} {'recall@10':>9}",
    ]
    for kind, sides in content["kinds"].items():
        for side, x in sides.items():
            memory, disk = f"{x['memory'] / 1e6:,.0f} MB", f"{x['disk'] / 1e6:,.0f} MB"
            lines.append(
                f"{side + ', ' + kind:32} {x['build']:8.1f} {x['open']:7.2f} {1e3 * x['query']:6.1f} ms "
                f"{x['append']:7.2f} {memory:>8} {disk:>8} {x['recall']:9.3f}"
            )
        lines.append(f"    ours: {sides['ours']['how']}")
    return "\n".join(lines)
