"""The record: one sample of any corpus, before tokens and pixels. Every reader yields it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

ImageSource = bytes | Path
ImageLike = str | Path | bytes | Image.Image
"""What a person may give for a picture."""


@dataclass(frozen=True)
class Record:
    """One sample: an image with one text, or either alone, and what a task wants to know about them.

    Fields that a corpus does not have stay at their defaults.
    """

    sample_id: str
    """Unique in its corpus; named in error messages and prediction files."""
    corpus: str
    """Name of the corpus, for counters and logs."""
    image: ImageSource | None = field(default=None, repr=False)
    """Encoded image file: its bytes, or where it lies."""
    text: str | None = None
    """Caption, question or hypothesis; the first sentence of a pair of sentences."""
    text_pair: str | None = None
    """Second sentence of a pair of sentences (GLUE)."""
    image_id: str = ""
    """Equal for all texts of one image; retrieval counts these as matches."""
    question_id: int | str | None = None
    """Id that the official result files want."""
    answer_scores: Mapping[str, float] = field(default_factory=dict)
    """VQA: answer -> soft score in (0, 1]."""
    question_type: str = ""
    """Name under which accuracy is broken down."""
    label: int | None = None
    """Class of a classification sample (entailment: contradiction 0, neutral 1, entailment 2)."""
    label_name: str = ""
    """Name of that class, as a person would say it; prompts are made from it."""
    score: float | None = None
    """What a regression sample is to give (STS-B: 0 to 5)."""
    false_image: ImageSource | None = field(default=None, repr=False)
    """A mismatched image from the same corpus (ITM with `task.false_images=dataset`)."""
