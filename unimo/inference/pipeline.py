"""A fine-tuned model as a function: load once, then ask about pictures.

pipeline = Pipeline("output/unimo3_tiny_vqa")
pipeline.answer("picture.png", "what is left of the circle?")
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from unimo.data.readers.generation import GenerationRecord
from unimo.data.readers.glue import TASKS
from unimo.data.record import Record
from unimo.errors import CapabilityError, ConfigError
from unimo.inference.loading import load_task
from unimo.tasks.base import to_tensors
from unimo.tasks.classification.batches import TextCollator
from unimo.tasks.entailment import LABELS
from unimo.tasks.seq2seq.batches import Seq2SeqCollator
from unimo.tasks.seq2seq.data import layout_of

if TYPE_CHECKING:
    from unimo.data.processor import ImageLike
    from unimo.data.tokenizers import Tokenizer
    from unimo.nn.beam_search import Hypothesis

T = TypeVar("T")
Ranked = list[tuple[str, float]]


@dataclass(frozen=True)
class Caption:
    """A generated sentence."""

    text: str
    score: float
    """By which the search ranks: log-probability over length penalty."""
    probability: float
    """Geometric mean of the probabilities of its tokens, `</s>` included."""


class Pipeline:
    """A task opened from a model directory.

    Args:
        directory: model directory or run folder.
        batch_size: pairs that go through the model at a time.

    Raises:
        CheckpointError: nothing there, or it does not fit.
    """

    def __init__(self, directory: str | Path, batch_size: int = 32) -> None:
        self.task, self.processor = load_task(directory)
        self.batch_size = batch_size

    def answer(self, image: ImageLike, question: str, top_k: int = 5) -> Ranked:
        """The `top_k` best answers to a question with their probabilities (sigmoid: the sum is free).

        Raises:
            CapabilityError: the model was not fine-tuned on VQA.
            RecordError: the image cannot be decoded or the question is empty.
        """
        return self.answer_many([image], [question], top_k)[0]

    def answer_many(
        self, images: Sequence[ImageLike], questions: Sequence[str], top_k: int = 5
    ) -> list[Ranked]:
        """`answer` for pairs of images and questions, in batches."""
        self._expect("vqa", "answer questions")
        ranked: list[Ranked] = []
        for prediction in self._predict(images, questions):
            best = F.sigmoid(prediction["logits"]).topk(min(top_k, len(self.task.answers)), axis=1)
            for values, rows in zip(*(part.tolist() for part in best), strict=True):
                ranked.append([(self.task.answers[i], value) for i, value in zip(rows, values, strict=True)])
        return ranked

    def entail(self, image: ImageLike, text: str) -> Ranked:
        """Probabilities of contradiction, neutral and entailment, the largest first.

        Raises:
            CapabilityError: the model was not fine-tuned on entailment.
        """
        self._expect("entailment", "judge sentences")
        (prediction,) = self._predict([image], [text])
        return _ranked(LABELS, prediction["logits"])

    def match(self, image: ImageLike, text: str) -> float:
        """Probability that a text describes an image.

        Raises:
            CapabilityError: the model was not fine-tuned on retrieval.
        """
        self._expect("retrieval", "match images and texts")
        (prediction,) = self._predict([image], [text])
        return float(prediction["match"][0])

    def classify(self, image: ImageLike) -> Ranked:
        """All classes of an image with their probabilities, the largest first.

        Raises:
            CapabilityError: the model was not fine-tuned on image classification.
        """
        self._expect("image_classification", "classify pictures")
        batch = to_tensors(self.processor(images=[image]))
        with paddle.no_grad():
            logits = self.task.logits(batch)
        return _ranked(self.task.classes, logits)

    def classify_text(self, text: str, text_pair: str | None = None) -> Ranked:
        """All classes of a text, or of a pair of texts, with their probabilities, the largest first.

        Of regression (STS-B) the one entry `similarity`: the score as a share of the largest, not clipped.

        Raises:
            CapabilityError: the model was not fine-tuned on text classification.
            ConfigError: its data set has pairs and one text was given, or the reverse.
        """
        self._expect("text_classification", "classify texts")
        glue = TASKS[self.task.config.dataset]
        if len(glue.texts) != (1 if text_pair is None else 2):
            raise ConfigError(
                f"{self.task.config.dataset} has {len(glue.texts)} text(s) a sample "
                f"({', '.join(glue.texts)}); give as many"
            )
        collator = TextCollator(self.processor, len(glue.class_names), train=False)
        record = Record(sample_id="0", corpus="", text=text, text_pair=text_pair)
        rng = np.random.default_rng(0)
        batch = to_tensors(collator.collate([collator.prepare(record, rng)], rng))
        with paddle.no_grad():
            logits = self.task.logits(batch)
        return _ranked(glue.class_names, logits) or [("similarity", logits.item() / glue.max_score)]

    def caption(self, image: ImageLike, n_best: int = 1) -> list[Caption]:
        """The `n_best` best sentences about an image, best first.

        Raises:
            CapabilityError: the model was not fine-tuned on captions.
            RecordError: the image cannot be decoded.
        """
        return self.caption_many([image], n_best)[0]

    def caption_many(self, images: Sequence[ImageLike], n_best: int = 1) -> list[list[Caption]]:
        """`caption` for several images, in batches. A beam smaller than `n_best` is widened."""
        self._expect("caption", "describe pictures")
        beam, tokenizer = self.task.config.beam, self.processor.tokenizer
        beam = replace(beam, size=max(beam.size, n_best))
        captions: list[list[Caption]] = []
        for start in range(0, len(images), self.batch_size):
            batch = to_tensors(self.processor(images=list(images[start : start + self.batch_size])))
            for found in self.task.generate(self.task.model.images_of(batch), tokenizer, beam):
                captions.append([_to_caption(one, tokenizer) for one in found[:n_best]])
        return captions

    def generate(self, source: str | Sequence[str], n_best: int = 1) -> list[Caption]:
        """The `n_best` best texts for a source, best first.

        Args:
            source: a text, or the columns that the model was trained on, e.g. passage and answer; a string
                may hold them with tabs between. Dialogs begin with what they are about (maybe empty), then
                come the turns.
            n_best: texts to return; a smaller beam is widened.

        Raises:
            CapabilityError: the model was not fine-tuned on text generation.
            RecordError: a column is empty.
        """
        self._expect("seq2seq", "write texts")
        config, tokenizer = self.task.config, self.processor.tokenizer
        columns = tuple(source.split("\t") if isinstance(source, str) else source)
        knowledge, columns = (columns[0], columns[1:]) if config.dialog else (None, columns)
        record = GenerationRecord("source", "", sources=columns, knowledge=knowledge)
        collator, rng = Seq2SeqCollator(self.processor, layout_of(config), False), np.random.default_rng(0)
        batch = to_tensors(collator.collate([collator.prepare(record, rng)], rng))
        beam = replace(config.beam, size=max(config.beam.size, n_best))
        with paddle.no_grad():
            (found,) = self.task.generate(batch, tokenizer, beam)
        return [_to_caption(one, tokenizer) for one in found[:n_best]]

    def _expect(self, name: str, wish: str) -> None:
        if self.task.config.name != name:
            raise CapabilityError(
                f"to {wish} a model fine-tuned on {name!r} is needed, this one was trained on "
                f"{self.task.config.name!r}; try: python tools/finetune.py --task {name}"
            )

    def _predict(self, images: Sequence[Any], texts: Sequence[str]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(texts), self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = to_tensors(self.processor(images=list(images[part]), texts=list(texts[part])))
            batch["sample_ids"] = [str(index) for index in range(start, start + len(texts[part]))]
            with paddle.no_grad():
                yield self.task.predict(batch)


def _ranked(names: Sequence[str], logits: Tensor) -> Ranked:
    """Names with the softmax of logits [1, classes], best first; empty without names."""
    pairs = zip(names, F.softmax(logits, axis=1)[0].tolist(), strict=True) if names else ()
    return sorted(pairs, key=lambda pair: -pair[1])


def _to_caption(hypothesis: Hypothesis, tokenizer: Tokenizer) -> Caption:
    length = max(1, len(hypothesis.tokens) + hypothesis.is_finished)
    probability = math.exp(hypothesis.log_probability / length)
    return Caption(tokenizer.decode(hypothesis.tokens).strip(), hypothesis.score, probability)
