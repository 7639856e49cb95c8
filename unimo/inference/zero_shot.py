"""Zero-shot use of a pre-trained model: its matching head says how well a text fits an image.

Retrieval ranks by that score. Classification puts each class name into a prompt and takes the text that
fits best (UNIMO-2, section 5.2).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from unimo.errors import CapabilityError, CheckpointError
from unimo.inference import loading
from unimo.inference.labels import PROMPT, check_prompt
from unimo.models.base import Images
from unimo.nn.outputs import Encoded, concat_rows
from unimo.tasks.base import Batch, Task, to_tensors
from unimo.tasks.classification.image import TopAccuracy
from unimo.tasks.retrieval.matching import MatchingTask
from unimo.tasks.retrieval.task import RetrievalConfig, RetrievalTask

if TYPE_CHECKING:
    from unimo.data.processor import ImageLike, Processor

logger = logging.getLogger(__name__)
TEXTS_AT_ONCE = 64


def open_matcher(
    directory: str | Path,
    image_size: int | None = None,
    processor: Mapping[str, Any] | None = None,
    config: RetrievalConfig | None = None,
) -> tuple[MatchingTask, Processor]:
    """A pre-trained model with its matching head, as a retrieval task that nobody trained.

    Without contrastive heads from pre-training there is no first stage: every pair is scored.

    Args:
        directory: model directory of pre-training or of retrieval.
        image_size, processor: as for `loading.load`.
        config: of retrieval; how candidates are chosen and how many pairs are fused at a time.

    Raises:
        CheckpointError: nothing there, or the model was pre-trained without a matching head.
        CapabilityError: the model was trained on another task.
    """
    trained_on = loading.read_model_config(directory)["task"]["name"]
    if trained_on == "retrieval":
        return loading.load_task(directory, image_size, processor)
    if trained_on != "pretrain":
        raise CapabilityError(
            f"to match images and texts a pre-trained model is needed; {directory} was trained on "
            f"{trained_on!r}"
        )
    model, reader = loading.load(directory, image_size, processor)
    config = config or RetrievalConfig()
    size = getattr(getattr(model.config, "objective", None), "contrastive_size", config.itc_size)
    task = RetrievalTask.create(model, dataclasses.replace(config, itc_size=size))
    fresh = loading.start_from(task, directory)
    if any(name.startswith("itm_head.") for name in fresh):
        raise CheckpointError(
            f"{directory} was pre-trained without image-text matching, which zero-shot scores come from"
        )
    if any(name.startswith("itc_") for name in fresh) and not config.exhaustive:
        logger.info("no contrastive heads from pre-training: every pair of text and image is scored")
        task.config = dataclasses.replace(task.config, exhaustive=True)
    task.eval()
    return task, reader


class ZeroShotClassification(Task):
    """Classes by the matching head: each text and each image is encoded once, all their pairs are fused.

    Args:
        matcher: of `open_matcher`.
        processor: of the same model.
        labels: names of the classes.
        prompt: sentence with `{}` where a name goes.

    Raises:
        ConfigError: the prompt has no place for a name.
    """

    needs = frozenset({"dual_encoder", "fusion"})

    def __init__(
        self, matcher: MatchingTask, processor: Processor, labels: Sequence[str], prompt: str = PROMPT
    ) -> None:
        super().__init__(matcher.model, matcher.config, {"classes": list(labels)})
        self.matcher, self.processor = matcher, processor
        self.labels = list(labels)
        self.eval()
        texts = processor(texts=[check_prompt(prompt).format(label) for label in labels])
        self._texts = self._encode_texts(to_tensors(texts))

    def _encode_texts(self, batch: Batch) -> Encoded:
        with paddle.no_grad():
            parts = [
                self.model.encode_text(ids, mask)
                for ids, mask in zip(
                    *(batch[key].split(_sizes(len(self.labels))) for key in ("input_ids", "attention_mask")),
                    strict=True,
                )
            ]
            return concat_rows(parts)

    def logits(self, images: Images) -> Tensor:
        """Compute the log-odds [B, classes] that the text of a class matches an image."""
        image = self.model.encode_image(images)
        rows, count = image.image.shape[0], len(self.labels)
        pairs = paddle.arange(rows * count, dtype="int64")
        odds = []
        for part in pairs.split(_sizes(rows * count, self.config.fusion_batch_size)):
            match = self.matcher.match_logits(self._texts.select(part % count), image.select(part // count))
            odds.append(match[:, 1] - match[:, 0])
        return paddle.concat(odds).astype("float32").reshape([rows, count])

    def predict(self, batch: Batch) -> dict[str, Any]:
        """`logits` [B, classes], and one record a sample with the name of its best class."""
        logits = self.logits(batch.images)
        rows = zip(batch.sample_ids, logits.argmax(axis=1).tolist(), strict=True)
        return {"logits": logits, "records": [{"sample_id": key, "label": self.labels[i]} for key, i in rows]}

    def rank(self, image: ImageLike) -> list[tuple[str, float]]:
        """Probabilities of the classes for one image, the largest first, given that one of them is right.

        Raises:
            RecordError: the image cannot be decoded.
        """
        with paddle.no_grad():
            images = to_tensors(self.processor(images=image)[self.processor.image_key])
            logits = self.logits(images)
        # If exactly one of independent matches is true, its odds decide: a softmax of the log-odds.
        shares = F.softmax(logits, axis=1)[0].tolist()
        return sorted(zip(self.labels, shares, strict=True), key=lambda pair: -pair[1])

    def new_metric(self) -> TopAccuracy:
        """Top-1 and top-5 accuracy."""
        return TopAccuracy()


def open_classifier(
    directory: str | Path, labels: Sequence[str], prompt: str = PROMPT
) -> ZeroShotClassification:
    """A pre-trained model that tells which label fits an image best; arguments and errors as above."""
    check_prompt(prompt)
    return ZeroShotClassification(*open_matcher(directory), labels, prompt)


def _sizes(count: int, size: int = TEXTS_AT_ONCE) -> list[int]:
    """Sizes of the parts that `count` rows are cut into."""
    return [min(size, count - start) for start in range(0, count, size)]
