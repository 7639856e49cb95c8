"""The pictures of `segmentation.py` beside truth and prediction, as one image and as an HTML page."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from unimo.analysis.segmentation import Example, Seen
from unimo.analysis.show import data_uri, html_page, wrap, writing_to
from unimo.data.images.class_maps import NO_CLASS
from unimo.files import write_text
from unimo.inference.class_colours import colour_of, paint

SIDE, GAP, MARGIN, LINE = 160, 8, 18, 19
INK, FAINT = (30, 30, 30), (110, 110, 110)
COLUMNS = ("picture", "truth", "prediction", "where wrong")
RIGHT, WRONG = (226, 232, 240), (214, 40, 40)
ACROSS = 2
"""Examples beside each other in the image."""
READING = (
    "How to read it. From left to right: the picture, the classes that are there, those that the model sees, "
    "and in red the pixels that it has wrong. White pixels have no class and do not count. The number is the "
    "share of the others that is right."
)
STYLE = f"""body{{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1100px;padding:0 16px;
color:#1e1e1e}}p{{color:#505050;max-width:75ch}}.row{{display:flex;gap:{GAP}px;margin-top:14px}}
figure{{margin:0;width:220px}}img{{width:220px;image-rendering:pixelated;border:1px solid #e1e1e1}}
figcaption,td,th{{font-size:13px;color:#505050;text-align:left;padding-right:16px}}
i{{display:inline-block;width:14px;height:14px;border:1px solid #ccc;vertical-align:-2px;margin-right:6px}}"""


def write(seen: Seen, folder: str | Path, source: str = "") -> tuple[Path, Path]:
    """Write `segmentation.png` and `segmentation.html`; `source` stands in their headings.

    Raises:
        ConfigError: see `writing_to`.
    """
    with writing_to(folder) as out:
        picture, page = out / "segmentation.png", out / "segmentation.html"
        draw(seen, source).save(picture, format="PNG")
        write_text(page, make_page(seen, source))
    return picture, page


def views(example: Example) -> list[Image.Image]:
    """Return the picture, the classes that are there, those that are seen, and where these differ."""
    known = example.truth != NO_CLASS
    wrong = np.full((*known.shape, 3), 255, np.uint8)
    wrong[known] = RIGHT
    wrong[known & (example.truth != example.found)] = WRONG
    return [example.image, paint(example.truth), paint(example.found), Image.fromarray(wrong)]


def shown_classes(seen: Seen) -> list[int]:
    """Return the numbers of the classes of any pixel, true or predicted."""
    maps = [each for example in seen.examples for each in (example.truth, example.found)]
    found = np.unique(np.concatenate([each.ravel() for each in maps]))
    return [int(number) for number in found if number != NO_CLASS]


def draw(seen: Seen, source: str = "") -> Image.Image:
    """Draw all examples and a legend as an RGB image."""
    bold, plain, small = (ImageFont.load_default(size) for size in (16, 13, 12))
    block = len(COLUMNS) * (SIDE + GAP) - GAP
    width = ACROSS * block + (ACROSS - 1) * 3 * MARGIN
    lines = [line for text in (source, READING) for line in wrap(text.split(), plain, width)]
    rows = [seen.examples[start : start + ACROSS] for start in range(0, len(seen.examples), ACROSS)]
    entries = _legend(seen, small, width)
    top = 2 * MARGIN + (1 + len(lines) + 1 + entries[-1][1]) * LINE + GAP
    height = top + len(rows) * (SIDE + 2 * LINE) + MARGIN
    canvas = Image.new("RGB", (width + 2 * MARGIN, height), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, MARGIN), seen.headline, font=bold, fill=INK)
    for number, line in enumerate(lines, start=1):
        pen.text((MARGIN, MARGIN + number * LINE + 4), line, font=plain, fill=FAINT)
    legend = 2 * MARGIN + (1 + len(lines)) * LINE
    for left, row, number, name in entries:
        x, y = MARGIN + left, legend + row * LINE
        pen.rectangle((x, y + 2, x + 12, y + 14), fill=colour_of(number), outline=FAINT)
        pen.text((x + 18, y), name, font=small, fill=INK)
    for number, row in enumerate(rows):
        y = top + number * (SIDE + 2 * LINE)
        for place, example in enumerate(row):
            x = MARGIN + place * (block + 3 * MARGIN)
            for column, (title, view) in enumerate(zip(COLUMNS, views(example), strict=True)):
                left = x + column * (SIDE + GAP)
                title = f"{title}: {example.accuracy:.1f}%" if column == 2 else title
                pen.text((left, y), title, font=small, fill=FAINT)
                canvas.paste(_fitted(view), (left, y + LINE))
    return canvas


def _fitted(view: Image.Image) -> Image.Image:
    return ImageOps.contain(view, (SIDE, SIDE), Image.Resampling.NEAREST)


def _legend(seen: Seen, font: ImageFont.ImageFont, width: int) -> list[tuple[int, int, int, str]]:
    """Return the place from the left, the row, the number and the name of each class that is shown."""
    entries, left, row = [], 0, 0
    for number in shown_classes(seen):
        name = seen.classes[number]
        room = 18 + round(font.getlength(name)) + 18
        if left and left + room > width:
            left, row = 0, row + 1
        entries.append((left, row, number, name))
        left += room
    return entries


def make_page(seen: Seen, source: str = "") -> str:
    """Build an HTML document with all pictures inside, and the scores of each class."""
    parts = [f"<p>{html.escape(seen.headline)}. {html.escape(READING)}</p>"]
    ious, pixels = seen.ious, seen.counts.sum(axis=1)
    rows = [
        f'<tr><td><i style="background:rgb{colour_of(number)}"></i>{html.escape(seen.classes[number])}</td>'
        f"<td>{'–' if np.isnan(ious[number]) else format(ious[number], '.1f')}</td>"
        f"<td>{pixels[number]:,}</td></tr>"
        for number in shown_classes(seen)
    ]
    parts.append(f"<table><tr><th>class</th><th>IoU</th><th>pixels</th></tr>{''.join(rows)}</table>")
    for example in seen.examples:
        titles = [*COLUMNS[:2], f"{COLUMNS[2]}: {example.accuracy:.1f}%", COLUMNS[3]]
        figures = "".join(
            f'<figure><img src="{data_uri(view)}" alt=""><figcaption>{title}</figcaption></figure>'
            for title, view in zip(titles, views(example), strict=True)
        )
        parts.append(f'<h3>{html.escape(example.name)}</h3><div class="row">{figures}</div>')
    return html_page("Segmentation", "What the model sees", STYLE, source, "\n".join(parts))
