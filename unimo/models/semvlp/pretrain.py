"""Pre-training of SemVLP (section 3.3): masked words, masked objects, matching and answers, in either mode.

One mode serves all rounds and ranks of an optimizer step. As in LXMERT one pass over masked texts and masked
images, half of which do not belong together, gives all losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from unimo.errors import ConfigError
from unimo.losses.contrastive import matching_loss
from unimo.losses.known_classes import known_class_loss
from unimo.losses.mlm import masked_lm_loss
from unimo.losses.region import region_regression_loss
from unimo.models import objective
from unimo.models.objective import Scalars, judged, prefixed
from unimo.models.semvlp.batches import PretrainBatch
from unimo.models.semvlp.config import MODES, Config, Mode, PretrainingConfig
from unimo.models.semvlp.model import SemVlp
from unimo.nn.heads import AnswerHead, HeadTransform, TiedMlmHead
from unimo.nn.init import linear


class Objective(objective.Objective):
    """MLM, masked objects and answers on pairs that match, ITM on all.

    Parameters: `mlm_head` (its last layer is the table of words), `itm_head`, `object_head` (one transform
    for all that is predicted of objects, as in LXMERT) with `feature_head`, `label_head` and
    `attribute_head`, `answer_head`.

    Raises:
        ConfigError: labels or attributes are to be predicted of objects that have none.
    """

    LOSSES = ("mlm", "itm", "object", "label", "attribute", "qa")

    def __init__(self, config: Config, options: PretrainingConfig) -> None:
        super().__init__()
        task, regions, width, std = config.objective, config.regions, config.hidden_size, config.text.init_std
        for name, there in (("labels", regions.num_classes), ("attributes", regions.num_attributes)):
            if getattr(task, f"object_{name}") and not there:
                raise ConfigError(
                    f"model.objective.object_{name}=true, and the objects of data.regions have no {name}; "
                    "name features of a detector that has them there, or leave the setting out"
                )
        self.modes: tuple[Mode, ...] = MODES if options.modes == "both" else (options.modes,)
        # Before the first step a pass is a probe of memory, of which two streams need more.
        self.mode: Mode = self.modes[-1]
        self.mlm_head = TiedMlmHead(width, config.text.vocab_size, std)
        self.itm_head = linear(width, 2, std)
        has_labels = bool(regions.num_classes) and task.object_labels is not False
        has_objects = has_labels or task.object_features or task.object_attributes
        self.object_head = HeadTransform(width, width, std) if has_objects else None
        self.feature_head = linear(width, regions.feature_size, std) if task.object_features else None
        self.label_head = linear(width, regions.num_classes, std) if has_labels else None
        size = regions.num_attributes
        self.attribute_head = linear(width, size, std) if task.object_attributes else None
        self.answer_head = AnswerHead(width, 2 * width, task.answers, std) if task.answers else None

    def begin_step(self, seed: int) -> None:
        """Draw the mode of a step, each with equal chance (section 3.3.2)."""
        self.mode = self.modes[np.random.default_rng(seed).integers(len(self.modes))]

    def freeze(self, model: SemVlp) -> None:
        """Let a model that learns a single mode be read in it, also once it is saved, and freeze what that
        mode does without."""
        if len(self.modes) == 1:
            model.mode, model.config = self.mode, replace(model.config, mode=self.mode)
        if self.modes == ("single",):
            for part in model.layers.crosses():
                for parameter in part.parameters():
                    parameter.stop_gradient = True

    def mlm_logits(self, model: SemVlp, states: Tensor) -> Tensor:
        """Compute vocabulary logits [N, vocabulary] of text states [N, H] by the table of words."""
        return self.mlm_head(states, model.embeddings.word.weight)

    def part_losses(self, model: SemVlp, name: str, part: PretrainBatch) -> tuple[Scalars, Scalars]:
        """Compute the losses of pairs in the mode of the step.

        The report has accuracies, and `two_stream`, the share of steps in that mode.
        """
        with model.in_mode(self.mode):
            text = model.encode_text(part.mlm_input_ids, part.attention_mask)
            image = model.encode_image(part.images).select(part.itm_image_index)
            fused = model.fuse(text, image)
        losses: Scalars = {}
        report: Scalars = {"two_stream": paddle.full([], float(self.mode == "two"))}
        losses["mlm"], report["mlm_accuracy"] = masked_lm_loss(
            fused.fused_text, part.mlm_positions, part.mlm_labels, partial(self.mlm_logits, model)
        )
        losses["itm"], report["itm_accuracy"] = matching_loss(self.itm_head(fused.pooled), part.itm_labels)
        self._objects(fused.fused_image, part, losses, report)
        if self.answer_head is not None:
            answers = self.answer_head(fused.pooled).astype("float32")
            losses["qa"], report["qa_accuracy"] = known_class_loss(answers, part.qa_labels)
        return losses, report

    def _objects(self, states: Tensor, part: PretrainBatch, losses: Scalars, report: Scalars) -> None:
        """Compute what is predicted of masked objects, from states [B, 1 + R, H]."""
        if self.feature_head is not None:
            losses["object"] = region_regression_loss(
                states,
                part.object_positions,
                part.object_features,
                lambda found: self.feature_head(self.object_head(found)),
                error="smooth",
            )
        labels = ("label", self.label_head, part.label_positions, part.label_labels)
        attributes = ("attribute", self.attribute_head, part.object_positions, part.attribute_labels)
        for name, head, positions, classes in (labels, attributes):
            if head is not None:
                losses[name], report[f"{name}_accuracy"] = masked_lm_loss(
                    states, positions, classes, lambda found, head=head: head(self.object_head(found))
                )

    def predict(self, model: SemVlp, batch: PretrainBatch) -> Scalars:
        """Compute the errors and hits of a held-out batch in each mode that is learned: of words and matching
        with whole images, of objects beside the whole text, of answers from both whole.

        Where both modes are learned, the names of two-stream mode begin with `two_stream_`.
        """
        found: Scalars = {}
        for mode in self.modes:
            with model.in_mode(mode):
                own = self._predict_whole(model, batch)
            found |= prefixed("two_stream_" if mode != self.modes[0] else "", own)
        return found

    def _predict_whole(self, model: SemVlp, batch: PretrainBatch) -> Scalars:
        seen = {name: value for name, value in batch.images.items() if name != "masked"}
        found = super().predict(model, replace(batch, images=seen))
        text = model.encode_text(batch.input_ids, batch.attention_mask)
        if self.object_head is not None and batch.object_positions.shape[0]:
            states = model.fuse(text, model.encode_image(batch.images)).fused_image.flatten(0, 1)
            objects = self.object_head(paddle.gather(states, batch.object_positions))
            if self.feature_head is not None:
                features = self.feature_head(objects).astype("float32")
                errors = F.smooth_l1_loss(features, batch.object_features, reduction="none")
                found["object_errors"] = errors.mean(axis=1)
            if self.label_head is not None and batch.label_positions.shape[0]:
                labelled = self.object_head(paddle.gather(states, batch.label_positions))
                found |= judged("label", self.label_head(labelled), batch.label_labels)
            if self.attribute_head is not None:
                found |= judged("attribute", self.attribute_head(objects), batch.attribute_labels)
        asked = paddle.nonzero(batch.qa_labels >= 0).flatten()
        if self.answer_head is not None and asked.shape[0]:
            pairs = model.fuse(text.select(asked), model.encode_image(seen).select(asked), outputs="pooled")
            found |= judged("qa", self.answer_head(pairs.pooled), paddle.gather(batch.qa_labels, asked))
        return found

    def part_counts(self, model: SemVlp, name: str, part: PretrainBatch) -> dict[str, int]:
        """Count masked tokens, masked objects and their labels, pairs and questions."""
        return super().part_counts(model, name, part) | {
            **dict.fromkeys(("object", "attribute"), part.object_positions.shape[0]),
            "label": part.label_labels.shape[0],
            "qa": int((part.qa_labels >= 0).sum()),
        }

    def idle_layers(self, model: SemVlp, absent: set[str]) -> list[nn.Layer]:
        """List layers whose parameters a step of this mode does without: in a single stream phi_C."""
        return [
            *super().idle_layers(model, absent),
            *(model.layers.crosses() if self.mode == "single" else []),
        ]

    def weigh(self, term: Mapping[str, Tensor | float]) -> Tensor:
        """Add all up with equal weights (section 3.3.2)."""
        return sum(term[name] for name in self.LOSSES)
