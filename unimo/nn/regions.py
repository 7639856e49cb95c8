"""Region embeddings: [IMG] v_1 .. v_t (section 2; facts 1.5)."""

from __future__ import annotations

from collections.abc import Mapping

import paddle
from paddle import Tensor, nn

from unimo.errors import ConfigError
from unimo.nn.init import linear
from unimo.nn.kernels import LayerNorm, dropout

WHOLE = (0.0, 0.0, 1.0, 1.0, 1.0)
"""Location of [IMG]: the whole picture."""


class RegionEmbeddings(nn.Layer):
    """Feature and location of each region, projected and added, then LayerNorm and dropout.

    [IMG] is not learned: it is the mean of the features of all regions that are shown, at the location of
    the whole picture. A masked region is shown as zeros and takes no part in that mean, which would tell
    what it hides.
    """

    def __init__(self, feature_size: int, width: int, std: float, dropout: float) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.feature = linear(feature_size, width, std)
        self.location = linear(5, width, std)
        self.norm = LayerNorm(width, 1e-5)
        self.dropout = dropout

    def forward(self, regions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Regions of B pictures to states [B, 1 + R, W] and their mask [B, 1 + R].

        Args:
            regions: `features` [B, R, F], `locations` [B, R, 5], `mask` [B, R] (1 = region), and for masked
                region modelling `masked` [B, R] (1 = to be predicted); `delta` [B, 1 + R, F], where there is
                one, is added to the features with that of [IMG] before them (adversarial training).

        Raises:
            ConfigError: features of another width.
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
