"""Embeddings of images that are given as regions, as a detector finds them (UNIMO, section 2)."""

from __future__ import annotations

from collections.abc import Mapping

import paddle
from paddle import Tensor, nn

from unimo.errors import ConfigError
from unimo.nn.init import linear
from unimo.nn.kernels import LayerNorm, dropout

WHOLE = (0.0, 0.0, 1.0, 1.0, 1.0)
"""Location of [IMG], the whole image: left, top, right, bottom and area as shares of the image's."""


class RegionEmbeddings(nn.Layer):
    """[IMG] v_1 .. v_t: feature and location of each region, projected and added, then LayerNorm and dropout.

    [IMG] is not learned: as in UNIMO's release it is the mean feature of all regions that are shown, at the
    location of the whole image. A masked region is shown as zeros (section 2.2) and takes no part in that
    mean, which would give it away.

    Args:
        feature_size: F, width of a region feature.
        width: W of the states.
        std: initial scale of both projections.
        dropout: after the norm.
    """

    def __init__(self, feature_size: int, width: int, std: float, dropout: float) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.feature = linear(feature_size, width, std)
        self.location = linear(5, width, std)
        self.norm = LayerNorm(width, 1e-5)
        self.dropout = dropout

    def forward(self, regions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embed the regions of B images.

        Args:
            regions: `features` [B, R, F]; `locations` [B, R, 5]; `mask` [B, R], 1 = region, 0 = padding. For
                masked region modelling also `masked` [B, R], 1 = hidden; for adversarial training `delta`
                [B, 1 + R, F], added to the features, that of [IMG] first.

        Returns:
            States [B, 1 + R, W], [IMG] first, and their mask [B, 1 + R].

        Raises:
            ConfigError: features of another width than F.
        """
        features, mask = regions["features"], regions["mask"].astype("float32")
        if features.shape[2] != self.feature_size:
            raise ConfigError(
                f"region features have {features.shape[2]} numbers, the model reads {self.feature_size}; "
                "name the source that it was trained on with data.regions"
            )
        shown = mask
        if "masked" in regions:
            shown = mask * (1.0 - regions["masked"].astype("float32"))
            features = features * shown.unsqueeze(2)
        whole = (features * shown.unsqueeze(2)).sum(1) / paddle.clip(shown.sum(1, keepdim=True), min=1.0)
        features = paddle.concat([whole.unsqueeze(1), features], axis=1)
        if "delta" in regions:
            features = features + regions["delta"]
        place = paddle.to_tensor(WHOLE).expand([features.shape[0], 1, 5])
        locations = paddle.concat([place, regions["locations"]], axis=1)
        states = self.norm(self.feature(features) + self.location(locations))
        there = paddle.concat([paddle.ones_like(mask[:, :1]), mask], axis=1)
        return dropout(states, self.dropout, self.training), there
