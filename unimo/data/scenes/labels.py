"""`scenes` for image classification: pictures of one object, the label is its shape."""

from __future__ import annotations

from unimo.data.loading.sampler import generator
from unimo.data.readers.labeled import LabeledImages
from unimo.data.record import Record
from unimo.data.scenes.dataset import SPLITS, ScenesDataset, encode
from unimo.data.scenes.scene import SHAPES, Scene, render
from unimo.errors import ConfigError
from unimo.settings import ScenesConfig


class SceneShapes(LabeledImages):
    """Each picture of `scenes` with all objects but one left out.

    Args:
        split: `train`, `val` or `test`.
        config: numbers of images and the seed.

    Raises:
        ConfigError: unknown split.
    """

    name = "scenes"
    class_names = SHAPES

    def __init__(self, split: str, config: ScenesConfig | None = None) -> None:
        if split not in SPLITS:
            raise ConfigError(f"scenes has no split {split!r}; known: {', '.join(SPLITS)}")
        self._whole = ScenesDataset("pairs", split, config)

    def __len__(self) -> int:
        return self._whole.num_images

    def scene(self, index: int) -> Scene:
        """The scene of picture number `index`, with one object."""
        whole = self._whole.scene(index)
        rng = generator(self._whole.config.seed, "shape", self._whole.split, index)
        chosen = whole.objects[int(rng.integers(len(whole.objects)))]
        return Scene((chosen,), whole.background)

    def __getitem__(self, index: int) -> Record:
        scene = self.scene(index)
        key = f"{self._whole.split}-{index}"
        shape = scene.objects[0].shape
        label = SHAPES.index(shape)
        image = encode(render(scene))
        return Record(
            key, self.name, images=(image,), image_id=f"shapes-{key}", label=label, label_name=shape
        )

    def image_source(self, index: int) -> bytes:
        return encode(render(self.scene(index)))
