"""The examples of `retrieval_examples.py` as a self-contained HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path

from unimo.analysis.retrieval_examples import Direction, Example, Found, Hit
from unimo.analysis.show import data_uri, html_page, writing_to
from unimo.files import write_text

THUMBNAIL = 200
"""Longest side of an image in pixels."""
STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1200px;color:#1e1e1e}
section{border-top:1px solid #e1e1e1;padding:12px 0;display:flex;gap:24px;align-items:flex-start}
.query{flex:0 0 210px}.model{flex:1 1 0;min-width:0}.model h3{font-size:14px;margin:0 0 6px;color:#6e6e6e}
img{max-width:200px;max-height:200px;display:block}.hits{display:flex;flex-wrap:wrap;gap:10px}
.hit{margin:0 0 8px;padding:4px 8px;border-left:4px solid #d8d8d8}.right{border-color:#2ca02c}
.picture{width:150px}.picture img{max-width:150px;max-height:130px}
.agrees{color:#157f1f;font-weight:600}.disagrees{color:#c81e1e;font-weight:600}
small,.note{color:#6e6e6e}table{border-collapse:collapse}td,th{padding:2px 12px 2px 0;text-align:right}
th:first-child,td:first-child{text-align:left}"""
FUNCTION_WORDS = frozenset(
    "a an the and or but as of to in on at by for from with into onto is are was were be been being has have "
    "had it its he she they them his her their this that these those there here who which while some another "
    "other one".split()
)
"""Words without content, which are not coloured."""
NOTES: dict[Direction, str] = {
    "text": "The captions that fit an image best. Words that a true caption of the image has are green, "
    "words that none of them has are red.",
    "image": "The images that fit a caption best. The caption is repeated below each: words that a true "
    "caption of that image has are green, words that none of them has, the neglected ones, are red.",
}


def write(found: Found, folder: str | Path, source: str = "") -> Path:
    """Write `retrieval.html`; `source` (the data) stands in its heading.

    Raises:
        ConfigError: see `writing_to`.
    """
    with writing_to(folder) as out:
        write_text(out / "retrieval.html", make_page(found, source))
    return out / "retrieval.html"


def make_page(found: Found, source: str = "") -> str:
    """Build an HTML document with embedded images."""
    parts = []
    for direction, about in NOTES.items():
        sections = "\n".join(_section(found, direction, example) for example in found.examples[direction])
        parts.append(f'<h2>{direction.title()} retrieval</h2><p class="note">{about}</p>\n{sections}')
    order = "Examples on whose first result the models differ come first. " if len(found.models) > 1 else ""
    note = (
        f"{order}A green bar marks right results. Words are compared as they are written, but for capitals; "
        "function words are not coloured."
    )
    body = "\n".join([f'{_recalls(found)}<p class="note">{note}</p>', *parts])
    return html_page("Retrieval", "Retrieval examples", STYLE, source, body)


def _recalls(found: Found) -> str:
    names = {"tr_r1": "text R@1", "tr_r5": "R@5", "tr_r10": "R@10", "ir_r1": "image R@1"}
    names |= {"ir_r5": "R@5", "ir_r10": "R@10"}
    head = "".join(f"<th>{name}</th>" for name in names.values())
    rows = "".join(
        f"<tr><td>{html.escape(model.name)}</td>"
        + "".join(f"<td>{model.recall[key]:.1f}</td>" for key in names)
        + "</tr>"
        for model in found.models
    )
    size = f"{len(found.captions):,} captions of {len(found.image_ids):,} images"
    return f"<table><tr><th>{size}, percent</th>{head}</tr>{rows}</table>"


def _section(found: Found, direction: Direction, example: Example) -> str:
    if direction == "text":
        query = _image(found, example.query)
    else:
        query = f"<b>{html.escape(found.captions[example.query])}</b>"
    columns = "".join(
        f'<div class="model"><h3>{html.escape(model.name)}</h3><div class="hits">'
        + "".join(_hit(found, direction, example, hit) for hit in hits)
        + "</div></div>"
        for model, hits in zip(found.models, example.hits, strict=True)
    )
    return f'<section class="{direction}"><div class="query">{query}</div>{columns}</section>'


def _hit(found: Found, direction: Direction, example: Example, hit: Hit) -> str:
    is_text = direction == "text"
    caption, image = (hit.row, example.query) if is_text else (example.query, hit.row)
    words = color_words(found.captions[caption], found.true_captions(image))
    score = f"<small>{'right, ' if hit.is_right else ''}score {hit.score:.2f}</small>"
    kinds = f"hit{'' if is_text else ' picture'}{' right' if hit.is_right else ''}"
    return f'<div class="{kinds}">{"" if is_text else _image(found, image)}{words} {score}</div>'


def _image(found: Found, row: int) -> str:
    picture = found.picture(row).copy()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    name = html.escape(found.image_ids[row], quote=True)
    return f'<img src="{data_uri(picture, "JPEG")}" alt="{name}" title="{name}">'


def color_words(text: str, others: Iterable[str]) -> str:
    """Mark up a text in HTML: words that occur in one of `others` as `agrees`, the rest as `disagrees`."""
    known = {word for other in others for word in re.findall(r"\w+", other.lower())}

    def color(part: str) -> str:
        word = part.lower()
        if not re.fullmatch(r"\w+", word) or word in FUNCTION_WORDS:
            return html.escape(part)
        return f'<span class="{"agrees" if word in known else "disagrees"}">{html.escape(part)}</span>'

    return "".join(color(part) for part in re.findall(r"\w+|\W+", text))
