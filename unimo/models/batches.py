"""Pre-training batches that several papers read: masked texts for MLM, and pairs for ITM.

Legend: B batch, T longest text of the batch, S image side, N masked tokens, F false images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.loading.collate import Batch, PairCollator, Prepared
from unimo.data.masking.spans import SpanMasker
from unimo.data.masking.tokens import Masker
from unimo.data.processor import Processor, pad
from unimo.data.record import Record
from unimo.errors import ConfigError, RecordError
from unimo.models.paper import PretrainConfig

DEFAULT_OPTIONS = PretrainConfig()


class PretrainCollator(PairCollator):
    """Masked texts for MLM, and pairs for ITM.

    Adds `mlm_input_ids` [B, T]; `mlm_positions` [N], flat places b*T+t of the targets; `mlm_labels` [N];
    `itm_labels` [B] (1 = match); `itm_image_index` [B], the image that text b is paired with for ITM: a
    row of `pixels`, or of `pixels` followed by `false_pixels` [F, 3, S, S], which exist only with
    `false_images="dataset"`.

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
        """`masked_ids`, `positions` and `labels` of one text."""
        return dict(zip(("masked_ids", "positions", "labels"), self.masker(ids, words, rng), strict=True))

    def prepare_text(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Tokenize and mask the text of one record, whatever else it has.

        Raises:
            RecordError: there is no text, or it is broken.
        """
        ids, words = self.processor.ids_and_words(record.text)
        return {"record": record, "ids": ids, **self.mask(ids, words, rng)}

    def join_texts(self, prepared: Sequence[Prepared]) -> Batch:
        """Texts without their images: ids, mask and the `mlm_*` arrays."""
        ids = pad([sample["ids"] for sample in prepared], self.processor.tokenizer.pad_token_id)
        return {**ids, **self.join_masked(prepared)}

    def join_masked(self, prepared: Sequence[Prepared]) -> Batch:
        """The `mlm_*` arrays of prepared samples."""
        masked = pad([sample["masked_ids"] for sample in prepared], self.processor.tokenizer.pad_token_id)
        longest = masked["input_ids"].shape[1]
        flat = [row * longest + sample["positions"] for row, sample in enumerate(prepared)]
        return {
            "mlm_input_ids": masked["input_ids"],
            "mlm_positions": np.concatenate(flat),
            "mlm_labels": np.concatenate([sample["labels"] for sample in prepared]),
        }

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        """Join prepared samples and draw which texts keep their image for ITM."""
        batch = {**super().collate(prepared, rng), **self.join_masked(prepared)}
        matched = draw_matches(len(prepared), rng)
        if self.needs_false_image:
            rows = np.flatnonzero(~matched)
            images = np.arange(len(prepared))
            images[rows] = len(prepared) + np.arange(len(rows))
            batch["false_pixels"] = np.stack([prepared[row]["false_pixels"] for row in rows])
        else:
            images, matched = pair_in_batch([sample["record"] for sample in prepared], matched, rng)
        batch["itm_image_index"] = images
        batch["itm_labels"] = matched.astype(np.int64)
        return batch


def draw_matches(size: int, rng: np.random.Generator) -> np.ndarray:
    """Boolean [B] with exactly floor(B/2) True, at shuffled places (METER: half of ITM's pairs match)."""
    matched = np.arange(size) < size // 2
    rng.shuffle(matched)
    return matched


def pair_in_batch(
    records: Sequence[Record], matched: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """False images from the batch itself, for the rows that are to be mismatched.

    A false image comes from the same corpus, as METER draws it (another corpus would be told apart by its
    style), and is given to one text only; both give way when the batch has nothing left to draw. It never
    has the `image_id` of the true one: in a batch of a single image all pairs are matches.

    Returns:
        Row of the image for each text int64 [B], and `matched` [B] as it could be done.
    """
    images, matched = np.arange(len(records)), matched.copy()
    keys = [(record.corpus, record.image_id or f"row {row}") for row, record in enumerate(records)]
    unused = rng.permutation(len(records)).tolist()

    def is_false(row: int, image: int) -> bool:
        return keys[row][0] == keys[image][0] and keys[row] != keys[image]

    for row in np.flatnonzero(~matched).tolist():
        choice = next((image for image in unused if is_false(row, image)), None)
        if choice is not None:
            unused.remove(choice)
        else:
            others = [image for image in range(len(records)) if keys[image] != keys[row]]
            own = [image for image in others if is_false(row, image)]
            matched[row] = not others
            choice = int(rng.choice(own or others or [row]))
        images[row] = choice
    return images, matched


class MaskedTextCollator(PretrainCollator):
    """Held-out texts without images: `input_ids`, `attention_mask`, the `mlm_*` arrays, `sample_ids`."""

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Tokenize and mask one text."""
        return self.prepare_text(record, rng)

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> Batch:
        """Join prepared samples."""
        return {**self.join_texts(prepared), "sample_ids": [one["record"].sample_id for one in prepared]}
