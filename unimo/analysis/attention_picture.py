"""The attentions of `attention.py` as one image: words over the picture, and parts of it over the words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unimo.analysis.attention import Attention, Selection

HEAT, MARK = (222, 45, 38), (20, 90, 200)
INK, FAINT, RULE = (30, 30, 30), (110, 110, 110), (225, 225, 225)
STRONGEST = 0.78
"""Opacity of the largest weight."""
ROOM = 36
"""Least width of a patch in pixels that has its weight written on it."""
REGIONS_NAMED = 3
"""Regions of a large picture that have their numbers and weights written on them."""
SMALL, LARGE = 150, 330
"""Side of a picture among others, and of one alone, in pixels."""
GAP, MARGIN, LINE = 10, 18, 19
READING = (
    "How to read it. A word, or a part of the picture, spreads 100% of its attention over everything it "
    "reads. Above: each picture is the row of one word; the redder a part, the more of the word's "
    "attention went there. Below: each sentence is the row of the part outlined in blue; the redder a "
    "word, the more went to it."
)
CAUTION = (
    "Colours run from the smallest weight of the row (none) to its largest (full red), however near these "
    "are: look at the numbers too. What is missing to 100% went to special tokens and, where a layer "
    "reads both, to the text of the word or the picture of the part. A part that is red for every word "
    "says little about any of them. Attention shows what was mixed, not why a model answers as it does: "
    "it is no explanation by itself."
)


def reading(first: str, attentions: Sequence[Attention]) -> list[str]:
    """Return the sentences that say how to read a drawing, those of its kind first."""
    over = [
        f"In {each.model} words and patches read each other through grounded tokens only: drawn is the way "
        "over these, what is read of them in a layer times what they had read in the layer below."
        for each in attentions
        if each.over_grounded
    ]
    return [first, CAUTION, *over]


def percent(weight: float) -> str:
    """Write a weight with digits enough to tell small ones apart."""
    return f"{weight:.1%}" if weight >= 0.01 else f"{weight:.2%}"


def draw(attentions: Sequence[Attention], selections: Sequence[Selection], source: str = "") -> Image.Image:
    """Draw the selected words and parts of one or two models beside each other, as an RGB image."""
    across = 6 if len(attentions) == 1 else 4
    columns = [_column(*each, across) for each in zip(attentions, selections, strict=True)]
    width = sum(column.width for column in columns) + 3 * MARGIN * (len(columns) - 1)
    plain = ImageFont.load_default(13)
    lines = [line for text in (source, *reading(READING, attentions)) for line in _wrap(text, plain, width)]
    top = MARGIN + len(lines) * LINE + GAP
    height = top + max(column.height for column in columns) + MARGIN
    canvas = Image.new("RGB", (width + 2 * MARGIN, height), "white")
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + number * LINE), line, font=plain, fill=FAINT)
    left = MARGIN
    for column in columns:
        canvas.paste(column, (left, top))
        left += column.width + 3 * MARGIN
    return canvas


def _column(attention: Attention, selection: Selection, across: int) -> Image.Image:
    """Draw one model: title, words over the picture, parts over the words."""
    bold, plain = ImageFont.load_default(16), ImageFont.load_default(13)
    width = across * (SMALL + GAP) - GAP
    canvas = Image.new("RGB", (width, 20_000), "white")
    pen = ImageDraw.Draw(canvas)
    pen.line((0, 0, width, 0), fill=RULE)
    pen.text((0, GAP), attention.model, font=bold, fill=INK)
    pen.text((bold.getlength(attention.model) + 12, GAP + 3), attention.chosen, font=plain, fill=FAINT)
    top = GAP + 2 * LINE
    for title, shown, draw_rows in (
        ("Words over the picture", selection.words, _word_rows),
        ("Parts of the picture over the words", selection.parts, _part_rows),
    ):
        if shown:
            pen.text((0, top), title, font=ImageFont.load_default(14), fill=MARK)
            top = draw_rows(canvas, pen, attention, selection, top + LINE + GAP) + GAP
    return canvas.crop((0, 0, width, top))


def _word_rows(
    canvas: Image.Image, pen: ImageDraw.ImageDraw, attention: Attention, selection: Selection, top: int
) -> int:
    """Draw each word over the picture, from `top` down; return where it ends."""
    bold, plain = ImageFont.load_default(15), ImageFont.load_default(12)
    if attention.of_words is None:
        pen.text((0, top), "No word reads the picture in this model.", font=plain, fill=FAINT)
        return top + LINE
    side = LARGE if len(selection.words) == 1 else SMALL
    pictures = [heat(attention, attention.of_words[word, 1:], side) for word in selection.words]
    left, tallest = 0, max((picture.height for picture in pictures), default=0)
    for word, picture in zip(selection.words, pictures, strict=True):
        if left + side > canvas.width:
            left, top = 0, top + tallest + 2 * LINE + GAP
        weights = attention.of_words[word]
        canvas.paste(picture, (left, top))
        pen.text((left, top + tallest + 2), attention.words[word], font=bold, fill=INK)
        about = f"{percent(weights[1:].min())} to {percent(weights[1:].max())}, all {weights[1:].sum():.0%}"
        pen.text((left, top + tallest + LINE), about, font=plain, fill=FAINT)
        left += side + GAP
    return top + tallest + 2 * LINE + GAP


def _part_rows(
    canvas: Image.Image, pen: ImageDraw.ImageDraw, attention: Attention, selection: Selection, top: int
) -> int:
    """Draw each part, outlined in the picture, and beside it the words; return where it ends."""
    bold, plain = ImageFont.load_default(15), ImageFont.load_default(12)
    if attention.of_parts is None:
        pen.text((0, top), "No part of the picture reads the words in this model.", font=plain, fill=FAINT)
        return top + LINE
    for part in selection.parts:
        weights = attention.of_parts[part]
        picture = _marked(attention, part, SMALL)
        canvas.paste(picture, (0, top))
        start = SMALL + 2 * GAP
        about = f"words {weights[:-1].sum():.0%}, special tokens {weights[-1]:.0%}"
        pen.text((start, top), attention.name(part), font=bold, fill=INK)
        beside = start + bold.getlength(attention.name(part)) + 12
        pen.text((beside, top + 3), about, font=plain, fill=FAINT)
        left, line = start, top + LINE + GAP
        for word, weight, share in zip(attention.words, weights[:-1], _stretch(weights[:-1]), strict=True):
            number = percent(weight)
            room = round(max(bold.getlength(word), plain.getlength(number))) + 12
            if left + room > canvas.width and left > start:
                left, line = start, line + 2 * LINE + GAP
            box = (left, line, left + room, line + LINE + 3)
            pen.rectangle(box, fill=_shade(share))
            pen.text((left + 6, line + 1), word, font=bold, fill=INK)
            pen.text((left + 6, line + LINE + 4), number, font=plain, fill=FAINT)
            left += room + 4
        top = max(top + picture.height, line + 2 * LINE) + 2 * GAP
    return top


def heat(attention: Attention, weights: np.ndarray, side: int) -> Image.Image:
    """Draw weights [R] over the picture, scaled to `side`; regions with frames."""
    canvas = _faded(attention.picture, side).convert("RGBA")
    shares = _stretch(weights)
    for part in np.argsort(shares, kind="stable"):  # the strongest last, over the others
        layer = Image.new("RGBA", canvas.size)
        box, alpha = _pixels(attention.boxes[part], canvas.size), round(255 * STRONGEST * float(shares[part]))
        if attention.grid:
            ImageDraw.Draw(layer).rectangle(box, fill=(*HEAT, alpha))
        else:
            ImageDraw.Draw(layer).rectangle(box, fill=(*HEAT, alpha // 2), outline=(*HEAT, alpha), width=2)
        canvas = Image.alpha_composite(canvas, layer)
    return _labelled(canvas.convert("RGB"), attention, weights)


def _labelled(canvas: Image.Image, attention: Attention, weights: np.ndarray) -> Image.Image:
    """Write weights on patches that have room for them; on a large picture those of the strongest regions."""
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    places = attention.boxes * [*canvas.size, *canvas.size]
    if attention.grid:
        for (left, top, right, bottom), weight in zip(places, weights, strict=True):
            if right - left >= ROOM:
                middle = ((left + right) / 2, (top + bottom) / 2)
                pen.text(middle, percent(weight), font=font, fill=INK, anchor="mm")
    elif max(canvas.size) >= LARGE:
        for part in np.argsort(-weights, kind="stable")[:REGIONS_NAMED][::-1]:
            label = f"{part + 1}: {percent(weights[part])}"
            width = font.getlength(label) + 6
            left, top = min(places[part, 0], canvas.width - width), min(places[part, 1], canvas.height - 16)
            pen.rectangle((left, top, left + width, top + 16), fill="white")
            pen.text((left + 3, top + 1), label, font=font, fill=INK)
    return canvas


def _marked(attention: Attention, part: int, side: int) -> Image.Image:
    """Draw an outline around a part in the picture, scaled to `side`."""
    scaled = attention.picture.copy()
    scaled.thumbnail((side, side))
    left, top, right, bottom = _pixels(attention.boxes[part], scaled.size)
    box = (
        max(left - 2, 0),
        max(top - 2, 0),
        min(right + 2, scaled.width - 1),
        min(bottom + 2, scaled.height - 1),
    )
    ImageDraw.Draw(scaled).rectangle(box, outline=MARK, width=3)
    return scaled


def _faded(picture: Image.Image, side: int) -> Image.Image:
    """Return the picture, scaled and with paler colours, so that red stands out."""
    scaled = picture.copy()
    scaled.thumbnail((side, side))
    grey = Image.blend(scaled, scaled.convert("L").convert("RGB"), 0.6)
    return Image.blend(grey, Image.new("RGB", grey.size, "white"), 0.25)


def _pixels(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box given in shares as the first and last pixels of an image, at least one."""
    width, height = size
    left, top = (min(round(float(box[i]) * size[i]), size[i] - 1) for i in range(2))
    right, bottom = round(float(box[2]) * width) - 1, round(float(box[3]) * height) - 1
    return left, top, max(left, right), max(top, bottom)


def _stretch(weights: np.ndarray) -> np.ndarray:
    """Scale weights so that the smallest is 0 and the largest 1; equal ones are 0."""
    low, high = float(weights.min()), float(weights.max())
    return (weights - low) / (high - low) if high > low else np.zeros_like(weights)


def _shade(share: float) -> tuple[int, int, int]:
    """Return white for 0 to full red for 1."""
    return tuple(round(255 + (channel - 255) * STRONGEST * share) for channel in HEAT)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into lines that are at most about `width` pixels wide."""
    return textwrap.wrap(text, max(20, int(width / (font.getlength(text) / max(1, len(text)) + 0.2))))
