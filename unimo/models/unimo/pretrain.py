"""Pre-training of UNIMO (sections 2.1 to 2.3, Algorithm 1) on pairs, texts alone and images alone."""

from __future__ import annotations

from collections.abc import Mapping

import paddle
from paddle import Tensor

from unimo.errors import ConfigError
from unimo.losses.cmcl import Bank, Compared, Pairs, Rewrites, cmcl_loss
from unimo.losses.contrastive import matching_loss, two_classes
from unimo.losses.mlm import masked_lm_loss
from unimo.losses.region import region_classification_loss, region_regression_loss
from unimo.models import objective
from unimo.models.objective import PARTS, Scalars, prefixed
from unimo.models.unimo.batches import ContrastBatch, LanguageBatch, UnifiedPart, VisionBatch
from unimo.models.unimo.config import Config
from unimo.models.unimo.model import Unimo
from unimo.nn.heads import MlmHead
from unimo.nn.init import linear
from unimo.nn.outputs import Encoded

LANGUAGE = ("mlm", "seq2seq")
VISION = ("region", "region_class")


class Objective(objective.Objective):
    """Language and visual learning on what there is of texts and images, CMCL (or ITM) on pairs.

    Raises:
        ConfigError: CMCL with pooled vectors that are added, by which every image ranks all texts alike.
    """

    LOSSES = (
        *("mlm", "seq2seq", "region", "region_class", "cmcl", "itm"),
        *("text_mlm", "text_seq2seq"),
        *("image_region", "image_region_class"),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.pair_feature == "sum":
            raise ConfigError("pre-training compares products; set model.pair_feature=product")
        self.config = config.objective
        self.judges_pairs = self.config.contrast == "itm"
        self.contrasts = {} if self.judges_pairs else {"cmcl": "pairs"}
        width, std, regions = config.hidden_size, config.text.init_std, config.regions
        classifies = self.config.region_classification and regions.num_classes > 0
        self.mlm_head = MlmHead(width, config.text.vocab_size, std, Unimo.head_epsilon)
        self.region_head = linear(width, regions.feature_size, std) if self.config.region_regression else None
        self.class_head = linear(width, regions.num_classes, std) if classifies else None

    def part_losses(self, model: Unimo, name: str, part: UnifiedPart) -> tuple[Scalars, Scalars]:
        """Compute what one pass over the masked samples of a part gives; pairs are contrasted besides.

        Returns:
            Of texts `mlm`, `seq2seq`, of images `region`, `region_class`, of pairs all these and `cmcl` or
            `itm`, with the prefix of the part.
        """
        text = image = None
        if part.language is not None:
            language = part.language
            text = model.encode_text(
                language.input_ids,
                language.attention_mask,
                positions=language.positions,
                is_target=language.is_target,
            )
        if part.vision is not None:
            image = model.encode_image(part.vision.regions)
        fused = model.fuse(text, image, outputs="text")
        losses: Scalars = {}
        report: Scalars = {}
        if text is not None:
            self._language(fused.fused_text, part.language, losses, report)
        if image is not None:
            self._vision(fused.fused_image, part.vision, losses, report)
        if part.contrast is not None:
            if self.judges_pairs:
                self._match(model, part, losses, report)
            else:
                vectors = self.part_vectors(model, "cmcl", part)
                losses["cmcl"], compared = self.over_step("cmcl", vectors, model)
                report |= compared
        return prefixed(PARTS[name], losses), prefixed(PARTS[name], report)

    def part_vectors(self, model: Unimo, loss: str, part: UnifiedPart) -> Compared:
        """Compute what CMCL compares.

        d(V, W) of pairs and of rewritten pairs (X^+, X^-) is read from both encoded together. Related images
        X^I and texts X^T are encoded alone and compared with W and V encoded alone, as in the right part of
        Figure 3.
        """
        self.replay(loss)
        batch = part.contrast
        images, captions = model.encode_image(batch.regions), model.encode_text(**batch.captions)
        own_images, own_texts = batch.image_row, batch.text_row
        own = paddle.arange(own_images.shape[0], dtype="int64")
        # The pair itself is the first of its X^+.
        of_pair = paddle.concat([own, batch.rewrite_pair])
        texts = captions.select(paddle.concat([own_texts, batch.rewrite_row]))
        together = model.fuse(texts, images.select(paddle.gather(own_images, of_pair)), outputs="pooled")
        positive = paddle.concat([paddle.ones_like(own), batch.rewrite_positive])
        return Compared(
            Pairs(own_images, own_texts, batch.related_images, batch.related_texts),
            Rewrites(model.score(together.pooled), of_pair, positive.astype("bool")),
            Bank(model.image_vector(images), batch.image_group),
            Bank(self._texts_alone(model, captions, batch), batch.text_ids),
        )

    def compare(self, name: str, vectors: Compared, model: Unimo) -> tuple[Tensor, Scalars]:
        """Compute the loss of Eq. (1), whose sums Eqs (6) and (7) spell out. Collective."""
        loss, found = cmcl_loss(
            vectors.pairs,
            vectors.rewrites,
            vectors.images,
            vectors.texts,
            model.match_all,
            self.config.temperature,
        )
        return loss, {"cmcl_accuracy": found["accuracy"]}

    def part_counts(self, model: Unimo, name: str, part: UnifiedPart) -> dict[str, int]:
        """Count targets of each kind, and matched pairs."""
        found: dict[str, int] = {}
        if part.language is not None:
            found |= {kind: getattr(part.language, f"{kind}_labels").shape[0] for kind in LANGUAGE}
        if part.vision is not None:
            found |= dict.fromkeys(VISION, part.vision.positions.shape[0])
        if part.itm_labels is not None:
            found["itm"] = part.itm_labels.shape[0]
        return found

    def weigh(self, term: Mapping[str, Tensor | float]) -> Tensor:
        """Add up v_loss + l_loss + cmcl_loss, as Algorithm 1 does.

        Bidirectional prediction and generation alternate uniformly (section 2.3), so each counts half.
        """
        language = sum(term[part + name] for part in ("", "text_") for name in LANGUAGE) / 2
        vision = sum(term[part + name] for part in ("", "image_") for name in VISION)
        return vision + language + term["cmcl"] + term["itm"]

    def match_logits(self, model: Unimo, pooled: Tensor) -> Tensor:
        """Turn the model's own score of pooled pairs [N, P] into logits [N, 2] of mismatch and match."""
        return two_classes(model.match(pooled))

    def _language(self, states: Tensor, batch: LanguageBatch, losses: Scalars, report: Scalars) -> None:
        """Compute Eq. (4), masked tokens given the others, and Eq. (5), fragments given the rest."""
        for kind in LANGUAGE:
            losses[kind], report[f"{kind}_accuracy"] = masked_lm_loss(
                states, getattr(batch, f"{kind}_positions"), getattr(batch, f"{kind}_labels"), self.mlm_head
            )

    def _vision(self, states: Tensor, batch: VisionBatch, losses: Scalars, report: Scalars) -> None:
        """Compute Eqs (2), (3): features and classes of masked regions given the others (and the text)."""
        positions = batch.positions
        if self.region_head is not None:
            losses["region"] = region_regression_loss(
                states, positions, batch.features, self.region_head, self.config.regression_reduction
            )
        if self.class_head is not None:
            losses["region_class"], report["region_accuracy"] = region_classification_loss(
                states, positions, batch.class_probs, self.class_head
            )

    @staticmethod
    def _texts_alone(model: Unimo, captions: Encoded, batch: ContrastBatch) -> Tensor:
        """Compute the vectors of own captions and, behind them, of related texts, whose lengths differ."""
        related = batch.related
        others = 0 if related is None else related["input_ids"].shape[0]
        own = paddle.arange(batch.text_ids.shape[0] - others, dtype="int64")
        vectors = model.text_vector(captions.select(own))
        if related is None:
            return vectors
        return paddle.concat([vectors, model.text_vector(model.encode_text(**related))])

    def _match(self, model: Unimo, part: UnifiedPart, losses: Scalars, report: Scalars) -> None:
        """Compute image-text matching in the place of CMCL ("w/o single-modal" of Table 2)."""
        batch = part.contrast
        text = model.encode_text(**batch.captions).select(batch.text_row)
        shown = paddle.gather(batch.image_row, part.itm_image_index)
        image = model.encode_image(batch.regions).select(shown)
        logits = self.match_logits(model, model.fuse(text, image, outputs="pooled").pooled)
        losses["itm"], report["itm_accuracy"] = matching_loss(logits, part.itm_labels)
