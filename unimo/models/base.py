"""The protocol that tasks, tools and pictures are written against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import paddle
from paddle import Tensor, nn

from unimo.nn.outputs import Encoded

Outputs = Literal["all", "text", "pooled"]
Images = Tensor | Mapping[str, Tensor]
"""`pixels` [B, 3, S, S], or `regions`: `features` [B, R, F], `locations` [B, R, 5], `mask` [B, R]."""
Part = Literal["image", "grounded", "text"]
"""Kind of rows of a pair: the image, its class token (or [IMG]) first, then patches row by row, or regions;
grounded tokens (UNIMO-2); the tokens of the text, special ones included."""


@dataclass(frozen=True)
class Axes:
    """The parts that the rows (queries) and columns (keys) of an attention are, in their order.

    A part that a pass does not have, as in a text alone, has no rows there.
    """

    queries: tuple[Part, ...]
    keys: tuple[Part, ...]

    def cut(self, attention: Tensor, sizes: Mapping[Part, int], query: Part, key: Part) -> Tensor | None:
        """Return what rows of one part read of another, [B, H, query rows, key rows].

        Args:
            attention: [B, H, queries, keys].
            sizes: number of rows of each part; a part that is not named has none.
            query, key: the two parts.

        Returns:
            None if the attention is not between these two.
        """
        if query not in self.queries or key not in self.keys:
            return None
        where = []
        for parts, part in ((self.queries, query), (self.keys, key)):
            start = sum(sizes.get(other, 0) for other in parts[: parts.index(part)])
            where.append(slice(start, start + sizes.get(part, 0)))
        return attention[:, :, where[0], where[1]]


class Model(nn.Layer):
    """Base of all models: towers and fusion. Its paper declares what a model can do (`Paper.capabilities`).

    Class attributes:
        head_epsilon: epsilon of the LayerNorm in vocabulary heads.
        has_match: whether `match` gives scores.
        optional: prefixes of parameters that only some tasks have; weights of other tasks may lack them.
        open_lengths: whether an exported program takes texts of any length, and any number of regions.
    """

    head_epsilon: ClassVar[float] = 1e-12
    has_match: ClassVar[bool] = False
    optional: ClassVar[tuple[str, ...]] = ()
    open_lengths: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @property
    def hidden_size(self) -> int:
        """Width D of the fused states; where there is a single one, of everything."""
        return self.config.hidden_size

    @property
    def pooled_size(self) -> int:
        """Width P of `Encoded.pooled`."""
        return self.hidden_size

    @property
    def head_std(self) -> float:
        """Standard deviation that heads start with."""
        return self.config.fusion.init_std

    @property
    def vector_sizes(self) -> tuple[int, int]:
        """Widths of `text_vector` and `image_vector`."""
        return self.hidden_size, self.hidden_size

    @property
    def image_types(self) -> int | None:
        """Number of type embeddings of images: 2 tell the pictures of a pair apart. None without any."""
        return None

    @property
    def attention_axes(self) -> Mapping[str, Axes]:
        """Kind of attention -> its rows and columns; empty for models that return no attentions.

        `encode_text`, `encode_image` and `fuse` name the attention of layer l, from 1, `{kind}.{l}`.
        """
        return {}

    def text_vector(self, text: Encoded) -> Tensor:
        """Return the vectors [B, D_t] of texts alone that contrastive losses compare: first tower states."""
        return text.text[:, 0]

    def image_vector(self, image: Encoded) -> Tensor:
        """Return the vectors [B, D_v] of images alone that contrastive losses compare: first tower states."""
        return image.image[:, 0]

    def encode_image(
        self, images: Images, *, layers: bool = False, attentions: bool = False, second: bool = False
    ) -> Encoded:
        """Encode images as an `Encoded` with `image` and what `fuse` needs.

        Args:
            images: normalized pixels [B, 3, S, S], or regions for models with the capability `regions`.
            layers, attentions: also return the states of all layers, and the attentions.
            second: these are second pictures of pairs (NLVR2); the same to models with fewer than two
                `image_types`.
        """
        raise NotImplementedError

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        layers: bool = False,
        attentions: bool = False,
    ) -> Encoded:
        """Encode texts as an `Encoded` with `text` and what `fuse` needs.

        Args:
            input_ids, attention_mask: [B, T]; the mask has 1 = token, 0 = padding.
            layers, attentions: also return the states of all layers, and the attentions.
        """
        raise NotImplementedError

    def fuse(
        self,
        text: Encoded | None,
        image: Encoded | None,
        *,
        attentions: bool = False,
        outputs: Outputs = "all",
    ) -> Encoded:
        """Fuse texts and images of the same batch size.

        Args:
            text, image: results of `encode_text` and `encode_image`. Models with `text_only` or `image_only`
                take None for the other; `pooled` is then the vector of a text or image alone.
            attentions: also return attentions.
            outputs: what is read afterwards; with `text` or `pooled` a model may leave out the rest.

        Returns:
            `fused_text`, `fused_image`, `pooled`.
        """
        raise NotImplementedError

    @property
    def alone_sizes(self) -> tuple[int, int]:
        """Widths of `text_alone` and `image_alone`."""
        return self.hidden_size, self.hidden_size

    def text_alone(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute vectors [B, W] of texts without images; for models with the capability `text_alone`."""
        return self.fuse(self.encode_text(input_ids, attention_mask), None, outputs="pooled").pooled

    def image_alone(self, images: Images) -> Tensor:
        """Compute vectors [B, W] of images without texts; for models with the capability `image_alone`."""
        return self.fuse(None, self.encode_image(images), outputs="pooled").pooled

    @property
    def map_sizes(self) -> tuple[int, int]:
        """Number of layers that `image_maps` can choose among, and width W of its maps."""
        raise NotImplementedError

    def image_maps(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Compute the states of the patches of images without texts, as maps [B, W, h, w].

        Models with the capabilities `image_alone` and `pixels` have them.

        Args:
            images: normalized pixels [B, 3, h * P, w * P].
            layers: layers that the states come from, counted from 1, rising; no norm follows.
        """
        raise NotImplementedError

    def is_mapped(self, parameter: str, last: int) -> bool:
        """Return whether a parameter takes part in `image_maps` of layers up to `last`; see `is_used`."""
        raise NotImplementedError

    def add_tags(self, image: Encoded, ids: Tensor, mask: Tensor, positions: Tensor) -> Encoded:
        """Return the source of captions that read object tags besides the image, as in UNIMO's releases.

        `decode` and `start_decoding` take it in place of the image. Models with `generation` have it.

        Args:
            image: result of `encode_image`.
            ids, mask: tokens of the tags [B, O]; the mask has 1 = token.
            positions: rows [B, O] of the position table.
        """
        raise NotImplementedError

    def decode(self, image: Encoded, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute the state [B, T, D] at each token, from which the next one is predicted (teacher forcing).

        A token reads the image and the tokens up to itself. Models with `generation` have this method,
        `start_decoding` and `step`.
        """
        raise NotImplementedError

    def start_decoding(self, image: Encoded) -> Any:
        """Return the state of a step-by-step decoding of B images, before the first token.

        It offers `select(rows)`; `step` takes it and returns its successor.
        """
        raise NotImplementedError

    def step(self, state: Any, ids: Tensor) -> tuple[Tensor, Any]:
        """Append one token [B] to each text.

        Returns:
            The state [B, D] at that token, with the numbers of `decode`, and the next decoding state.
        """
        raise NotImplementedError

    def is_used(self, parameter: str, *, text: bool, image: bool, pooled: bool = True) -> bool:
        """Return whether a parameter takes part in what a task reads.

        Tasks freeze the others: data parallelism waits for a gradient of every parameter that learns.

        Args:
            parameter: its name.
            text, image: whether the task reads texts, images, or with both pairs.
            pooled: whether it reads pooled vectors; generation reads only states.
        """
        return True

    def match(self, pooled: Tensor) -> Tensor | None:
        """Compute matching scores [N] of pooled pairs [N, P]; None for models without such a score."""
        return None

    def contrastive_scores(self, text: Encoded, image: Encoded) -> Tensor | None:
        """Compute what N pairs that are not fused add to their matching scores [N]; None adds nothing.

        Args:
            text, image: results of `encode_text` and `encode_image`; row i of both is pair i.
        """
        return None

    def forward(self, images: Images, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """Encode and fuse a batch of pairs."""
        return self.fuse(self.encode_text(input_ids, attention_mask), self.encode_image(images))

    def lr_group(self, parameter: str) -> str:
        """Return the learning-rate group of a parameter: `towers` or `cross_modal`."""
        raise NotImplementedError

    def depth(self, parameter: str) -> int | None:
        """Return how deep a parameter stands: 0 in what embeds the input, l in layer l; None in neither.

        The layers of a fusion encoder go on counting where those of its deepest tower end. Layer-wise rates
        follow from it (`optim.layer_decay`).
        """
        raise NotImplementedError

    def parts_to_load(self) -> Iterable[TowerSource]:
        """Return the parts whose config may name a folder of weights to start from."""
        return ()


@dataclass(frozen=True)
class TowerSource:
    """A part of a model, and the folder that it starts from."""

    layer: nn.Layer
    directory: str
    """Written by `tools/convert_checkpoint.py`; empty: the part keeps its random start."""
    drop_layers: int = 0
    """Number of last blocks of the file that are left out."""
    ignore: tuple[str, ...] = ()
    """Prefixes of parameters that only the file or only the part has."""


def as_map(states: Tensor, images: Tensor, patch_size: int) -> Tensor:
    """Return the states [B, 1 + h * w, W] of a class token and patches as a map [B, W, h, w] of the patches.

    Args:
        images: pixels [B, 3, h * P, w * P] that they are of.
        patch_size: P.
    """
    rows, columns = (side // patch_size for side in images.shape[2:])
    return states[:, 1:].transpose([0, 2, 1]).reshape([0, 0, rows, columns])


def select_images(images: Images, rows: Tensor) -> Images:
    """Return the batch rows `rows` (int tensor [N]) of images."""
    if isinstance(images, Tensor):
        return paddle.gather(images, rows)
    return {name: paddle.gather(tensor, rows) for name, tensor in images.items()}
