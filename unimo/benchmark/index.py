"""Compare an index of images with plain FAISS: processor time to build, append and search, memory, recall.

Each side runs in a process of its own. Vectors are made up, of three kinds: around centres; as a dual encoder
makes them; and without any structure, where no index can save much.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unimo.inference.search.nearest import Found, faiss, open_newest, prepare, recall
from unimo.inference.search.store import lists_file, writing
from unimo.registry import model_config

logger = logging.getLogger(__name__)
QUERIES, APPENDED, COUNT = 200, 1000, 10
_CENTRES, _SPREAD = 1000, 0.7
"""Clusters, and length of what is added to a centre of length 1."""
_SHARED = 96
"""Directions in which a text and its image agree."""
_AT_ONCE = 20_000
KINDS = ("around centres", "as encoded", "without structure")
_ADDED, _ASKED = 10**6, 10**7
"""Seeds of the vectors that are appended, and of the queries."""
Side = Callable[[str, Path, int, Path], tuple[dict[str, Any], np.ndarray]]


def made_up(kind: str, count: int, width: int, seed: int = 0, are_queries: bool = False) -> np.ndarray:
    """Draw unit vectors [count, width], float32.

    Those `as encoded` are images, and queries texts: both lie in a narrow cone of their own, as known of dual
    encoders; what they share has a few directions of decreasing weight, and there is as much that is not
    shared, in directions that differ between the two.
    """
    rng, same = np.random.default_rng(seed), np.random.default_rng(12345)
    vectors = rng.standard_normal((count, width), np.float32)
    if kind == KINDS[0]:
        centres = _unit(same.standard_normal((_CENTRES, width), np.float32))
        vectors = centres[rng.integers(_CENTRES, size=count)] + vectors * (_SPREAD / np.sqrt(width))
    elif kind == KINDS[1]:
        cones = _unit(same.standard_normal((2, width), np.float32))
        turned, own = (np.linalg.qr(same.standard_normal((width, width)))[0] for _ in range(2))
        shared = rng.standard_normal((count, width), np.float32) * _weights(width, _SHARED)
        vectors *= _weights(width, width)
        vectors = shared @ turned + (vectors @ own if are_queries else vectors) + cones[int(are_queries)]
    return _unit(vectors.astype(np.float32))


def _weights(width: int, count: int) -> np.ndarray:
    """Return lengths of directions that decrease as 1 / sqrt(n), zero after `count`; together 1."""
    weights = np.arange(1, width + 1, dtype=np.float32) ** -0.5 * (np.arange(width) < count)
    return weights / np.linalg.norm(weights)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _parts(vectors: Path, width: int) -> Iterator[np.ndarray]:
    """Read the vectors of a file of plain numbers."""
    size = _AT_ONCE * width
    for start in range(0, vectors.stat().st_size // 4, size):
        yield np.fromfile(vectors, np.float32, size, offset=4 * start).reshape(-1, width)


def _ours(kind: str, vectors: Path, width: int, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    figures: dict[str, Any] = {}
    begun = time.process_time()
    with writing(folder, width, {}) as store:
        for part in _parts(vectors, width):
            store.append(part, [{"id": n} for n in range(len(part))])
        prepare(store)
    figures["build"] = time.process_time() - begun
    begun = time.process_time()
    opened, index = open_newest(folder)
    figures |= {"open": time.process_time() - begun, "how": index.name}
    found = _search(index.search, kind, width, figures)
    if lists := opened.state.lists:
        codes = faiss().read_index(str(folder / lists_file(lists)))
        codes.nprobe = lists.probes
        figures["codes"] = codes.search(made_up(kind, QUERIES, width, _ASKED, are_queries=True), COUNT)[1]
    more = made_up(kind, APPENDED, width, _ADDED)
    begun = time.process_time()
    with writing(folder, width, {}) as store:
        store.append(more, [{"id": n} for n in range(APPENDED)])
        prepare(store)
    figures["append"] = time.process_time() - begun
    figures["disk"] = sum(path.stat().st_size for path in folder.iterdir())
    return figures, found


def _plain(kind: str, vectors: Path, width: int, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    figures: dict[str, Any] = {"how": "IndexFlatIP, written whole"}
    path = str(folder / "flat.faiss")
    begun = time.process_time()
    index = faiss().IndexFlatIP(width)
    for part in _parts(vectors, width):
        index.add(part)
    faiss().write_index(index, path)
    figures["build"] = time.process_time() - begun
    del index
    begun = time.process_time()
    index = faiss().read_index(path)
    figures["open"] = time.process_time() - begun
    found = _search(lambda query, count: Found(*index.search(query, count)[::-1]), kind, width, figures)
    more = made_up(kind, APPENDED, width, _ADDED)
    begun = time.process_time()
    index.add(more)
    faiss().write_index(index, path)
    figures["append"] = time.process_time() - begun
    figures["disk"] = Path(path).stat().st_size
    return figures, found


def _search(
    search: Callable[[np.ndarray, int], Found], kind: str, width: int, figures: dict[str, Any]
) -> np.ndarray:
    """Search one query at a time, and note the processor time of a query."""
    queries = made_up(kind, QUERIES, width, _ASKED, are_queries=True)
    search(queries[:1], COUNT)  # reads what is read once
    begun = time.process_time()
    found = np.concatenate([search(query[None], COUNT).rows for query in queries])
    figures["query"] = (time.process_time() - begun) / QUERIES
    return found


SIDES: dict[str, Side] = {"ours": _ours, "plain FAISS": _plain}


def _run(side: str, kind: str, vectors: Path, width: int, result: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        figures, found = SIDES[side](kind, vectors, width, Path(folder))
    figures["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    result.send((figures, found))


def measure(model: str, rows: int) -> dict[str, Any]:
    """Measure both sides on all kinds of vectors.

    Args:
        model: name of a model, whose width the vectors have.
        rows: number of vectors.

    Returns:
        `rows`, `width`, and figures by kind and side: processor seconds `build`, `open`, `append` and
        `query`, bytes of `memory` and `disk`, `recall`; of ours also `codes`, the recall of its codes alone.
    """
    width = model_config(model).hidden_size
    content: dict[str, Any] = {"rows": rows, "width": width, "kinds": {}}
    context = multiprocessing.get_context("spawn")
    for kind in KINDS:
        sides, found = {}, {}
        with tempfile.TemporaryDirectory() as folder:
            vectors = Path(folder) / "vectors"
            with open(vectors, "wb") as file:
                for number, start in enumerate(range(0, rows, _AT_ONCE)):
                    made_up(kind, min(_AT_ONCE, rows - start), width, number + 1).tofile(file)
            for side in SIDES:
                end, other = context.Pipe(duplex=False)
                process = context.Process(target=_run, args=(side, kind, vectors, width, other))
                process.start()
                other.close()
                sides[side], found[side] = end.recv()
                process.join()
        for side in SIDES:
            sides[side]["recall"] = recall(found[side], found["plain FAISS"])
        if "codes" in sides["ours"]:
            sides["ours"]["codes"] = recall(sides["ours"]["codes"], found["plain FAISS"])
        content["kinds"][kind] = sides
        logger.info("measured:\n%s", _rows(kind, sides))
    return content


def format_report(content: dict[str, Any]) -> str:
    """Format the figures as a table."""
    lines = [
        f"{content['rows']:,} vectors of {content['width']} numbers; processor seconds",
        f"{'':32} {'build':>8} {'open':>7} {'query':>9} {'+1,000':>7} "
        f"{'memory':>8} {'disk':>8} {'recall@10':>9}",
    ]
    return "\n".join([*lines, *(_rows(kind, sides) for kind, sides in content["kinds"].items())])


def _rows(kind: str, sides: dict[str, dict[str, Any]]) -> str:
    lines = []
    for side, x in sides.items():
        memory, disk = f"{x['memory'] / 1e6:,.0f} MB", f"{x['disk'] / 1e6:,.0f} MB"
        lines.append(
            f"{side + ', ' + kind:32} {x['build']:8.1f} {x['open']:7.2f} {1e3 * x['query']:6.1f} ms "
            f"{x['append']:7.2f} {memory:>8} {disk:>8} {x['recall']:9.3f}"
        )
    codes = f"; its codes alone: {ours['codes']:.3f}" if "codes" in (ours := sides["ours"]) else ""
    return "\n".join([*lines, f"    ours: {ours['how']}{codes}"])
