"""Fig. 3 of UNIMO-2: image patches and text tokens that are mapped to the same grounded token.

Every patch and every text token of a corpus is mapped to the grounded token with the largest similarity
(Eq. 1). The sigmoid of Eq. 1 is monotonic, so its arguments are compared: in float32 the sigmoids of many
entries are exactly 1, and the first of them would win.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from PIL import Image

from unimo.analysis.neighbours import Neighbours, most_shared
from unimo.data.loading.loader import EvalLoader
from unimo.data.processor import Processor
from unimo.data.readers.base import Dataset, Kind, WrappedDataset, concat
from unimo.data.readers.open import open_corpus
from unimo.data.record import Record
from unimo.data.tokenizers import Tokenizer
from unimo.errors import CapabilityError, ConfigError, DataError
from unimo.models.base import Model
from unimo.models.unimo2.grounding import TEMPERATURE_RANGE, Grounding
from unimo.registry import list_models, model_config
from unimo.settings import CorpusConfig, RunConfig
from unimo.tasks.retrieval.batches import RetrievalBatch, RetrievalCollator

Progress = Callable[..., Iterable[Any]]
"""Wraps an iterable as `unimo.progress.tracked` does."""
WORDS_KEPT = 8
"""Words stored for each word shown, so that counts are exact."""
CONTEXT = 1
"""Patches shown on each side of a patch."""


@dataclass(frozen=True)
class Patch:
    """A patch with its surroundings."""

    picture: Image.Image
    """The patch with `CONTEXT` patches on each side; white outside of the image."""
    similarity: float
    """Argument of the sigmoid in Eq. 1."""
    count: int
    """Number of patches of the same image mapped to this grounded token."""


@dataclass(frozen=True)
class Word:
    """A text token of the vocabulary."""

    text: str
    similarity: float
    """Largest argument of the sigmoid in Eq. 1 over its occurrences."""
    count: int
    """Number of occurrences mapped to this grounded token."""


@dataclass(frozen=True)
class GroundedToken:
    """An entry of the dictionary with its nearest patches and words, best first."""

    number: int
    """Row in the dictionary, from 0."""
    num_patches: int
    num_words: int
    patches: tuple[Patch, ...]
    """At most one of each image."""
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Atlas:
    """Selected grounded tokens, and the use of the whole dictionary."""

    tokens: tuple[GroundedToken, ...]
    dictionary_size: int
    num_patches: int
    num_words: int
    used_by_patches: int
    """Number of entries to which a patch was mapped."""
    used_by_words: int
    used_by_both: int


def open_loader(
    run: RunConfig, processor: Processor, paths: Sequence[str] = (), split: str = "val"
) -> EvalLoader:
    """Open the images with texts of a split of corpora, given as for `data.pairs`, else those of the run.

    Raises:
        DataError: no such data.
    """
    pretrained = run.task.name == "pretrain"
    kind: Kind = "pairs" if paths or run.task.name not in ("vqa", "entailment") else run.task.name
    corpora = [CorpusConfig(path) for path in paths] or (run.data.pairs if pretrained else run.data.path)
    parts = [open_corpus(corpus, split, kind, run.data) for corpus in corpora]
    return EvalLoader(
        NumberedDataset(concat(parts, "+".join(part.name for part in parts))),
        RetrievalCollator(processor, train=False),
        run.train.eval_batch_size,
        num_workers=run.data.num_workers,
        prefetch=run.data.prefetch,
        max_bad_rate=run.data.max_bad_rate,
    )


def collect(
    model: Model,
    loader: EvalLoader,
    *,
    tokens: int = 8,
    ids: Sequence[int] = (),
    nearest: int = 12,
    max_batches: int = 0,
    progress: Progress = lambda items, **_: items,
) -> Atlas:
    """Map a corpus to the grounded dictionary.

    The corpus is read once, batch by batch; at most 2 `nearest` patches and 16 `nearest` words are stored for
    each grounded token, as numbers. Images of the selected tokens are opened again at the end.

    Args:
        model: model with a grounded dictionary, in evaluation mode.
        loader: result of `open_loader`.
        tokens: number of grounded tokens to select: those most used by both patches and words.
        ids: grounded tokens to show instead, by row.
        nearest: number of patches and words to show for each.
        max_batches: number of batches to read; 0 reads all.

    Raises:
        CapabilityError: the model has no grounded dictionary.
        ConfigError: an id outside the dictionary, or a number below 1.
        DataError: the corpus has no valid sample.
    """
    size, processor = dictionary_size(model), loader.collator.processor
    for name, value in (("tokens", tokens), ("nearest", nearest)):
        if value < 1:
            raise ConfigError(f"{name} is {value}, expected 1 or more")
    wrong = [number for number in ids if not 0 <= number < size]
    if wrong:
        raise ConfigError(f"no grounded token {wrong[0]}: the dictionary has 0 to {size - 1}; try --tokens 8")
    patches = Neighbours(size, nearest, ids or None)
    words = Neighbours(size, WORDS_KEPT * nearest, ids or None)
    before: set[str] = set()
    count = min(len(loader), max_batches or len(loader))
    for batch in progress(itertools.islice(loader, count), total=count, what="mapping patches and words"):
        with paddle.no_grad():
            before = _add_images(model, batch, before, patches)
            _add_texts(model, batch, processor.tokenizer.special_ids, words)
    if not patches.total or not words.total:
        raise DataError(f"{loader.dataset.name}: no image and text could be read, so nothing can be shown")
    cut = PatchCutter(loader.dataset, processor, model.config.vision, CONTEXT)
    chosen = list(ids) or most_shared(patches.usage, words.usage, tokens)
    return Atlas(
        tokens=tuple(_token(number, patches, words, cut, processor.tokenizer) for number in chosen),
        dictionary_size=size,
        num_patches=patches.total,
        num_words=words.total,
        used_by_patches=int((patches.usage > 0).sum()),
        used_by_words=int((words.usage > 0).sum()),
        used_by_both=int(((patches.usage > 0) & (words.usage > 0)).sum()),
    )


def dictionary_size(model: Model) -> int:
    """Return C, the number of rows of the grounded dictionary.

    Raises:
        CapabilityError: the model has none.
    """
    grounding = getattr(model.config, "grounding", None)
    if grounding is None or not grounding.is_active:
        able = ", ".join(name for name in list_models() if hasattr(model_config(name), "grounding"))
        raise CapabilityError(
            f"{model.config.name!r} has no grounded dictionary to show; models that can have one: "
            f"{able or 'none'}, unless grounding.enabled=false"
        )
    return grounding.dictionary_size


def _add_images(model: Model, batch: RetrievalBatch, before: set[str], patches: Neighbours) -> set[str]:
    """Add the images that the batch before did not have; return the ids of this batch's images.

    The texts of an image follow each other, so it is in one batch or in consecutive ones.
    """
    rows = {key: row for row, key in reversed(list(enumerate(batch.image_ids)))}
    new = [(key, row) for key, row in rows.items() if key not in before]
    if new:
        pixels = paddle.to_tensor(batch.images[[row for _, row in new]])
        entries, scores = _map(model, model.ground(None, model.encode_image(pixels)))
        count = entries.shape[1]
        keys = [key for key, _ in new for _ in range(count)]
        places = [(int(batch.sample_ids[row]), patch) for _, row in new for patch in range(count)]
        patches.add(entries.reshape(-1), scores.reshape(-1), keys, places)
    return set(rows)


def _add_texts(model: Model, batch: RetrievalBatch, special_ids: frozenset[int], words: Neighbours) -> None:
    """Add the tokens of all texts except begin, end and padding."""
    text = model.encode_text(paddle.to_tensor(batch.input_ids), paddle.to_tensor(batch.attention_mask))
    entries, scores = _map(model, model.ground(text, None))
    ids = batch.input_ids[:, 1:]
    kept = (batch.attention_mask[:, 1:] == 1) & ~np.isin(ids, list(special_ids))
    keys = ids[kept].tolist()
    words.add(entries[kept], scores[kept], keys, [None] * len(keys))


def _map(model: Model, grounding: Grounding) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest grounded token of every patch or text token, of images or texts alone.

    Returns:
        Rows of the dictionary, int [B, S], and similarities, float [B, S] (for the 1-to-1 map: minus the
        squared distances).
    """
    first = 1 if model.config.grounding.class_tokens else 0
    features = grounding.features[:, first:]
    if model.config.grounding.method == "one_to_one":
        distances = (features - grounding.tokens[:, first:]).square().sum(axis=-1)
        return grounding.ids[:, first:].numpy(), -distances.numpy()
    temperature = paddle.clip(model.grounding.temperature, *TEMPERATURE_RANGE)
    logits = temperature * paddle.matmul(features, model.grounding.dictionary, transpose_y=True)
    return logits.argmax(axis=-1).numpy(), logits.max(axis=-1).numpy()


def _token(
    number: int, patches: Neighbours, words: Neighbours, cut: PatchCutter, tokenizer: Tokenizer
) -> GroundedToken:
    near = patches.nearest(number, patches.keep)
    spelled = [
        (tokenizer.decode([item.key]).strip() or tokenizer.backend.id_to_token(item.key), item)
        for item in words.nearest(number, patches.keep)
    ]
    return GroundedToken(
        number=number,
        num_patches=int(patches.usage[number]),
        num_words=int(words.usage[number]),
        patches=tuple(Patch(cut(*item.place), item.score, item.count) for item in near),
        words=tuple(Word(text, item.score, item.count) for text, item in spelled),
    )


class NumberedDataset(WrappedDataset):
    """A data set whose sample ids are indices, so that a sample of a batch can be found again."""

    def __getitem__(self, index: int) -> Record:
        return dataclasses.replace(self._whole[index], sample_id=str(index))


class PatchCutter:
    """Cuts patches with their surroundings out of images, after the evaluation transform of the processor.

    Args:
        vision: config with `patch_size` and, if patches start outside the image, `patch_padding`.
        context: number of patches on each side; the area outside of the image is white.
    """

    def __init__(self, dataset: Dataset, processor: Processor, vision: Any, context: int) -> None:
        self._dataset, self._processor, self._context = dataset, processor, context
        self._side, self._shift = vision.patch_size, getattr(vision, "patch_padding", 0)
        size = processor.config.image_size
        self._columns = size // self._side
        # The results for black and white give the scale of any transform.
        black, white = (processor.pixels(Image.new("RGB", (size, size), c)) for c in ("black", "white"))
        self._black, self._range = black, np.where(white == black, np.float32(1), white - black)

    def __call__(self, index: int, patch: int) -> Image.Image:
        """Return patch number `patch`, counted row by row, of the image of sample `index`."""
        pixels = self._processor.pixels(self._dataset.image_source(index))
        shares = np.clip((pixels - self._black) / self._range, 0, 1)
        picture = Image.fromarray((shares * 255).round().astype(np.uint8).transpose(1, 2, 0))
        row, column = divmod(patch, self._columns)
        left, top = (number * self._side - self._shift for number in (column, row))
        margin = self._context * self._side
        canvas = Image.new("RGB", (self._side + 2 * margin,) * 2, "white")
        canvas.paste(picture, (margin - left, margin - top))
        return canvas
