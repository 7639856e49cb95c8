"""Image captioning: learn the next token of human captions, then search for the best sentence.

The model decodes (`Model.decode` in training, `Model.step` in search) and this task turns its states into
words. Training reads one caption a sample; evaluation describes each image once and compares the sentence
with all captions of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import paddle.distributed as dist
from paddle import Tensor

from unimo.data.readers.open import open_corpus
from unimo.data.tokenizers import Tokenizer
from unimo.losses.seq2seq import token_accuracy
from unimo.metrics import caption_java
from unimo.metrics.average import gather_objects
from unimo.metrics.caption import caption_scores, tokenize
from unimo.models.base import Images, Model
from unimo.nn.beam_search import BeamConfig, Hypothesis
from unimo.tasks.adversarial import AdversarialConfig, shown, task_losses, task_total
from unimo.tasks.base import Answer, Batch, Question, to_tensors
from unimo.tasks.caption.batches import CaptionCollator, ReferenceCollator
from unimo.tasks.caption.data import CaptionData, read_references, result_image_id
from unimo.tasks.caption.scene_scores import scene_caption_scores
from unimo.tasks.generation import GenerationConfig, GenerationTask, written

if TYPE_CHECKING:
    from unimo.data.processor import Processor
    from unimo.settings import RunConfig


@dataclass(frozen=True)
class CaptionConfig(GenerationConfig):
    """Fields of the task section of a captioning run."""

    name: str = "caption"
    references: str = ""
    """COCO annotation file whose captions evaluation compares with; empty: those of the data."""
    java: bool = True
    """Use pycocoevalcap's Java programs where they are installed: the Stanford tokenizer for all metrics,
    METEOR and SPICE. False: Python alone."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """Adversarial training, for models that read regions."""


class CaptionTask(GenerationTask):
    """A model that describes what it sees."""

    Config = CaptionConfig

    asked_with = "caption"
    needs = frozenset({"generation"})

    def __init__(
        self, model: Model, config: CaptionConfig, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(model, config, metadata)
        config.adversarial.check(model, config.name)
        self.freeze_unused(text=True, image=True, pooled=False)

    @classmethod
    def open_data(
        cls, run: RunConfig, processor: Processor, metadata: Mapping[str, Any] | None = None
    ) -> CaptionData:
        """Open the image-text pairs of `data.path`, and the references of `task.references` if there are any.

        Raises:
            DataError: the file of references cannot be used.
        """
        only_scenes = all(corpus.path == "scenes" for corpus in run.data.path)
        return CaptionData(
            corpora=run.data.path,
            open_split=lambda corpus, split: open_corpus(corpus, split, "pairs", run.data),
            processor=processor,
            collator=lambda train: (CaptionCollator if train else ReferenceCollator)(processor, train),
            references=read_references(run.task.references) if run.task.references else None,
            scenes=run.data.scenes if only_scenes else None,
        )

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Label-smoothed cross-entropy, mean over tokens, with adversarial training also its terms; report:
        accuracy of the next token."""

        def forward(*, text: Tensor | None = None, image: Tensor | None = None) -> tuple[Tensor, Tensor]:
            source = self.model.encode_image(shown(batch.images, image))
            moved = {} if text is None else {"delta": text}
            states = self.model.decode(source, batch.input_ids, batch.attention_mask, **moved)
            return self.next_token(states, batch)

        losses, logits = task_losses(self.config.name, forward, self.model, batch, self.config.adversarial)
        return losses, {"accuracy": 100 * token_accuracy(logits, batch.target_labels)}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The task's loss, and what adversarial training adds."""
        return task_total(self.config.name, losses, self.config.adversarial)

    def generate(
        self, images: Images, tokenizer: Tokenizer, beam: BeamConfig | None = None
    ) -> list[list[Hypothesis]]:
        """The best sentences for images, best first, without special tokens inside.

        Args:
            images: what the model reads of a batch, see `Model.images_of`.
            tokenizer: of the captions that the model was trained on.
            beam: another search than that of the config.
        """
        encoded = self.model.encode_image(images)
        return self.search(encoded, encoded.image.shape[0], tokenizer, beam)

    def predict(self, batch: Batch) -> dict[str, Any]:
        """`captions` [B], the best sentence for each image, and the rows of COCO's result file."""
        tokenizer: Tokenizer = batch.tokenizer
        beams = self.generate(batch.images, tokenizer)
        captions = [tokenizer.decode(beam[0].tokens).strip() for beam in beams]
        rows = zip(batch.image_ids, captions, strict=True)
        records = [{"image_id": result_image_id(key), "caption": caption} for key, caption in rows]
        return {"captions": captions, "records": records}

    def ask(self, processor: Processor, questions: Sequence[Question], count: int) -> list[list[Answer]]:
        """Describe images. A beam smaller than `count` is widened."""
        tokenizer = processor.tokenizer
        beam = replace(self.config.beam, size=max(self.config.beam.size, count))
        images = to_tensors(processor([question.image for question in questions])[processor.image_key])
        return [written(found[:count], tokenizer) for found in self.generate(images, tokenizer, beam)]

    def new_metric(self) -> CaptionMetric:
        """BLEU, ROUGE-L and CIDEr-D; METEOR and SPICE where installed; colours and shapes for `scenes`."""
        return CaptionMetric(self.config.java)


class CaptionMetric:
    """Scores of the generated captions against all human ones of their images, times 100.

    Args:
        java: use pycocoevalcap's Java programs where they are installed.
    """

    def __init__(self, java: bool) -> None:
        self._java = java and caption_java.find_evaluation() is not None
        self._captions: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._scenes: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {}

    def update(self, prediction: Mapping[str, Any], batch: Batch) -> None:
        """Take the captions of one batch."""
        rows = zip(batch.image_ids, prediction["captions"], batch.references, strict=True)
        self._captions.update({key: (caption, references) for key, caption, references in rows})
        if batch.objects is not None:
            seen = zip(batch.image_ids, prediction["captions"], batch.objects, strict=True)
            self._scenes.update({key: (caption, objects) for key, caption, objects in seen})

    def compute(self) -> dict[str, float]:
        """The scores over all ranks, computed on the first.

        Raises:
            DataError: an image has no references.
        """
        parts = gather_objects((self._captions, self._scenes))
        if dist.get_rank() != 0:
            return gather_objects(None)[0]
        captions, scenes = (
            {key: part[which][key] for part in parts for key in part[which]} for which in (0, 1)
        )
        scores = self._score(captions) | scene_caption_scores(scenes.values())
        return gather_objects(scores)[0]

    def _score(self, captions: Mapping[str, tuple[str, tuple[str, ...]]]) -> dict[str, float]:
        keys = sorted(captions)
        texts = [text for key in keys for text in (captions[key][0], *captions[key][1])]
        tokens = iter(caption_java.ptb_tokenize(texts) if self._java and texts else map(tokenize, texts))
        candidates, references = {}, {}
        for key in keys:
            candidates[key] = next(tokens)
            references[key] = [next(tokens) for _ in captions[key][1]]
        scores = caption_scores(candidates, references)
        return scores | (caption_java.java_scores(candidates, references) if self._java else {})


TASK = CaptionTask
