"""Zero-shot use of a pre-trained model: its matching head scores how well a text fits an image.

VLMo scores by the vectors of its dual encoder instead, unless `task.rerank` asks for matching. Retrieval
ranks by the score. Classification puts each class name into a prompt and takes the text that fits best
(UNIMO-2, section 5.2).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from unimo import distributed
from unimo.config import parse_overrides
from unimo.data.processor import ImageLike, Processor
from unimo.errors import CapabilityError, CheckpointError, ConfigError, nearest, shown
from unimo.inference import loading
from unimo.inference.evaluation import Evaluation, measure, model_changes, processor_changes, run_of
from unimo.inference.labels import PROMPT, align_labels, check_prompt, read_labels
from unimo.models.base import Images
from unimo.nn.outputs import concat_rows
from unimo.registry import paper_of, task_config
from unimo.tasks.base import Batch, to_tensors
from unimo.tasks.classification.image import ImageClassificationTask, TopAccuracy, class_names
from unimo.tasks.classifier import ClassifierTask
from unimo.tasks.retrieval.matching import MatchingTask
from unimo.tasks.retrieval.task import RetrievalConfig, RetrievalTask

logger = logging.getLogger(__name__)
ZERO_SHOT_TASKS = ("retrieval", "image_classification")
TEXTS_AT_ONCE = 64


def open_matcher(
    directory: str | Path,
    processor: Mapping[str, Any] | None = None,
    config: RetrievalConfig | None = None,
    **overrides: Any,
) -> tuple[MatchingTask, Processor]:
    """Open a pre-trained model with its heads, as a retrieval task that nobody trained.

    Without contrastive heads from pre-training there is no first stage: every pair is scored by matching.

    Args:
        directory: model directory of pre-training or of retrieval.
        processor: fields of the processor to replace.
        config: retrieval config, for the choice of candidates and the number of pairs fused at a time; None
            for the default of the model.
        overrides: fields of the config of a pre-trained model to replace.

    Raises:
        CheckpointError: there is no such directory, or the model was pre-trained without what is to score.
        CapabilityError: the model was trained on another task.
    """
    trained_on = loading.read_model_config(directory)["task"]["name"]
    if trained_on == "retrieval":
        return loading.load_task(directory, processor)
    if trained_on != "pretrain":
        raise CapabilityError(
            f"to match images and texts a pre-trained model is needed; {directory} was trained on "
            f"{trained_on!r}"
        )
    model, reader = loading.load(directory, processor=processor, **overrides)
    config = config or task_config("retrieval", model.config.name)
    options = getattr(model.config, "objective", None)
    if config.loss != "itc":
        # Whatever loss fine-tuning is to have: pre-training learned matching by cross-entropy.
        size = getattr(options, "contrastive_size", config.itc_size)
        has_vectors = "dual_encoder" in paper_of(model.config.name).capabilities
        loss = "itc_itm" if has_vectors else "cross_entropy"
        config = dataclasses.replace(config, loss=loss, itc_size=size)
    task = RetrievalTask.create(model, config)
    fresh = loading.start_from(task, directory)
    skipped = {"itc", "itm"} - set(getattr(options, "tasks", ("itc", "itm")))
    if "itm" in skipped or any(name.startswith("itm_head.") for name in fresh):
        if config.has_matching:
            raise CheckpointError(
                f"{directory} was pre-trained without image-text matching, which zero-shot scores come from"
            )
    has_contrast = "itc" not in skipped and not any(name.startswith("itc_") for name in fresh)
    if config.loss == "itc" and not has_contrast:
        raise CheckpointError(
            f"{directory} was pre-trained without image-text contrast, which zero-shot scores come from"
        )
    if not has_contrast and not config.exhaustive:
        logger.info("no contrastive heads from pre-training: every pair of text and image is scored")
        task.config = dataclasses.replace(task.config, exhaustive=True)
    task.eval()
    return task, reader


class ZeroShotClassification(ClassifierTask):
    """Classification: each text and each image is encoded once, and all pairs are scored.

    Args:
        matcher, processor: results of `open_matcher`.
        labels: names of the classes.
        prompt: sentence with `{}` where a name goes.

    Raises:
        ConfigError: there are no labels, or the prompt has no place for one.
    """

    needs = frozenset({"dual_encoder", "fusion"})

    def __init__(
        self, matcher: MatchingTask, processor: Processor, labels: Sequence[str], prompt: str = PROMPT
    ) -> None:
        if isinstance(labels, str) or not labels or not all(isinstance(label, str) for label in labels):
            raise ConfigError(f"labels: expected a list of names of classes, found {shown(labels)}")
        super().__init__(matcher.model, matcher.config, {"classes": list(labels)})
        self.matcher, self.processor, self.classes = matcher, processor, list(labels)
        self.eval()
        texts = to_tensors(processor(texts=[check_prompt(prompt).format(label) for label in labels]))
        sizes = _sizes(len(self.classes), TEXTS_AT_ONCE)
        parts = zip(texts["input_ids"].split(sizes), texts["attention_mask"].split(sizes), strict=True)
        with paddle.no_grad():
            self._texts = concat_rows([self.model.encode_text(ids, mask) for ids, mask in parts])
            self._vectors = None if matcher.config.has_matching else matcher.text_vectors(self._texts)

    def logits(self, batch: Batch) -> Tensor:
        return self.image_logits(batch.images)

    def image_logits(self, images: Images) -> Tensor:
        """Compute the scores [B, classes] of the text of a class with an image: log-odds of a match, or
        cosines by the temperature of the dual encoder."""
        image = self.model.encode_image(images)
        if self._vectors is not None:
            cosines = paddle.matmul(self.matcher.image_vectors(image), self._vectors, transpose_y=True)
            return cosines / self.matcher.sigma()
        rows, count = image.image.shape[0], len(self.classes)
        pairs = paddle.arange(rows * count, dtype="int64")
        scores = []
        for part in pairs.split(_sizes(rows * count, self.config.fusion_batch_size)):
            text, shown = self._texts.select(part % count), image.select(part // count)
            scores.append(self.matcher.match_scores(text, shown))
        return paddle.concat(scores).reshape([rows, count])

    def rank(self, image: ImageLike) -> list[tuple[str, float]]:
        """Return the classes with their probabilities for one image, best first, if one of them is right."""
        if isinstance(image, (list, tuple)):
            raise ConfigError(f"expected one image, found {len(image)}; rank them one by one")
        with paddle.no_grad():
            logits = self.image_logits(to_tensors(self.processor(images=image)[self.processor.image_key]))
        # If exactly one of independent matches is true, its odds decide: a softmax of the log-odds.
        shares = F.softmax(logits, axis=1)[0].tolist()
        return sorted(zip(self.classes, shares, strict=True), key=lambda pair: -pair[1])

    def new_metric(self) -> TopAccuracy:
        return TopAccuracy()


def _sizes(count: int, size: int) -> list[int]:
    """Return the sizes of the parts that `count` rows are split into, `size` rows each at most."""
    return [min(size, count - start) for start in range(0, count, size)]


def evaluate_zero_shot(
    directory: str | Path,
    split: str,
    task: str,
    overrides: Sequence[str] = (),
    blank_images: bool = False,
    labels: str = "",
    prompt: str = "",
) -> Evaluation:
    """Evaluate a pre-trained model directory as `open_matcher` opens it.

    Args:
        directory, blank_images: as of `evaluate`; a directory of pre-training.
        split: split of the data; empty for `val`.
        task: `retrieval` or `image_classification`.
        overrides: as of `evaluate`. Without `data.path`, retrieval reads the captions of pre-training.
        labels: file of class names, one a line; empty for the names in the data.
        prompt: sentence with `{}` for a class name; empty for `PROMPT`.

    Raises:
        ConfigError: another task, labels or a prompt for retrieval, or a wrong override.
        CheckpointError, CapabilityError, DataError: no such model or data, or not of that kind.
    """
    if task not in ZERO_SHOT_TASKS:
        raise ConfigError(f"there is no zero-shot {task or 'task'}; {nearest(task, ZERO_SHOT_TASKS)}")
    if task == "retrieval" and (labels or prompt):
        raise ConfigError("labels and prompts are for --task image_classification; leave them out")
    trained_on = loading.read_model_config(directory)["task"]["name"]
    if trained_on != "pretrain":
        raise ConfigError(
            f"{directory} was trained on {trained_on!r}, so nothing about it is zero-shot; "
            "give a pre-trained model, or leave out --zero-shot"
        )
    prompt, names = check_prompt(prompt or PROMPT), read_labels(labels) if labels else []
    run, split = run_of(directory, overrides, task), split or "val"
    distributed.setup(run.train)
    changes = processor_changes(run, blank_images)
    if task == "retrieval":
        if "path" not in parse_overrides(list(overrides)).get("data", {}):
            captions = [corpus for corpus in run.data.pairs if not corpus.questions] or run.data.pairs
            run = dataclasses.replace(run, data=dataclasses.replace(run.data, path=captions))
        matcher, processor = open_matcher(directory, changes, run.task, **model_changes(run))
        return measure(matcher, RetrievalTask.open_data(run, processor), split, run)
    classes = class_names(run, split)
    names = align_labels(names, classes, labels) if names else classes
    matcher, processor = open_matcher(directory, changes)
    classifier = ZeroShotClassification(matcher, processor, names, prompt)
    data = ImageClassificationTask.open_data(run, processor, {"classes": classes})
    return measure(classifier, data, split, run)
