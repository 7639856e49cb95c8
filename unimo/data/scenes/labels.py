"""`scenes` for image classification: images of one object, labelled with its shape."""

from __future__ import annotations

from unimo.data.readers.labeled import LabeledImages
from unimo.data.record import Record
from unimo.data.scenes.dataset import OneASceneDataset, encode
from unimo.data.scenes.scene import SHAPES, Scene, render


class SceneShapes(OneASceneDataset, LabeledImages):
    """The images of `scenes` with one of their objects."""

    class_names = SHAPES

    def scene(self, index: int) -> Scene:
        """Make the scene of image number `index`, with one object."""
        _, whole, rng = self.draw(index, "shape")
        return Scene((whole.objects[int(rng.integers(len(whole.objects)))],), whole.background)

    def __getitem__(self, index: int) -> Record:
        scene = self.scene(index)
        shape = scene.objects[0].shape
        return Record(
            f"{self.split}-{index}",
            self.name,
            images=(encode(render(scene)),),
            image_id=f"shapes-{self.split}-{index}",
            label=SHAPES.index(shape),
            label_name=shape,
        )

    def image_source(self, index: int) -> bytes:
        return encode(render(self.scene(index)))
