"""The data of pre-training, and records to the batches that several papers read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unimo.data.loading.batch import PairCollator, Prepared
from unimo.data.loading.loader import Collator
from unimo.data.loading.task_data import TaskData, corpus_data
from unimo.data.masking.maskers import Masker, SpanMasker
from unimo.data.processor import Processor, pad
from unimo.data.readers.base import Kind
from unimo.data.readers.open import open_corpus
from unimo.data.record import Record
from unimo.errors import ConfigError, RecordError
from unimo.models.batches import MaskedTextBatch, PretrainBatch
from unimo.models.paper import PretrainConfig
from unimo.settings import CorpusConfig, RunConfig

DEFAULT_OPTIONS = PretrainConfig()


class PretrainCollator(PairCollator):
    """Make a `PretrainBatch`.

    Args:
        processor: image transform and tokenizer.
        train: use the training transform of images.
        options: how texts are masked, and where ITM's false images come from.

    Raises:
        ConfigError: false images of the data set for a model that reads regions.
    """

    def __init__(self, processor: Processor, train: bool, options: PretrainConfig = DEFAULT_OPTIONS) -> None:
        super().__init__(processor, train)
        self.masker = Masker(processor.tokenizer, options.mlm_probability, options.whole_word_masking)
        if options.masking == "span":
            self.masker = SpanMasker(processor.tokenizer, options.mlm_probability)
        self.needs_false_image = options.false_images == "dataset"
        if self.needs_false_image and processor.config.regions:
            raise ConfigError("task.false_images=dataset draws pixels; with data.regions use batch")

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Decode the image (and the false one), tokenize and mask the text.

        Raises:
            RecordError: something is missing or broken.
        """
        prepared = super().prepare(record, rng)
        prepared.update(self.mask(prepared["ids"], prepared["words"], rng))
        if self.needs_false_image:
            if record.false_image is None:
                raise RecordError(f"sample {record.sample_id} has no false image")
            prepared["false_pixels"] = self.processor.pixels(record.false_image, rng, self.train)
        return prepared

    def mask(self, ids: Sequence[int], words: Sequence[int], rng: np.random.Generator) -> Prepared:
        """Return `masked_ids`, `positions` and `labels` of one text."""
        return dict(zip(("masked_ids", "positions", "labels"), self.masker(ids, words, rng), strict=True))

    def prepare_text(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Tokenize and mask the text of one record, whatever else it has.

        Raises:
            RecordError: there is no text, or it is broken.
        """
        ids, words = self.processor.ids_and_words(record.text)
        return {"record": record, "ids": ids, **self.mask(ids, words, rng)}

    def join_texts(self, prepared: Sequence[Prepared]) -> MaskedTextBatch:
        """Join the texts of prepared samples, without their images."""
        ids = pad([sample["ids"] for sample in prepared], self.processor.tokenizer.pad_token_id)
        names = [sample["record"].sample_id for sample in prepared]
        return MaskedTextBatch(**ids, **self.join_masked(prepared), sample_ids=names)

    def join_masked(self, prepared: Sequence[Prepared]) -> dict[str, np.ndarray]:
        """Return the `mlm_*` fields of prepared samples."""
        masked = pad([sample["masked_ids"] for sample in prepared], self.processor.tokenizer.pad_token_id)
        longest = masked["input_ids"].shape[1]
        flat = [row * longest + sample["positions"] for row, sample in enumerate(prepared)]
        return {
            "mlm_input_ids": masked["input_ids"],
            "mlm_positions": np.concatenate(flat),
            "mlm_labels": np.concatenate([sample["labels"] for sample in prepared]),
        }

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> PretrainBatch:
        """Join prepared samples and draw which texts keep their image for ITM."""
        matched = draw_matches(len(prepared), rng)
        if self.needs_false_image:
            rows = np.flatnonzero(~matched)
            images = np.arange(len(prepared))
            images[rows] = len(prepared) + np.arange(len(rows))
            false_pixels = np.stack([prepared[row]["false_pixels"] for row in rows])
        else:
            false_pixels = None
            records = [sample["record"] for sample in prepared]
            corpora, groups = zip(*((record.corpus, record.image_group) for record in records), strict=True)
            images, matched = pair_in_batch(corpora, groups, matched, rng)
        return PretrainBatch(
            **self.join(prepared),
            **self.join_masked(prepared),
            itm_image_index=images,
            itm_labels=matched.astype(np.int64),
            false_pixels=false_pixels,
        )


def draw_matches(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw which of B pairs match: exactly floor(B/2) (METER: half of the pairs of ITM), bool [B]."""
    matched = np.arange(size) < size // 2
    rng.shuffle(matched)
    return matched


def pair_in_batch(
    corpora: Sequence[str], groups: Sequence[int], matched: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw false images from the batch itself for the texts that are to be mismatched.

    A false image comes from the corpus of the text, as in METER (the style of another corpus would give it
    away), and is shown with one text only; both conditions are dropped where the batch has nothing left. It
    is never of the group of the true image: in a batch of a single image all pairs are matches.

    Args:
        corpora: name of the corpus of each pair.
        groups: identity of the image of each pair (`image_group`).
        matched: bool [B], False for texts that are to be mismatched.
        rng: source of randomness.

    Returns:
        Row of the image for each text, int64 [B], and `matched` [B] as far as it was possible.
    """
    images, matched = np.arange(len(groups)), matched.copy()
    unused = rng.permutation(len(groups)).tolist()

    def is_false(row: int, image: int) -> bool:
        return corpora[row] == corpora[image] and groups[row] != groups[image]

    for row in np.flatnonzero(~matched).tolist():
        choice = next((image for image in unused if is_false(row, image)), None)
        if choice is not None:
            unused.remove(choice)
        else:
            others = [image for image in range(len(groups)) if groups[image] != groups[row]]
            own = [image for image in others if is_false(row, image)]
            matched[row] = not others
            choice = int(rng.choice(own or others or [row]))
        images[row] = choice
    return images, matched


class MaskedTextCollator(PretrainCollator):
    """Make a `MaskedTextBatch` of held-out texts without images."""

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Tokenize and mask one text."""
        return self.prepare_text(record, rng)

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> MaskedTextBatch:
        """Join prepared samples."""
        return self.join_texts(prepared)


def pretraining_data(
    run: RunConfig, processor: Processor, train_collator: Callable[[], Collator] | None = None
) -> TaskData:
    """Open image-text pairs of `data.pairs`, masked and mismatched; in training texts and images alone, too.

    Without pairs, texts are trained on and evaluated. `train_collator` makes the collator of training batches
    where they differ from those of evaluation.

    Raises:
        ConfigError: a curriculum without anything that comes in later, or neither pairs nor texts.
    """
    data, options = run.data, run.task
    kind: Kind = "pairs" if data.pairs else "texts"
    unpaired: dict[Kind, Sequence[CorpusConfig]] = {"texts": data.texts, "images": data.images}
    corpora = data.pairs or unpaired.pop("texts")
    if not corpora:
        raise ConfigError("data.pairs and data.texts are empty; name a corpus, or `scenes`")
    if data.pairs_only_epochs and not is_mixed(run) and all(corpus.curriculum for corpus in data.pairs):
        raise ConfigError(
            f"data.pairs_only_epochs={data.pairs_only_epochs:g}, but there are only pairs; "
            "set data.texts or data.images, or data.pairs_only_epochs=0"
        )

    def collator(train: bool) -> Collator:
        if train and train_collator is not None:
            return train_collator()
        return (PretrainCollator if kind == "pairs" else MaskedTextCollator)(processor, train, options)

    opened = corpus_data(run, corpora, kind, processor, collator)
    opened.kind, opened.unpaired = kind, unpaired
    opened.open_unpaired = lambda corpus, kind: open_corpus(corpus, "train", kind, data)
    return opened


def is_mixed(run: RunConfig) -> bool:
    """Return whether training reads anything but pairs."""
    return bool(run.data.texts or run.data.images)
