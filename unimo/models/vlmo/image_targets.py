"""Targets of masked image modelling for each patch, by `objective.image_targets`."""

from __future__ import annotations

from typing import ClassVar, Protocol

import paddle
from paddle import Tensor

from unimo.config import merge_into
from unimo.losses.mim import code_errors, cosine_distances, patch_pixels, squared_errors
from unimo.models.batches import MaskedImageBatch
from unimo.models.vlmo.config import Config
from unimo.models.vlmo.dvae import load_encoder
from unimo.models.vlmo.image_views import read_tower
from unimo.nn.config import ClipVisionConfig, VitConfig
from unimo.nn.towers import ClipVisionTower, VitTower
from unimo.weights.layers import load_tower


class ImageTargets(Protocol):
    """Targets of patches. Not a layer: what gives them is neither learned nor saved."""

    are_codes: ClassVar[bool]
    """Whether the targets are classes, so that there is an accuracy."""
    size: int
    """C, numbers that the head predicts of a patch."""

    def of(self, batch: MaskedImageBatch) -> Tensor:
        """Compute the targets of all patches, [B, P] codes or [B, P, C], without gradient."""

    def errors(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Compute how far predictions [M, C] are from their targets, [M]."""


class PixelTargets:
    """The pixels of the patch, normalised by its own mean and deviation; squared error (MAE)."""

    are_codes: ClassVar[bool] = False
    errors = staticmethod(squared_errors)

    def __init__(self, config: Config) -> None:
        self.patch_size = config.vision.patch_size
        self.size = 3 * self.patch_size**2

    @paddle.no_grad()
    def of(self, batch: MaskedImageBatch) -> Tensor:
        """Return normalised pixels [B, P, C]."""
        return patch_pixels(batch.images, self.patch_size)


class CodeTargets:
    """The codes of DALL-E's discrete VAE; cross-entropy (BEiT).

    Raises:
        CheckpointError: its file does not fit.
    """

    are_codes: ClassVar[bool] = True
    errors = staticmethod(code_errors)

    def __init__(self, config: Config) -> None:
        self.encoder = load_encoder(config.objective.image_teacher)
        self.size = self.encoder.codes

    @paddle.no_grad()
    def of(self, batch: MaskedImageBatch) -> Tensor:
        """Return codes [B, P]."""
        return self.encoder(batch.target_images)


class TowerTargets:
    """The last states of a frozen vision tower, after its norm; cosine (EVA, which also projects them).

    Raises:
        ConfigError: there is no folder of a tower.
        CheckpointError: its weights do not fit.
    """

    are_codes: ClassVar[bool] = False
    errors = staticmethod(cosine_distances)

    def __init__(self, config: Config) -> None:
        folder = config.objective.image_teacher
        found = read_tower(folder)
        build, sizes = {"clip_vit": (ClipVisionTower, ClipVisionConfig()), "vit": (VitTower, VitConfig())}[
            found["tower"]
        ]
        names = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "patch_size")
        size = {"image_size": config.vision.grid * found["patch_size"]}
        self.tower = build(merge_into(sizes, {**{name: found[name] for name in names}, **size}))
        load_tower(self.tower, folder)
        self.tower.eval()
        self.size = found["hidden_size"]

    @paddle.no_grad()
    def of(self, batch: MaskedImageBatch) -> Tensor:
        """Return states of patches [B, P, C]."""
        states, _ = self.tower(batch.target_images)
        return self.tower.ln_post(states[-1])[:, 1:]


_TARGETS = {"pixels": PixelTargets, "dvae": CodeTargets, "features": TowerTargets}


def build_targets(config: Config) -> ImageTargets:
    """Build the targets that the config names, with the weights that they need.

    Raises:
        ConfigError, CheckpointError: these do not fit.
    """
    return _TARGETS[config.objective.image_targets](config)
