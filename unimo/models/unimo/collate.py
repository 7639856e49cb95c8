"""Records to pre-training batches of UNIMO: pairs, texts and images, each masked for its own losses
(sections 2.2, 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unimo.data.loading.batch import Prepared
from unimo.data.loading.task_data import TaskData
from unimo.data.masking.fragments import FragmentSampler
from unimo.data.masking.maskers import RegionMasker
from unimo.data.masking.noun_phrases import PhraseFinder
from unimo.data.processor import Processor, pad
from unimo.data.record import Record
from unimo.data.regions.base import Regions
from unimo.errors import RecordError
from unimo.models.collate import PretrainCollator, draw_matches, pair_in_batch, pretraining_data
from unimo.models.unimo.augmented import Augmentations, open_augmentations
from unimo.models.unimo.batches import LanguageBatch, UnifiedBatch, UnifiedPart, VisionBatch
from unimo.models.unimo.config import PretrainingConfig
from unimo.models.unimo.contrast import ContrastCollator
from unimo.settings import RunConfig


def open_pretraining(run: RunConfig, processor: Processor) -> TaskData:
    """Open pairs, and for training texts and images alone; training batches have parts."""

    def collator() -> UnifiedCollator:
        extra = run.task.augment
        extras = open_augmentations(extra.rewrites, extra.texts, extra.images, run.data.scenes)
        return UnifiedCollator(processor, run.task, extras)

    return pretraining_data(run, processor, collator)


class UnifiedCollator(PretrainCollator):
    """Make a `UnifiedBatch`; what a record has decides which part it goes to.

    Args:
        processor: reads regions and texts.
        options: shares and numbers.
        extras: rewritten captions, related texts and images.
    """

    def __init__(self, processor: Processor, options: PretrainingConfig, extras: Augmentations) -> None:
        super().__init__(processor, True, options)
        self.phrases = PhraseFinder(options.phrases) if options.phrases else None
        self.seq2seq_probability = options.seq2seq_probability
        self.fragments = FragmentSampler(processor.tokenizer, options.fragment_share)
        self.hide = RegionMasker(options.region_mask_probability)
        self.contrast = ContrastCollator(processor, options.augment, extras)

    def sources(self) -> dict[str, Callable[[Record], Any]]:
        """Return what stored regions and the files of extras add to a record."""
        return super().sources() | {
            f"task.augment.{part}": of for part, of in self.contrast.extras.files().items()
        }

    def prepare(self, record: Record, rng: np.random.Generator) -> Prepared:
        """Read and mask the image and the text, of those that the record has.

        Raises:
            RecordError: there is neither, or something is broken.
        """
        has_image = record.image is not None or (record.text is None and bool(record.image_id))
        if record.text is None and not has_image:
            raise RecordError(f"sample {record.sample_id} has neither image nor text")
        part = "texts" if not has_image else "images" if record.text is None else "pairs"
        prepared: Prepared = {"part": part, "record": record}
        if has_image:
            regions = self.processor.image(record)
            prepared |= {"image": regions, "masked": self.hide(regions.boxes, rng)}
        if record.text is not None:
            ids, words = self.processor.ids_and_words(record.text, self.phrases)
            prepared |= {"ids": ids, "language": self.language(ids, words, rng)}
        if part == "pairs":
            prepared["contrast"] = self.contrast.prepare(record, prepared["image"], prepared["ids"], rng)
        return prepared

    def language(self, ids: Sequence[int], words: Sequence[int], rng: np.random.Generator) -> Prepared:
        """Choose the targets of one text: masked tokens to predict, or fragments to generate.

        Returns:
            `ids`, `positions` and `is_target` of each token; `places` and `labels` of the targets; and
            `generates`, which of the two it is.
        """
        if rng.random() < self.seq2seq_probability:
            cut = self.fragments(ids, words, rng)
            if len(cut.target_ids):
                source = len(cut.source_ids)
                return {
                    "ids": np.concatenate([cut.source_ids, cut.target_ids]),
                    "positions": np.concatenate([cut.source_positions, cut.target_positions]),
                    "is_target": np.arange(source + len(cut.target_ids)) >= source,
                    "places": source + cut.label_places,
                    "labels": cut.labels,
                    "generates": True,
                }
        masked, places, labels = self.masker(ids, words, rng)
        return {
            "ids": masked,
            "positions": self.fragments.first_position + np.arange(len(masked)),
            "is_target": np.zeros(len(masked), bool),
            "places": places,
            "labels": labels,
            "generates": False,
        }

    def collate(self, prepared: Sequence[Prepared], rng: np.random.Generator) -> UnifiedBatch:
        """Join the samples of each part."""
        batch = UnifiedBatch(sample_ids=[sample["record"].sample_id for sample in prepared])
        for name in ("pairs", "texts", "images"):
            samples = [sample for sample in prepared if sample["part"] == name]
            if not samples:
                continue
            part = UnifiedPart()
            if name != "images":
                part.language = self.join_language([sample["language"] for sample in samples])
            if name == "pairs":
                part.contrast = self.contrast.collate([sample["contrast"] for sample in samples], rng)
                matched = draw_matches(len(samples), rng)
                corpora = [sample["record"].corpus for sample in samples]
                groups = [sample["contrast"].image_group for sample in samples]
                images, matched = pair_in_batch(corpora, groups, matched, rng)
                part.itm_image_index, part.itm_labels = images, matched.astype(np.int64)
            if name != "texts":
                part.vision = self.join_vision(samples)
            setattr(batch, name, part)
        return batch

    def join_language(self, texts: Sequence[Prepared]) -> LanguageBatch:
        """Join masked texts."""
        padding = self.processor.tokenizer.pad_token_id
        fields = pad([text["ids"] for text in texts], padding)
        longest = fields["input_ids"].shape[1]
        fields["positions"] = pad([text["positions"] for text in texts], padding)["input_ids"]
        if any(text["generates"] for text in texts):
            fields["is_target"] = pad([text["is_target"] for text in texts], 0)["input_ids"]
        for kind, generates in (("mlm", False), ("seq2seq", True)):
            chosen = [(row, text) for row, text in enumerate(texts) if text["generates"] is generates]
            none = [np.zeros(0, np.int64)]
            places = [row * longest + text["places"] for row, text in chosen]
            fields[f"{kind}_positions"] = np.concatenate(none + places)
            fields[f"{kind}_labels"] = np.concatenate(none + [text["labels"] for _, text in chosen])
        return LanguageBatch(**fields)

    def join_vision(self, samples: Sequence[Prepared]) -> VisionBatch:
        """Join masked images."""
        images: list[Regions] = [sample["image"] for sample in samples]
        masked = [sample["masked"] for sample in samples]
        regions = self.processor.join_images(images)
        rows = regions["mask"].shape[1]
        hidden = [np.flatnonzero(chosen) for chosen in masked]

        def targets(name: str) -> np.ndarray:
            pairs = zip(images, hidden, strict=True)
            return np.concatenate([getattr(image, name)[found] for image, found in pairs]).astype(np.float32)

        return VisionBatch(
            regions=regions | {"masked": pad(masked, 0)["input_ids"]},
            positions=np.concatenate([row * (1 + rows) + 1 + found for row, found in enumerate(hidden)]),
            features=targets("features"),
            class_probs=None if images[0].class_probs is None else targets("class_probs"),
        )
