"""The dual encoder of a model directory, which makes the vectors of an index and of its queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from unimo.data.processor import Processor
from unimo.digests import digest
from unimo.errors import CapabilityError
from unimo.inference.loading import WEIGHTS, find_model, read_model_config
from unimo.inference.zero_shot import open_matcher
from unimo.nn.outputs import Encoded
from unimo.registry import task_config
from unimo.tasks.base import to_tensors
from unimo.tasks.retrieval.matching import MatchingTask


@dataclass(frozen=True)
class Encoder:
    """The dual encoder of a model directory."""

    task: MatchingTask
    processor: Processor
    made_with: Mapping[str, Any]
    """The directory, and the digest of its weights."""
    width: int
    """E, numbers of a vector."""

    @classmethod
    def open(cls, directory: str | Path, rerank: int = 0) -> Encoder:
        """Open a model that was pre-trained or fine-tuned with image-text contrast.

        Args:
            directory: its directory.
            rerank: results that its fusion encoder is to judge.

        Raises:
            CheckpointError: there is no such model, or it was pre-trained without the matching to re-rank by.
            CapabilityError: it has no dual encoder that was trained.
        """
        folder = find_model(directory)
        content = read_model_config(folder)
        pretrained = content["task"]["name"] == "pretrain"
        config = task_config("retrieval", content["model"]["name"]) if pretrained else None
        if rerank and config and config.loss == "itc":
            config = dataclasses.replace(config, rerank=rerank)
        task, processor = open_matcher(folder, config=config)
        untrained = pretrained and task.config.exhaustive  # see `open_matcher`
        with paddle.no_grad():
            vectors = None if untrained else task.text_vectors(encode_texts(task, processor, ["a"]))
        if vectors is None:
            raise CapabilityError(
                f"{directory} has no vectors of images and texts to search by; give a model that was "
                "pre-trained with image-text contrast (VLMo, UNIMO-2), or fine-tuned on retrieval with it "
                "(python tools/finetune.py --task retrieval task.loss=itc_itm)"
            )
        made_with = {"directory": str(folder), "model": digest(folder / WEIGHTS)}
        return cls(task, processor, made_with, width=vectors.shape[1])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Compute unit vectors [N, E], float32, of N texts.

        Raises:
            RecordError: a text is empty.
        """
        with paddle.no_grad():
            return _unit(self.task.text_vectors(encode_texts(self.task, self.processor, texts)))

    def images(self, images: Sequence[Any]) -> np.ndarray:
        """Compute unit vectors [N, E], float32, of N images as `Processor.image` gives them."""
        with paddle.no_grad():
            return _unit(self.task.image_vectors(encode_images(self.task, self.processor, images)))


def encode_texts(task: MatchingTask, processor: Processor, texts: Sequence[str]) -> Encoded:
    """Encode N texts for the vectors or the fusion of a task; raises RecordError for an empty one."""
    inputs = to_tensors(processor(texts=list(texts)))
    return task.model.encode_text(inputs["input_ids"], inputs["attention_mask"])


def encode_images(task: MatchingTask, processor: Processor, images: Sequence[Any]) -> Encoded:
    """Encode N images as `Processor.image` gives them, for the vectors or the fusion of a task."""
    return task.model.encode_image(to_tensors(processor.join_images(images)))


def _unit(vectors: paddle.Tensor) -> np.ndarray:
    found = vectors.astype("float32").numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)
