"""The record: one sample of any corpus, before tokens and pixels. Every reader yields it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from unimo.errors import RecordError
from unimo.metrics.gqa import QuestionFacts

ImageSource = bytes | Path
ImageLike = str | Path | bytes | Image.Image
"""An image as a caller may pass it: a path, an encoded file or an opened picture."""
_BETWEEN_IDS = "\0"
"""Joins the names of two pictures; no file name and no id has it."""
_COCO = re.compile(
    r"(?:.*[/\\:])?(?:COCO_(?:train|val|test)20\d\d_(\d{12})(?:\.jpe?g)?"
    r"|(?:train|val|test|unlabeled)20\d\d[/\\](\d{12})\.jpe?g)"
    r"|(\d{12})(?:\.jpe?g)?",
    re.IGNORECASE,
)
"""COCO's names of 2014 and 2015 anywhere; those of 2017, twelve digits, in its own folders or without any."""


def coco_number(image_id: str) -> int | None:
    """Return the number of a picture whose id is one of COCO's file names; None for other ids."""
    found = _COCO.fullmatch(image_id)
    return int(next(filter(None, found.groups()))) if found else None


def picture_name(image_id: str) -> str:
    """Return what all ids of one picture within a corpus have in common.

    COCO has two file names for most of its pictures, whose numbers no two of them share, and dealt them out
    anew in 2017: `train2017/000000000009.jpg` is `val2014/COCO_val2014_000000000009.jpg`. Ids of other sets
    are equal or of two pictures: `train2014/1.jpg` is not `val2014/1.jpg`. Of a `pair_id` it is the name of
    both pictures in whatever order.
    """
    if _BETWEEN_IDS in image_id:
        return _BETWEEN_IDS.join(sorted(map(picture_name, split_pair_id(image_id))))
    number = coco_number(image_id)
    return image_id if number is None else f"COCO {number}"


def pair_id(first: str, second: str) -> str:
    """Return the `image_id` of a sample with two pictures, from their own."""
    return f"{first}{_BETWEEN_IDS}{second}"


def split_pair_id(image_id: str) -> list[str]:
    """Return the ids of the pictures of a sample: two from a `pair_id`, else the one given."""
    return image_id.split(_BETWEEN_IDS)


@dataclass(frozen=True)
class Record:
    """One sample: images with one text, or either alone, and the targets of a task.

    Fields that a corpus does not provide keep their defaults.
    """

    sample_id: str
    """Unique in its corpus; named in error messages and prediction files."""
    corpus: str
    """Name of the corpus, for counters and logs."""
    images: tuple[ImageSource, ...] = field(default=(), repr=False)
    """Encoded image files, each as bytes or as a path: none, one, or two (NLVR2)."""
    text: str | None = None
    """Caption, question or hypothesis; the first sentence of a pair of sentences."""
    text_pair: str | None = None
    """Second sentence of a pair of sentences (GLUE)."""
    image_id: str = ""
    """Name of the image in its corpus, equal for all its texts; empty if the corpus has none. Of two images
    their `pair_id`."""
    question_id: int | str | None = None
    """Id required by the official result files."""
    answer_scores: Mapping[str, float] = field(default_factory=dict)
    """VQA and GQA: soft score in (0, 1] by answer."""
    question_type: str = ""
    """Group that accuracy is also reported for."""
    facts: QuestionFacts | None = None
    """GQA: what its scores read of the question."""
    label: int | None = None
    """Class of a classification sample (entailment: contradiction 0, neutral 1, entailment 2; NLVR2: false 0,
    true 1)."""
    label_name: str = ""
    """Readable name of that class, used in prompts."""
    class_map: ImageSource | None = field(default=None, repr=False)
    """Segmentation: file of the class of each pixel, of the size of the image; 255 = none."""
    score: float | None = None
    """Regression target (STS-B: 0 to 5)."""
    false_image: ImageSource | None = field(default=None, repr=False)
    """A mismatched image from the same corpus (ITM with `task.false_images=dataset`)."""

    @property
    def image(self) -> ImageSource | None:
        """The only image, for tasks that read one; None if there is none.

        Raises:
            RecordError: the sample has several images.
        """
        if len(self.images) > 1:
            raise RecordError(f"sample {self.sample_id} has {len(self.images)} images; expected one")
        return self.images[0] if self.images else None

    def picture(self, place: int) -> Record:
        """Return a record with one of several images, for what reads a single one.

        Raises:
            RecordError: the sample does not have two images.
        """
        if len(self.images) != 2:
            raise RecordError(f"sample {self.sample_id} has {len(self.images)} images; expected two")
        ids = split_pair_id(self.image_id)
        image_id = ids[place] if len(ids) == 2 else ""
        return replace(self, images=(self.images[place],), image_id=image_id)

    @property
    def best_answer(self) -> str:
        """Answer with the highest score, the first of equal ones; empty without answers."""
        return max(self.answer_scores, key=self.answer_scores.__getitem__, default="")

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the sample that a tokenizer reads."""
        return tuple(text for text in (self.text, self.text_pair) if text)

    @property
    def image_group(self) -> int:
        """Identity of the image, in [0, 2**63): equal for samples that show the same picture, or the same two
        pictures in whatever order.

        This is the only identity of an image: batches carry it as int64, contrastive losses never take
        samples of one group as negatives, and no draw of a mismatched image returns a picture of the same
        group. It is a hash of the corpus and the `picture_name` of `image_id`, or of the corpus and the
        sample where there is no `image_id`, so it does not depend on the batch, the rank or the run.
        """
        name = picture_name(self.image_id) or f"sample {self.sample_id}"
        # The length separates the two names; file names may hold bytes that are not UTF-8, as surrogates.
        key = f"{len(self.corpus)} {self.corpus} {name}".encode("utf8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
