"""Views in which a network that gives targets sees what the model reads of an image. Needs no Paddle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from unimo.config import read_yaml
from unimo.data.images.transforms import RECIPES, Transform, build_cut, bytes_to_pixels, normalise
from unimo.errors import ConfigError, shown
from unimo.models.vlmo.config import Config
from unimo.weights.named import tower_folder

DVAE_PATCH = 8
"""Side in pixels of what has one code of DALL-E's dVAE: 112 pixels give 14 x 14 codes (BEiT's code)."""
_TRANSFORMS = {"clip_vit": "clip", "vit": "vit"}
"""Kind of tower -> a transform with its mean and standard deviation."""


@dataclass(frozen=True)
class View:
    """Size and normalisation of an image."""

    size: int
    """Side, pixels."""
    scale: np.ndarray
    """[3, 1, 1] float32; pixels = bytes * scale + shift."""
    shift: np.ndarray
    """[3, 1, 1] float32."""
    resampling: Image.Resampling = Image.Resampling.BICUBIC

    def transform(self, name: str) -> Transform:
        """Build the transform that takes the part of an image that the transform `name` takes.

        Raises:
            ConfigError: it distorts the image afterwards, by amounts that depend on its size.
        """
        if RECIPES[name].augment is not None:
            raise ConfigError(
                f"data.train_transform={name} distorts the resized image, so that the teacher of "
                "model.objective.image_targets would see another one; use beit_crop, vit_crop or vit"
            )
        cut = build_cut(name, self.size, self.resampling)
        return lambda image, rng: normalise(cut(image, rng), self.scale, self.shift)


def teacher_view(config: Config) -> View | None:
    """Return what the network reads that gives the targets, in as many patches as the model; None for pixels.

    Raises:
        ConfigError: `objective.image_teacher` is no folder of a vision tower.
    """
    kind, grid = config.objective.image_targets, config.vision.grid
    if kind == "dvae":
        scale, shift = (np.full((3, 1, 1), value, np.float32) for value in (1 / 255, 0))
        return View(DVAE_PATCH * grid, scale, shift, Image.Resampling.LANCZOS)  # as BEiT's code
    if kind == "features":
        tower = read_tower(config.objective.image_teacher)
        return View(tower["patch_size"] * grid, *bytes_to_pixels(_TRANSFORMS[tower["tower"]]))
    return None


def read_tower(folder: str) -> dict[str, Any]:
    """Return the kind (`tower`) and the sizes of a vision tower, from its folder.

    Raises:
        ConfigError: it is no such folder.
    """
    path = tower_folder(folder) / "config.yaml"
    found = read_yaml(path) if path.is_file() else {}
    if found.get("tower") not in _TRANSFORMS:
        raise ConfigError(
            f"model.objective.image_teacher={folder} is no folder of a vision tower: expected config.yaml "
            f"with `tower: {' or '.join(_TRANSFORMS)}`, found {shown(found.get('tower'))}; make one with "
            "python tools/convert_checkpoint.py --from hf-clip|hf-vit (see --help)"
        )
    return found
