"""`TwoTowers`: base of models that encode text and image apart before they fuse them."""

from __future__ import annotations

from collections.abc import Sequence

from paddle import Tensor

from unimo.models.base import Axes, Model, TowerSource, as_map
from unimo.nn.outputs import Encoded
from unimo.nn.towers import RobertaTower, VisionTower


class TwoTowers(Model):
    """A text tower `text` and a vision tower `vision`, which a subclass builds, and how they are run.

    What the fusion of a subclass reads of the towers besides their last states comes from `link_text` and
    `link_image`, and travels in `Encoded.links`.
    """

    text: RobertaTower
    vision: VisionTower

    @property
    def vector_sizes(self) -> tuple[int, int]:
        return self.config.text.hidden_size, self.config.vision.hidden_size

    @property
    def attention_axes(self) -> dict[str, Axes]:
        """Those of the towers; a subclass adds those of its fusion."""
        return {"text": Axes(("text",), ("text",)), "image": Axes(("image",), ("image",))}

    def parts_to_load(self) -> tuple[TowerSource, ...]:
        """Return both towers; last blocks of a file that the vision tower does not build are left out."""
        text, vision = self.config.text, self.config.vision
        removed = vision.num_layers - len(self.vision.layers)
        return TowerSource(self.text, text.init), TowerSource(self.vision, vision.init, removed)

    def encode_image(
        self, images: Tensor, *, layers: bool = False, attentions: bool = False, second: bool = False
    ) -> Encoded:
        """Run the vision tower on pixels [B, 3, S, S]; `second` as of `Model.encode_image`.

        Returns:
            `image` [B, V, D_v], class token first, after the tower's last norm, and `links`; on request
            `image_layers`, raw, and attentions `image.{layer}`.
        """
        states, maps = self.vision(images, attentions)
        return Encoded(
            image=self.vision.ln_post(states[-1]),
            image_layers=tuple(states) if layers else (),
            attentions=maps,
            links=self.link_image(states, second),
        )

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        layers: bool = False,
        attentions: bool = False,
        causal: bool = False,
    ) -> Encoded:
        """Run the text tower, for generation `causal`: then no token reads a later one.

        Returns:
            `text` [B, T, D_t], `text_mask` and `links`; on request `text_layers` and attentions
            `text.{layer}`.
        """
        states, maps = self.text(input_ids, attention_mask, attentions, causal)
        return Encoded(
            text=states[-1],
            text_mask=attention_mask,
            text_layers=tuple(states) if layers else (),
            attentions=maps,
            links=self.link_text(states),
        )

    def link_text(self, states: list[Tensor]) -> dict[str, Tensor]:
        """Return what fusion reads of the text tower's states T_0 .. T_n besides the last one."""
        return {}

    def link_image(self, states: list[Tensor], second: bool = False) -> dict[str, Tensor]:
        """Return what fusion reads of the vision tower's states V_0 .. V_n besides the last one.

        Args:
            second: they are of second pictures of pairs.
        """
        return {}

    @property
    def map_sizes(self) -> tuple[int, int]:
        return len(self.vision.layers), self.config.vision.hidden_size

    def image_maps(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Compute maps of the raw states of the vision tower."""
        states, _ = self.vision(images, last=layers[-1])
        return [as_map(states[layer], images, self.vision.patch_size) for layer in layers]

    def is_mapped(self, parameter: str, last: int) -> bool:
        part, *rest = parameter.split(".")
        if part != "vision" or rest[0] == "ln_post":
            return False
        return rest[0] != "layers" or int(rest[1]) < last

    def lr_group(self, parameter: str) -> str:
        """Return `towers` for both towers, else `cross_modal`."""
        return "towers" if parameter.partition(".")[0] in ("text", "vision") else "cross_modal"

    def depth(self, parameter: str) -> int | None:
        part, *rest = parameter.split(".")
        numbers = [int(word) for word in rest if word.isdecimal()]
        if part in ("text", "vision"):
            above = rest[0] in ("ln_post", "pooler")
            return 1 + numbers[0] if numbers else None if above else 0
        if part == "fusion" and numbers:
            return 1 + max(len(self.text.layers), len(self.vision.layers)) + numbers[0]
        return None
