"""Results of a search as one HTML page: thumbnails, or texts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from unimo.analysis.show import data_uri, html_page
from unimo.data.images.open import open_image
from unimo.errors import ConfigError, DataError
from unimo.files import make_place, write_text
from unimo.inference.search.searcher import Hit, Query, Searcher

SIDE = 170
"""Longest side of a thumbnail, in pixels."""
STYLE = f"""body{{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1100px;padding:0 16px;
color:#1e1e1e}}
h2{{font-size:17px;margin:28px 0 8px;display:flex;gap:12px;align-items:center}}
h2 img{{max-height:88px;border-radius:4px}}p,small{{color:#6e6e6e}}
ol{{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:16px}}li{{width:{SIDE}px}}
.frame{{width:{SIDE}px;height:{SIDE}px;display:flex;align-items:center;justify-content:center;
background:#f4f4f4;border-radius:6px;overflow:hidden}}
.bar{{height:4px;background:#eee;margin:6px 0 2px}}.bar i{{display:block;height:4px;background:#3566b8}}
li.text{{width:100%}}li.text .bar{{width:{SIDE}px}}li.text p{{margin:0;color:inherit}}
small{{display:block;overflow-wrap:anywhere;font-size:11px}}"""
READING = (
    "How to read it. Each row answers the query above it, best first. The number is the cosine of the "
    "vectors, from -1 to 1; the bar shows it between the lowest and the highest of the row. “match” is the "
    "probability of a match by the fusion encoder, by which it put the results that have one in order."
)


def write_page(
    path: str | Path, searcher: Searcher, queries: Sequence[Query], results: Sequence[Sequence[Hit]]
) -> None:
    """Write the results of `Searcher.search` as a page, with all thumbnails inside.

    Raises:
        ConfigError: the file cannot be written.
    """
    rows = []
    for query, hits in zip(queries, results, strict=True):
        cosines = [hit.cosine for hit in hits]
        low, high = min(cosines, default=0.0), max(cosines, default=1.0)
        items = "".join(_item(searcher, hit, (hit.cosine - low) / max(high - low, 1e-9)) for hit in hits)
        rows.append(f"<h2>{_title(query, searcher.holds)}</h2>\n<ol>{items}</ol>")
    source = (
        f"{searcher.store.folder}: {searcher.store.state.rows:,} {searcher.holds}; {searcher.nearest.name}"
    )
    body = f"<p>{html.escape(READING)}</p>\n" + "\n".join(rows)
    page = html_page("Search", f"{searcher.holds.capitalize()} found", STYLE, source, body)
    path = make_place(path, "--html")
    try:
        write_text(path, page)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; give another --html") from error


def _title(query: Query, holds: str) -> str:
    if isinstance(query, str):
        return f"“{html.escape(query)}”"
    name = html.escape(query.name) if isinstance(query, Path) else "an image"
    relation = "texts for" if holds == "texts" else "images like"
    return f'<img src="{_thumbnail(open_image(query))}" alt="">{relation} {name}'


def _item(searcher: Searcher, hit: Hit, share: float) -> str:
    match = "" if hit.match is None else f" · match {hit.match:.3f}"
    bar = f'<div class="bar"><i style="width:{100 * share:.0f}%"></i></div>'
    if searcher.holds == "texts":
        return f"<li class=text>{bar}{hit.cosine:.3f}{match}<p>{html.escape(hit.id)}</p></li>"
    try:
        picture = f'<img src="{_thumbnail(open_image(searcher.source(hit), SIDE))}" alt="">'
    except DataError as error:  # deleted since
        picture = f"<small>{html.escape(str(error))}</small>"
    return (
        f'<li><div class="frame">{picture}</div>{bar}'
        f"{hit.cosine:.3f}{match}<small>{html.escape(hit.id)}</small></li>"
    )


def _thumbnail(picture: Image.Image) -> str:
    return data_uri(ImageOps.contain(picture, (SIDE, SIDE)), "JPEG")
