"""The network of the toy paper."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from toy_paper.config import Config
from unimo.models.base import Model
from unimo.nn.init import embedding, linear
from unimo.nn.outputs import Encoded


class Bags(Model):
    """Words and patches that see nothing but the mean of the other side."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        width, patch = config.text.hidden_size, config.vision.patch_size
        self.words = embedding(config.text.vocab_size, width, 0.1)
        self.patches = nn.Conv2D(3, width, patch, patch)
        self.to_text = linear(width, width, 0.1)
        self.pooler = linear(2 * width, width, 0.1)

    @property
    def hidden_size(self) -> int:
        return self.config.text.hidden_size

    @property
    def pooled_size(self) -> int:
        return self.hidden_size

    @property
    def head_std(self) -> float:
        return 0.1

    def encode_image(self, pixels: Tensor, *, layers: bool = False, attentions: bool = False) -> Encoded:
        return Encoded(image=self.patches(pixels).flatten(2).transpose([0, 2, 1]))

    def encode_text(
        self, input_ids: Tensor, attention_mask: Tensor, *, layers: bool = False, attentions: bool = False
    ) -> Encoded:
        return Encoded(text=self.words(input_ids), text_mask=attention_mask)

    def fuse(
        self, text: Encoded, image: Encoded, *, attentions: bool = False, outputs: str = "all"
    ) -> Encoded:
        mask = text.text_mask.astype("float32").unsqueeze(2)
        words = (text.text * mask).sum(1) / mask.sum(1)
        picture = image.image.mean(1)
        return Encoded(
            fused_text=text.text + self.to_text(picture).unsqueeze(1),
            pooled=paddle.tanh(self.pooler(paddle.concat([words, picture], axis=1))),
        )

    def lr_group(self, parameter: str) -> str:
        return "cross_modal" if parameter.startswith(("to_text", "pooler")) else "towers"

    def depth(self, parameter: str) -> int | None:
        return {"words": 0, "patches": 0, "to_text": 1}.get(parameter.partition(".")[0])
