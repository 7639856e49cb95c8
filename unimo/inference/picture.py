"""Pictures with the answers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HEIGHT = 384
COLUMN = 430
MARGIN = 16
INK, FAINT, BAR = (30, 30, 30), (120, 120, 120), (198, 219, 239)


def draw_answers(
    image: str | Path | Image.Image, answers: Mapping[str, Sequence[tuple[str, float]]]
) -> Image.Image:
    """Draw the image on the left, and on the right each question with its answers as bars of probability.

    Args:
        image: file or PIL image.
        answers: question -> (answer, probability) pairs, best first.

    Returns:
        RGB image.
    """
    from unimo.data.images.open import open_image

    picture = image if isinstance(image, Image.Image) else open_image(Path(image))
    picture = picture.convert("RGB")
    width = max(1, round(picture.width * HEIGHT / picture.height))
    picture = picture.resize((width, HEIGHT), Image.Resampling.BICUBIC)
    bold, plain = ImageFont.load_default(16), ImageFont.load_default(14)
    rows = sum(1 + len(ranked) for ranked in answers.values())
    height = max(HEIGHT, rows * 22 + len(answers) * 8) + 2 * MARGIN
    canvas = Image.new("RGB", (picture.width + COLUMN + 3 * MARGIN, height), "white")
    canvas.paste(picture, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(canvas)
    left, top = picture.width + 2 * MARGIN, MARGIN
    for question, ranked in answers.items():
        draw.text((left, top), question, font=bold, fill=INK)
        top += 24
        for answer, probability in ranked:
            length = max(1, round((COLUMN - 60) * probability))
            draw.rectangle((left, top, left + length, top + 18), fill=BAR)
            draw.text((left + 6, top + 1), answer, font=plain, fill=INK)
            draw.text((left + COLUMN - 50, top + 1), f"{probability:.1%}", font=plain, fill=FAINT)
            top += 22
        top += 8
    return canvas
