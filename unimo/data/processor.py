"""The processor: converts images and texts to the arrays that a model reads.

It is saved in the model directory, so that a model is served exactly as it was trained.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from unimo.config import check_fields, merge_into, read_yaml
from unimo.data.checks import check_text
from unimo.data.images.open import check_size, open_image
from unimo.data.images.transforms import Transform, blank_pixels, build_transform
from unimo.data.record import ImageLike, Record
from unimo.data.regions.open import RegionInput
from unimo.data.tokenizers import Tokenizer, load_tokenizer
from unimo.errors import ConfigError, DataError, RecordError
from unimo.ranges import Pixels, Size, TextLength
from unimo.settings import DataConfig


@dataclasses.dataclass(frozen=True)
class ProcessorConfig:
    """Settings of a processor, saved in `config.yaml`; fields as in `DataConfig`."""

    image_size: Pixels = 224
    """Side S of the image in pixels."""
    max_text_len: TextLength = 50
    """Largest number T of tokens of a text, special ones included; longer texts are cut."""
    train_transform: str = "clip"
    eval_transform: str = "clip"
    blank_images: bool = False
    regions: str = ""
    max_regions: Size = 100

    def __post_init__(self) -> None:
        check_fields(self, "data")


class Processor:
    """Convert images and texts to padded NumPy arrays.

        batch = processor(images="cat.jpg", texts="What is on the mat?")

    Args:
        config: settings; without `regions` images become pixels.

    Raises:
        ConfigError: unknown transform.
    """

    def __init__(self, tokenizer: Tokenizer, config: ProcessorConfig | None = None) -> None:
        self.tokenizer = tokenizer
        self.config = config = config or ProcessorConfig()
        self._train = build_transform(config.train_transform, config.image_size)
        self._eval = build_transform(config.eval_transform, config.image_size)

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike] | None = None,
        texts: str | Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Convert images, texts, or both; a single one counts as a list of one. Numbers may differ, as when
        all of some texts are compared with all of some images.

        Returns:
            `pixels` float32 [B, 3, S, S] of images, or their `regions`; `input_ids` and `attention_mask`
            int64 [B, T] of texts (T is the longest of this call; mask 1 = token).

        Raises:
            ConfigError: no image or text.
            RecordError: an image that cannot be decoded, or a text that is empty or not a string.
        """
        batch: dict[str, np.ndarray] = {}
        sources = images if isinstance(images, (list, tuple)) else [images]
        written = [texts] if isinstance(texts, str) else texts
        if len(sources) == 0 or (texts is not None and len(written) == 0):
            raise ConfigError("there is no image or text: expected one or more")
        if images is not None:
            batch[self.image_key] = self.join_images([self.image(_record_of(source)) for source in sources])
        if texts is not None:
            rows = [self.ids(text) for text in written]
            batch.update(pad(rows, self.tokenizer.pad_token_id))
        return batch

    @functools.cached_property
    def visual(self) -> RegionInput | None:
        """Reader of regions, for models that use them; opened at its first use.

        Raises:
            ConfigError, DataError: there is no such source.
        """
        config = self.config
        if not config.regions:
            return None
        return RegionInput(config.regions, config.max_regions, config.blank_images)

    def image(self, record: Record, rng: np.random.Generator | None = None, train: bool = False) -> Any:
        """Read the image of a record as the model needs it: pixels [3, S, S], or `Regions`.

        Raises:
            RecordError: there is no image, or it is broken.
        """
        if self.visual is not None:
            return self.visual.read(record)
        if record.image is None:
            raise RecordError(f"sample {record.sample_id} has no image")
        return self.pixels(record.image, rng, train)

    @property
    def image_key(self) -> str:
        """Key of the images in the result of a call: `pixels` or `regions`."""
        return "regions" if self.config.regions else "pixels"

    def join_images(self, images: Sequence[Any]) -> np.ndarray | dict[str, np.ndarray]:
        """Join results of `image`: pixels [B, 3, S, S], or the arrays of regions (`RegionInput.join`)."""
        return np.stack(images) if self.visual is None else self.visual.join(images)

    def open(self, image: ImageLike, reduce: bool = True) -> Image.Image:
        """Decode an image.

        Args:
            reduce: decode at reduced size where `image_size` allows it.

        Raises:
            RecordError: the image cannot be decoded.
        """
        if isinstance(image, Image.Image):
            return check_size(image) if image.mode == "RGB" else check_size(image).convert("RGB")
        source = Path(image) if isinstance(image, str) else image
        return open_image(source, self.config.image_size if reduce else None)

    def pixels(
        self,
        image: ImageLike,
        rng: np.random.Generator | None = None,
        train: bool = False,
        transform: Transform | None = None,
    ) -> np.ndarray:
        """Convert one image to pixels float32 [3, S, S].

        Args:
            rng: randomness of augmentation; a fixed seed when None.

        Raises:
            RecordError: the image cannot be decoded.
        """
        size = self.config.image_size
        image = self.open(image)
        if self.config.blank_images:
            return blank_pixels(size)
        transform = transform or (self._train if train else self._eval)
        return transform(image, np.random.default_rng(0) if rng is None else rng)

    def ids(self, text: str) -> list[int]:
        """Convert one text to token ids, including `<s>` and `</s>`.

        Raises:
            RecordError: the text is empty or not a string.
        """
        return self.tokenizer.encode(check_text(text), self.config.max_text_len)

    def ids_and_words(
        self, text: str, phrases: Callable[[str], Sequence[tuple[int, int]]] | None = None
    ) -> tuple[list[int], list[int]]:
        """Like `ids`, with the number of the word that each token is part of (-1: special).

        Args:
            phrases: finds the characters of the phrases of a text; the words of a phrase share a number.
        """
        found = phrases(check_text(text)) if phrases else ()
        return self.tokenizer.encode_words(check_text(text), self.config.max_text_len, found)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and the section `processor` of `config.yaml` into a folder."""
        folder = Path(folder)
        self.tokenizer.save(folder)
        path = folder / "config.yaml"
        content = read_yaml(path) if path.exists() else {}
        content["processor"] = dataclasses.asdict(self.config)
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf8")


def load_processor(folder: str | Path, **overrides: Any) -> Processor:
    """Load a processor that `Processor.save` wrote; keyword arguments replace fields (`image_size=288`).

    Raises:
        DataError: the folder has no saved processor.
        ConfigError: unknown field or wrong value.
    """
    folder = Path(folder)
    path = folder / "config.yaml"
    content = read_yaml(path) if path.is_file() else {}
    if not isinstance(content.get("processor"), Mapping):
        raise DataError(f"{folder} has no saved processor: expected a `processor` section in {path}")
    config = merge_into(ProcessorConfig(), {**content["processor"], **overrides}, "processor")
    return Processor(load_tokenizer(folder), config)


def build_processor(data: DataConfig, tokenizer: Tokenizer) -> Processor:
    """Build the processor described by the `data` section of a run."""
    fields = (field.name for field in dataclasses.fields(ProcessorConfig))
    return Processor(tokenizer, ProcessorConfig(**{name: getattr(data, name) for name in fields}))


def _record_of(image: ImageLike) -> Record:
    """Make a record of a caller's image; stored features are found by its file name."""
    name = Path(image).name if isinstance(image, (str, Path)) else ""
    source = Path(image) if isinstance(image, str) else image
    return Record("picture", "", images=(source,), image_id=name)


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, np.ndarray]:
    """Pad token ids of B texts; return `input_ids` and `attention_mask`, int64 [B, longest]."""
    longest = max(map(len, rows), default=0)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}
