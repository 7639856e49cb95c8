"""The grounded tokens of `grounded_tokens.py` as an image and as a self-contained HTML page."""

from __future__ import annotations

import html
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from unimo.analysis.grounded_tokens import CONTEXT, Atlas, GroundedToken, Patch
from unimo.analysis.show import data_uri, html_page, wrap, writing_to
from unimo.files import write_text

THUMBNAIL = 72
"""Side of a patch with its surroundings in pixels."""
GAP, MARGIN, LINE, TITLE = 6, 16, 20, 24
INK, FAINT, FRAME, RULE = (30, 30, 30), (110, 110, 110), (214, 39, 40), (225, 225, 225)
STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1100px;color:#1e1e1e}
section{border-top:1px solid #e1e1e1;padding:8px 0 14px}h2{font-size:16px;margin:4px 0}
.patches{display:flex;flex-wrap:wrap;gap:6px;margin:6px 0}img{width:72px;height:72px}
.words span{display:inline-block;margin:0 14px 2px 0}small,.note{color:#6e6e6e}"""


def write(atlas: Atlas, folder: str | Path, source: str = "") -> tuple[Path, Path]:
    """Write `grounded_tokens.png` and `grounded_tokens.html`; `source` stands in their headings.

    Raises:
        ConfigError: see `writing_to`.
    """
    with writing_to(folder) as out:
        picture, page = out / "grounded_tokens.png", out / "grounded_tokens.html"
        draw(atlas, source).save(picture, format="PNG")
        write_text(page, make_page(atlas, source))
    return picture, page


def headline(atlas: Atlas) -> str:
    """Summarise the use of the dictionary in one line."""
    size = atlas.dictionary_size
    return (
        f"{atlas.num_patches:,} patches use {atlas.used_by_patches} of {size} grounded tokens "
        f"({atlas.used_by_patches / size:.0%}), {atlas.num_words:,} text tokens use {atlas.used_by_words} "
        f"({atlas.used_by_words / size:.0%}); both use {atlas.used_by_both}"
    )


def _title(token: GroundedToken, atlas: Atlas) -> tuple[str, str]:
    patch_share = token.num_patches / max(1, atlas.num_patches)
    word_share = token.num_words / max(1, atlas.num_words)
    patches, words = f"{token.num_patches:,} patches", f"{token.num_words:,} text tokens"
    return f"Grounded token {token.number}", f"{patches} ({patch_share:.1%}), {words} ({word_share:.1%})"


def _framed(patch: Patch) -> Image.Image:
    """Enlarge a patch with its surroundings and draw a frame around it."""
    picture = patch.picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    side = THUMBNAIL / (1 + 2 * CONTEXT)
    left = CONTEXT * side
    box = (round(left) - 1, round(left) - 1, round(left + side), round(left + side))
    ImageDraw.Draw(picture).rectangle(box, outline=FRAME, width=1)
    return picture


def draw(atlas: Atlas, source: str = "") -> Image.Image:
    """Draw all tokens below each other: use, patches, then words with their counts, as an RGB image."""
    bold, plain = ImageFont.load_default(15), ImageFont.load_default(13)
    columns = max([8, *(len(token.patches) for token in atlas.tokens)])
    width = columns * (THUMBNAIL + GAP) - GAP
    heading = [line for text in (source, headline(atlas)) for line in wrap(text.split(), plain, width)]
    words = [
        list(wrap([f"{word.text} x{word.count}" for word in token.words], plain, width, "    "))
        for token in atlas.tokens
    ]
    panel = TITLE + THUMBNAIL + GAP + MARGIN
    height = MARGIN + len(heading) * LINE + sum(panel + len(lines) * LINE for lines in words)
    canvas = Image.new("RGB", (width + 2 * MARGIN, height + MARGIN), "white")
    pen, top = ImageDraw.Draw(canvas), MARGIN
    for line in heading:
        pen.text((MARGIN, top), line, font=plain, fill=FAINT)
        top += LINE
    for token, lines in zip(atlas.tokens, words, strict=True):
        pen.line((MARGIN, top + 2, MARGIN + width, top + 2), fill=RULE)
        name, use = _title(token, atlas)
        pen.text((MARGIN, top + GAP), name, font=bold, fill=INK)
        pen.text((MARGIN + bold.getlength(name) + 12, top + GAP + 2), use, font=plain, fill=FAINT)
        top += TITLE + GAP
        for number, patch in enumerate(token.patches):
            canvas.paste(_framed(patch), (MARGIN + number * (THUMBNAIL + GAP), top))
        top += THUMBNAIL + GAP
        for line in lines:
            pen.text((MARGIN, top), line, font=plain, fill=INK)
            top += LINE
        top += MARGIN - GAP
    return canvas


def make_page(atlas: Atlas, source: str = "") -> str:
    """Build an HTML document with embedded images."""
    sections = "\n".join(_section(token, atlas) for token in atlas.tokens)
    note = (
        "Every patch and text token is mapped to the grounded token with the largest similarity (UNIMO-2, "
        "Eq. 1 and Fig. 3). Shown are those with the largest similarity, one patch of each image, framed in "
        "its surroundings; behind a word stands how often it was mapped there."
    )
    body = f'<p>{html.escape(headline(atlas))}.</p><p class="note">{note}</p>\n{sections}'
    return html_page("Grounded tokens", "Grounded tokens", STYLE, source, body)


def _section(token: GroundedToken, atlas: Atlas) -> str:
    name, use = _title(token, atlas)
    patches = "".join(
        f'<img src="{data_uri(_framed(patch))}" alt="patch" '
        f'title="similarity {patch.similarity:.3g}; {patch.count} patches of this image">'
        for patch in token.patches
    )
    words = " ".join(
        f'<span title="similarity {word.similarity:.3g}">{html.escape(word.text)} <small>&times;{word.count}'
        "</small></span>"
        for word in token.words
    )
    return (
        f'<section id="token-{token.number}"><h2>{name} <small>{use}</small></h2>'
        f'<div class="patches">{patches}</div><div class="words">{words}</div></section>'
    )
