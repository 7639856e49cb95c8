"""Image captioning: learn the next token of human captions, then search for the best sentence.

Training reads one caption per sample; evaluation describes each image once and compares the sentence with
all captions of the image.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from paddle import Tensor

from unimo.data.processor import Processor
from unimo.data.readers.base import Dataset
from unimo.data.readers.open import open_corpus
from unimo.losses.reduce import accuracy
from unimo.metrics.average import compute_on_first
from unimo.metrics.caption import (
    JAVA_NEEDS,
    caption_scores,
    find_evaluation,
    java_scores,
    ptb_tokenize,
    tokenize,
)
from unimo.models.base import Images, Model
from unimo.nn.outputs import Encoded
from unimo.ranges import Size
from unimo.settings import CorpusConfig, RunConfig
from unimo.tasks.adversarial import AdversarialConfig, shown, task_losses, task_total
from unimo.tasks.base import Batch, Metadata, Metric, Question, to_tensors
from unimo.tasks.caption.batches import CaptionBatch, CaptionCollator, ReferenceBatch, ReferenceCollator
from unimo.tasks.caption.data import CaptionData, read_references, result_image_id
from unimo.tasks.caption.scene_scores import scene_caption_scores
from unimo.tasks.caption.tags import check_tags, find_tags, read_tags
from unimo.tasks.generation import GenerationConfig, GenerationTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionConfig(GenerationConfig):
    """Fields of the task section of a captioning run."""

    name: str = "caption"
    references: str = ""
    """COCO annotation file with captions to evaluate with; empty for those of the data."""
    java: bool = True
    """Use pycocoevalcap's Java programs where they are installed: the Stanford tokenizer for all metrics,
    METEOR and SPICE."""
    tags: str = ""
    """File of object tags of the images (`unimo/tasks/caption/tags.py`), which captions are written behind,
    as in the releases of UNIMO and UNIMO-2; empty: none, as in the papers."""
    max_tags: Size = 100
    """Tokens of the tags of an image; longer ones are cut (the releases: 100)."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """Adversarial training, for models that read regions."""


class CaptionTask(GenerationTask):
    """A model that describes what it sees."""

    Config = CaptionConfig
    asked_with = "caption"
    published_data = "COCO captions (Karpathy's split)"
    needs = frozenset({"generation"})

    def __init__(self, model: Model, config: CaptionConfig, metadata: Metadata = None) -> None:
        super().__init__(model, config, metadata)
        config.adversarial.check(model, config.name)
        self.freeze_unused(text=True, image=True, pooled=False)

    @classmethod
    def open_data(cls, run: RunConfig, processor: Processor, metadata: Metadata = None) -> CaptionData:
        """Open the image-text pairs of `data.path`, and the files of references and object tags, if any."""
        if run.task.java and find_evaluation() is None:
            lacking = "captions are scored without METEOR, SPICE and the Stanford tokenizer: these need %s"
            logger.warning(lacking, JAVA_NEEDS)
        only_scenes = all(corpus.path == "scenes" for corpus in run.data.path)
        kinds, tags = {True: CaptionCollator, False: ReferenceCollator}, None
        if run.task.tags:
            text = run.model.text
            tags = read_tags(run.task.tags, run.task.max_tags, text.vocab_size, text.max_position)

        def open_split(corpus: CorpusConfig, split: str) -> Dataset:
            dataset = open_corpus(corpus, split, "pairs", run.data)
            return dataset if tags is None else check_tags(tags, dataset)

        return CaptionData(
            corpora=run.data.path,
            open_split=open_split,
            processor=processor,
            collator=lambda train: kinds[train](processor, train, tags and partial(find_tags, tags)),
            references=read_references(run.task.references) if run.task.references else None,
            scenes=run.data.scenes if only_scenes else None,
        )

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the label-smoothed cross-entropy, a mean over tokens, and the further terms of adversarial
        training; report the accuracy of the next token."""

        def forward(*, text: Tensor | None = None, image: Tensor | None = None) -> tuple[Tensor, Tensor]:
            source = self.encode(replace(batch, images=shown(batch.images, image)))
            moved = {} if text is None else {"delta": text}
            states = self.model.decode(source, batch.input_ids, batch.attention_mask, **moved)
            return self.next_token(states, batch)

        losses, logits = task_losses(self.config.name, forward, self.model, batch, self.config.adversarial)
        return losses, {"accuracy": 100 * accuracy(logits, batch.target_labels)}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        return task_total(self.config.name, losses, self.config.adversarial)

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Write `captions` [B], the best sentence for each image; records are rows of COCO's result file."""
        beams = self.generate(batch, batch.tokenizer)
        captions = [batch.tokenizer.decode(beam[0].tokens).strip() for beam in beams]
        rows = zip(batch.image_ids, captions, strict=True)
        records = [{"image_id": result_image_id(key), "caption": caption} for key, caption in rows]
        return {"captions": captions, "records": records}

    def encode(self, source: Images | CaptionBatch | ReferenceBatch) -> Encoded:
        """Encode images, or those of a batch with their object tags."""
        if not isinstance(source, Batch):
            return self.model.encode_image(source)
        image = self.model.encode_image(source.images)
        return image if source.tags is None else self.model.add_tags(image, **source.tags)

    def read(self, processor: Processor, questions: Sequence[Question]) -> Images:
        """Return the images of questions, which have no tags."""
        return to_tensors(processor([question.image for question in questions])[processor.image_key])

    def new_metric(self) -> CaptionMetric:
        return CaptionMetric(self.config.java)


class CaptionMetric(Metric):
    """Scores of generated captions against all human ones of their images, times 100.

    They are BLEU, ROUGE-L and CIDEr-D, METEOR and SPICE where installed, and for `scenes` the share of right
    colours and shapes.

    Args:
        java: use pycocoevalcap's Java programs where they are installed.
    """

    def __init__(self, java: bool) -> None:
        self._java = java and find_evaluation() is not None
        self._captions: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._scenes: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {}

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        rows = zip(batch.image_ids, prediction["captions"], batch.references, strict=True)
        self._captions.update({key: (caption, references) for key, caption, references in rows})
        if batch.objects is not None:
            seen = zip(batch.image_ids, prediction["captions"], batch.objects, strict=True)
            self._scenes.update({key: (caption, objects) for key, caption, objects in seen})

    def compute(self) -> dict[str, float]:
        return compute_on_first((self._captions, self._scenes), self._score)

    def _score(self, parts: list[tuple[dict, dict]]) -> dict[str, float]:
        captions, scenes = ({key: part[i][key] for part in parts for key in part[i]} for i in (0, 1))
        keys = sorted(captions)
        texts = [text for key in keys for text in (captions[key][0], *captions[key][1])]
        tokens = iter(ptb_tokenize(texts) if self._java and texts else map(tokenize, texts))
        candidates, references = {}, {}
        for key in keys:
            candidates[key] = next(tokens)
            references[key] = [next(tokens) for _ in captions[key][1]]
        scores = caption_scores(candidates, references)
        if self._java:
            scores |= java_scores(candidates, references)
        return scores | scene_caption_scores(scenes.values())


TASK = CaptionTask
