"""`scenes` for image classification: images of one object, labelled with its shape."""

from __future__ import annotations

from unimo.data.loading.sampler import generator
from unimo.data.readers.labeled import LabeledImages
from unimo.data.record import Record
from unimo.data.scenes.dataset import ScenesDataset, encode
from unimo.data.scenes.scene import SHAPES, Scene, render
from unimo.settings import ScenesConfig


class SceneShapes(LabeledImages):
    """The images of `scenes` with one of their objects.

    Args:
        split: `train`, `val` or `test`.
        config: numbers of images and the seed.

    Raises:
        ConfigError: unknown split.
    """

    name = "scenes"
    class_names = SHAPES

    def __init__(self, split: str, config: ScenesConfig | None = None) -> None:
        self._whole = ScenesDataset("pairs", split, config)

    def __len__(self) -> int:
        return self._whole.num_images

    def scene(self, index: int) -> Scene:
        """Make the scene of image number `index`, with one object."""
        whole = self._whole.scene(index)
        rng = generator(self._whole.config.seed, "shape", self._whole.split, index)
        chosen = whole.objects[int(rng.integers(len(whole.objects)))]
        return Scene((chosen,), whole.background)

    def __getitem__(self, index: int) -> Record:
        scene = self.scene(index)
        key = f"{self._whole.split}-{index}"
        shape = scene.objects[0].shape
        return Record(
            key,
            self.name,
            images=(encode(render(scene)),),
            image_id=f"shapes-{key}",
            label=SHAPES.index(shape),
            label_name=shape,
        )

    def image_source(self, index: int) -> bytes:
        return encode(render(self.scene(index)))
