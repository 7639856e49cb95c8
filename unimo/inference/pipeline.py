"""A fine-tuned model as a function: load once, then ask. And pictures with the answers.

pipeline = Pipeline("output/unimo3_tiny_vqa")
pipeline.ask("picture.png", "what is left of the circle?")
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import paddle
from PIL import Image, ImageDraw, ImageFont

from unimo.config import coerce
from unimo.data.images.class_maps import NO_CLASS
from unimo.data.images.open import check_size, open_image
from unimo.data.record import ImageLike
from unimo.errors import CapabilityError, ConfigError, shown
from unimo.inference.class_colours import colour_of, paint
from unimo.inference.loading import load_task
from unimo.ranges import Size
from unimo.registry import TASKS, task_class
from unimo.tasks.base import Answer, Question

OPTIONS = {
    "question": '--question "..."',
    "text": '--text "..."',
    "caption": "--caption",
    "generate": '--generate "..."',
    "image": "--image FILE alone",
    "labels": '--labels "a,b" (zero-shot)',
}
"""Kind of question -> option of `tools/predict.py` that carries it."""
PICTURES = {1: ("a picture", "--image FILE"), 2: ("two pictures", "--image LEFT --image RIGHT")}
"""Number of pictures of a question -> how messages say it, and the options of `tools/predict.py`."""
HEIGHT = 384
COLUMN = 430
MARGIN = 16
INK, FAINT, BAR = (30, 30, 30), (120, 120, 120), (198, 219, 239)


class Pipeline:
    """A task opened from a model directory.

    Args:
        directory: model directory or run folder.
        batch_size: questions that go through the model at a time.

    Raises:
        CheckpointError: there is no such directory, or its tensors do not fit.
    """

    def __init__(self, directory: str | Path, batch_size: int = 32) -> None:
        self.batch_size = coerce(batch_size, Size, "batch_size", 32)
        self.task, self.processor = load_task(directory)

    def ask(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        text: str | Sequence[str] | None = None,
        text_pair: str | None = None,
        *,
        count: int = 5,
    ) -> list[Answer]:
        """Return the `count` best answers, best first.

        Args:
            image, text, text_pair: the question; see `Question`.
            count: largest number of answers.

        Raises:
            CapabilityError: the model was only pre-trained, and answers no questions.
            ConfigError: image or text is missing, or `count` is below 1.
            RecordError: the image cannot be decoded, or the text is empty.
        """
        return self.ask_many([Question(image, text, text_pair)], count=count)[0]

    def ask_many(self, questions: Sequence[Question], *, count: int = 5) -> list[list[Answer]]:
        """Answer several questions, in batches; see `ask`."""
        coerce(count, Size, "count", 5)
        if not isinstance(questions, Sequence):
            raise ConfigError(f"expected a list of questions, found {shown(questions)}; ask(...) takes one")
        kind, asked_with = self.task.config.name, self.task.asked_with
        if not asked_with:
            raise CapabilityError(
                f"a model trained on {kind} answers no questions; it takes {OPTIONS['labels']}, or fine-tune "
                "it: python tools/finetune.py --task vqa"
            )
        for question in questions:
            if not isinstance(question, Question):
                raise ConfigError(
                    f"expected questions, each with its own image and text, found {shown(question)}; "
                    "e.g. [Question(image, text) for image, text in zip(images, texts, strict=True)]"
                )
            given = question.image if isinstance(question.image, (list, tuple)) else [question.image]
            found = sum(image is not None for image in given)
            if self.task.pictures and (found, len(given)) != (self.task.pictures,) * 2:
                wanted, option = PICTURES[self.task.pictures]
                raise ConfigError(f"a model trained on {kind} looks at {wanted}, not {found}; give {option}")
            if question.text is None and asked_with not in ("caption", "image"):
                raise ConfigError(f"nothing was asked; a model trained on {kind} takes {OPTIONS[asked_with]}")
        answers: list[list[Answer]] = []
        with paddle.no_grad():
            for start in range(0, len(questions), self.batch_size):
                part = questions[start : start + self.batch_size]
                answers += self.task.ask(self.processor, part, count)
        return answers

    def check_asked_with(self, option: str) -> None:
        """Check that the task answers questions of a kind.

        Args:
            option: key of `OPTIONS`; empty for an image alone.

        Raises:
            ConfigError: nothing was asked.
            CapabilityError: it answers another kind; names the tasks that answer this one.
        """
        kind, wanted = self.task.config.name, self.task.asked_with or "labels"
        if option == wanted or (not option and wanted == "image"):
            return
        if not option:
            raise ConfigError(f"nothing was asked; a model trained on {kind} takes {OPTIONS[wanted]}")
        able = [name for name in TASKS if task_class(name).asked_with == option]
        raise CapabilityError(
            f"a model trained on {kind} takes {OPTIONS[wanted]}, not --{option}; models fine-tuned on "
            f"{', '.join(able)} do: python tools/finetune.py --task {able[0]}"
        )


def draw_answers(
    image: str | Path | Image.Image | Sequence[str | Path | Image.Image],
    answers: Mapping[str, Sequence[Answer]],
) -> Image.Image:
    """Draw an RGB image: the image, or both, and right of it each question with bars of probability.

    Where answers are classes of pixels, the image is drawn once more in the colours of their bars.

    Args:
        answers: those to each question, best first.
    """
    pictures = [_scaled(each) for each in (image if isinstance(image, (list, tuple)) else [image])]
    masks = [answer.mask for ranked in answers.values() for answer in ranked if answer.mask is not None]
    if masks:
        found = np.full(masks[0].shape, NO_CLASS, np.uint8)
        for place, mask in enumerate(masks):
            found[mask] = place + 1
        size = pictures[0].size
        pictures.append(Image.blend(pictures[0], paint(found).resize(size, Image.Resampling.NEAREST), 0.7))
    ends = list(itertools.accumulate(each.width + MARGIN for each in pictures))
    picture = Image.new("RGB", (ends[-1] - MARGIN, HEIGHT), "white")
    for each, end in zip(pictures, ends, strict=True):
        picture.paste(each, (end - MARGIN - each.width, 0))
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
        for place, answer in enumerate(ranked):
            length = max(1, round((COLUMN - 60) * answer.probability))
            bar = BAR if answer.mask is None else colour_of(place + 1)
            draw.rectangle((left, top, left + length, top + 18), fill=bar)
            draw.text((left + 6, top + 1), answer.text, font=plain, fill=INK)
            draw.text((left + COLUMN - 50, top + 1), f"{answer.probability:.1%}", font=plain, fill=FAINT)
            top += 22
        top += 8
    return canvas


def _scaled(image: str | Path | Image.Image) -> Image.Image:
    picture = image if isinstance(image, Image.Image) else open_image(Path(image))
    picture = check_size(picture).convert("RGB")
    width = max(1, round(picture.width * HEIGHT / picture.height))
    return picture.resize((width, HEIGHT), Image.Resampling.BICUBIC)
