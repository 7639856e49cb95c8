"""Stages before the vision-language one (section 3.4): what they teach, and what they leave alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from paddle import Tensor, nn

from unimo.losses.mlm import masked_lm_loss
from unimo.models import objective
from unimo.models.batches import MaskedTextBatch
from unimo.models.objective import Scalars
from unimo.models.vlmo.config import Config, PretrainingConfig
from unimo.models.vlmo.model import Vlmo
from unimo.nn.heads import MlmHead
from unimo.nn.outputs import Encoded
from unimo.weights.name_map import Tensors

_POSITIONS, _PAIR = "text_embeddings.position.weight", ".experts.pair."


def masked_words(
    model: Vlmo, part: MaskedTextBatch, head: nn.Layer, image: Encoded | None = None
) -> tuple[Tensor, Tensor]:
    """Compute MLM of texts, alone or with their images: loss and accuracy, scalars."""
    text = model.encode_text(part.mlm_input_ids, part.attention_mask)
    states = model.fuse(text, image, outputs="text").fused_text
    return masked_lm_loss(states, part.mlm_positions, part.mlm_labels, head)


def fit_start(model: Vlmo, options: PretrainingConfig, tensors: Tensors) -> tuple[Tensors, Sequence[str]]:
    """Fit the network of an earlier stage, or of other released weights, to the next; see `Paper.fit_start`.

    An earlier stage has no experts for pairs, which start at random, and texts of another length, whose
    position table is cut, or goes on at random.
    """
    own, fitted = model.state_dict(), dict(tensors)
    if options.init_experts == "image":
        fitted = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
        experts = (name for name in own if ".experts." in name)
        sources = {name: re.sub(r"\.experts\.\w+\.", ".experts.image.", name) for name in experts}
        fitted |= {name: tensors[source] for name, source in sources.items() if source in tensors}
    table, start = fitted.get(_POSITIONS), own[_POSITIONS].numpy()
    if table is not None and table.shape[1:] == start.shape[1:]:
        fitted[_POSITIONS] = np.concatenate([table[: len(start)], start[len(table) :]])
    return fitted, [] if any(_PAIR in name for name in fitted) else [name for name in own if _PAIR in name]


class LanguageStage(objective.Objective):
    """MLM on texts alone. Attention and the experts for images keep what the vision stage taught them."""

    LOSSES = ("text_mlm",)
    reads_pairs = judges_pairs = False
    TAUGHT = ("text_embeddings.", "type_embedding.", "relative_positions.", "norm.")
    """Beginnings of the parameters that learn besides the experts for texts. Of the types and the relative
    positions these are the rows of texts, as no other is read."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, std = config.hidden_size, config.transformer.init_std
        self.mlm_head = MlmHead(width, config.text.vocab_size, std, Vlmo.head_epsilon)

    def freeze(self, model: Vlmo) -> None:
        """Stop the gradients of what the language stage leaves alone.

        Of the types and of the relative positions the rows of images have none; nor does decay move them.
        """
        for name, parameter in model.named_parameters():
            if not (name.startswith(self.TAUGHT) or ".experts.text." in name or ".experts.shared." in name):
                parameter.stop_gradient = True
        model.type_embedding.weight.no_decay = True

    def part_losses(self, model: Vlmo, name: str, part: MaskedTextBatch) -> tuple[Scalars, Scalars]:
        """Compute `text_mlm`, and report its accuracy."""
        loss, accuracy = masked_words(model, part, self.mlm_head)
        return {"text_mlm": loss}, {"text_mlm_accuracy": accuracy}

    def idle_layers(self, model: Vlmo, absent: set[str]) -> list[nn.Layer]:
        """Return none: every batch consists of texts."""
        return []

    def weigh(self, term: Mapping[str, Tensor | float]) -> Tensor:
        """Return the loss of MLM."""
        return term["text_mlm"]
