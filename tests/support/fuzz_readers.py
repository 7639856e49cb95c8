"""The readers of tests/test_fuzz.py: each opens a folder as a user would, and counts broken records."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzz_sources import ASSETS, entries

import unimo
from ppdet_features.annotated_images import CocoImages
from ppdet_features.config import load_config
from ppdet_features.weights import convert_detectron2
from unimo.augment.corpus import CaptionCorpus, caption_of
from unimo.augment.index import TfidfIndex, build_index
from unimo.augment.translation import FileTranslations
from unimo.data.images.open import open_image
from unimo.data.prepare.conceptual import prepare_conceptual
from unimo.data.prepare.gqa import prepare_gqa
from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.prepare.sbu import prepare_sbu
from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.prepare.visual_genome import prepare_vg
from unimo.data.prepare.visual_genome_qa import prepare_vg_qa
from unimo.data.prepare.vqa import prepare_vqa
from unimo.data.readers.base import Dataset, Kind
from unimo.data.readers.open import open_answers, open_corpus, open_labeled_images
from unimo.data.readers.open_glue import open_glue
from unimo.data.record import Record
from unimo.data.regions.open import open_store
from unimo.data.regions.store import RegionStore
from unimo.data.tokenizers import load_tokenizer, starts_word
from unimo.errors import RecordError
from unimo.inference.loading import load_task
from unimo.models.unimo.augmented import open_augmentations
from unimo.nn.config import VitConfig
from unimo.nn.towers import VitTower
from unimo.settings import CorpusConfig, DataConfig, load_run_config
from unimo.weights.files import read_tensors
from unimo.weights.huggingface import convert_tower
from unimo.weights.layers import load_tower
from unimo.weights.paddle_folder import open_folder as open_paddle_folder

TOWER = {
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_size": 64,
    "patch_size": 8,
    "image_size": 24,
}
"""Sizes of the tower in tests/assets/hf_vit_tiny."""
MOST = 200
"""Records of a mutated corpus that are read."""
Read = Callable[[Path], int]


def _check(record: Record, kind: str) -> None:
    """Assert the properties of a record on which later steps rely."""
    if kind in ("pairs", "vqa", "gqa", "entailment", "texts"):
        assert isinstance(record.text, str) and record.text.strip(), f"text {record.text!r:.80}"
        record.text.encode()
    for answer, score in record.answer_scores.items():
        assert isinstance(answer, str) and 0 < score <= 1, f"{answer!r:.80} has {score!r}"
    assert record.label in (None, 0, 1, 2) or kind != "entailment", f"label {record.label!r:.80}"
    assert record.image_group >= 0
    for image in record.images:
        open_image(image, 32)


def records(data: Dataset, kind: str) -> int:
    """Read up to `MOST` records and count the broken ones."""
    broken = 0
    for at in range(min(len(data), MOST)):
        try:
            _check(data[at], kind)
        except RecordError:
            broken += 1
        for part in (data.image_id, data.image_source):
            try:
                part(at)
            except RecordError:
                pass
    return broken


def corpus(kind: Kind) -> Read:
    """A corpus; of VQA also its answers, of pairs also its captions for augmentation."""

    def read(folder: Path) -> int:
        config, data = CorpusConfig(str(folder)), DataConfig()
        broken = records(open_corpus(config, "train", kind, data), kind)
        if kind == "vqa":
            answers = open_answers(config, data)
            assert all(isinstance(answer, str) for answer in answers)
        if kind in ("pairs", "texts"):
            captions = CaptionCorpus(str(folder), "train", kind)
            captions.fingerprint()
            list(itertools.islice(captions.by_image(), MOST))
            captions.check()
        return broken

    return read


def store(folder: Path) -> int:
    """Region features, by every name, in order, and with labels."""
    found = open_store(next(folder.glob("*.tsv"), folder))
    broken = 0
    for name in ("a/1.jpg", "a/2.jpg", "3.jpg", "1", "broken.jpg"):
        record = Record(name, "x", image_id=name)
        for part in (found.of, *([found.image_of] if isinstance(found, RegionStore) else [])):
            try:
                part(record).__repr__()
            except RecordError:
                broken += name in ("a/1.jpg", "a/2.jpg", "3.jpg")  # the others are not in all sources
    if isinstance(found, RegionStore):
        for image in found.images():
            assert np.isfinite(image.regions.features).all()
        for name, labels in found.labels():
            assert isinstance(name, str) and all(isinstance(label, str) for label in labels)
    return broken


def index(folder: Path) -> int:
    """Searches in an inverted index."""
    found = TfidfIndex(folder, memory_mb=8)
    assert found.about is not None
    for terms in (["red", "dog"], ["boat", "cats", "boat"], ["no"]):
        for hit in found.search(terms, 5, without_image="i1", without_texts=["x"]):
            assert isinstance(hit.text, str) and isinstance(hit.image_id, str), hit
    found.texts(0, 100), found.texts_of_image("i3"), found.image_of(["n4", "i4"])
    return 0


def unfinished_index(folder: Path) -> int:
    """The end of a stopped build."""
    build_index(entries, folder, {"corpus": "here"}, memory_mb=8)
    return index(folder)


def extras(folder: Path) -> int:
    """Read the rewrites, texts and images that CMCL adds to a pair."""
    name, broken = str(folder / "all.jsonl"), 0
    found = open_augmentations(name, name, name)
    for number in range(6):
        try:
            added = found.of(Record(f"a:{number}#0", "a", text="a caption"))
        except RecordError:
            broken += 1
            continue
        for text in (*added.positives, *added.negatives, *added.texts):
            assert isinstance(text, str)
            text.encode()
    return broken


def translations(folder: Path) -> int:
    """Translations of captions."""
    found = FileTranslations(folder / "fr.jsonl", folder / "work")
    found([caption_of(Record(f"a:{number}#0", "a", text="a caption")) for number in range(6)])
    return 0


def glue(folder: Path) -> int:
    """Two tasks of GLUE."""
    config, data = CorpusConfig(str(folder)), DataConfig()
    return sum(records(open_glue(config, "train", data, task), "texts") for task in ("sst2", "stsb"))


def labeled(folder: Path) -> int:
    """Images with classes."""
    config = CorpusConfig(str(folder))
    return sum(
        records(open_labeled_images(config, split, DataConfig()), "images") for split in ("train", "test")
    )


def tensors(folder: Path) -> int:
    """A file of weights."""
    for name, value in read_tensors(next(folder.iterdir())).items():
        assert isinstance(name, str) and isinstance(value, np.ndarray)
        value.astype(np.float32, copy=True).sum()
    return 0


def detectron(folder: Path) -> int:
    """Weights of Detectron2 in our names."""
    convert_detectron2(read_tensors(folder / "d.pkl"), background_first=True)
    return 0


def model(folder: Path) -> int:
    """A model directory, as a model and with its task."""
    unimo.load(str(folder))
    load_task(folder)
    return 0


def tower(folder: Path) -> int:
    """A converted tower, into a layer of its size."""
    layer = VitTower(VitConfig(**TOWER))
    load_tower(layer, folder)
    return 0


def hf_tower(folder: Path) -> int:
    """The conversion of a tower."""
    convert_tower("hf-vit", folder / "model.safetensors", folder / "config.json", folder / "out")
    return 0


def paddle_folder(folder: Path) -> int:
    """Weights with a file for each parameter."""
    open_paddle_folder(folder)
    return 0


def tokenizer(folder: Path) -> int:
    """A tokenizer, used on texts."""
    found = load_tokenizer(folder)
    for text in ("a red dog runs", "caf\u00e9 \U0001f415", "", "<mask> x" * 50):
        ids = found.encode(text, 12)
        assert all(0 <= number < found.vocab_size for number in ids) and len(ids) <= 12
        found.decode(ids)
    starts_word(found)
    return 0


def recipe(folder: Path) -> int:
    """A recipe as the tools read it."""
    load_run_config(f"{folder / 'vqa.yaml'}:tiny", "vqa", ["train.max_steps=3"])
    return 0


def detector_config(folder: Path) -> int:
    """A detector's config."""
    load_config(folder / "scenes_tiny.yaml", {"Training": {"steps": 3}})
    return 0


def prepare_lines(folder: Path) -> int:
    """A jsonl corpus to tables."""
    prepare_jsonl(folder / "train.jsonl", folder / "out", "vqa", max_missing_rate=0.6)
    return 0


def karpathy(folder: Path) -> int:
    """Karpathy's captions to tables."""
    prepare_karpathy(folder / "dataset_coco.json", folder / "pictures", folder / "out", max_missing_rate=0.6)
    return 0


def vqa(folder: Path) -> int:
    """VQA v2 to tables."""
    prepare_vqa(folder, folder / "pictures", folder / "out", min_count=1, rest_images=1, max_missing_rate=0.6)
    return 0


def snli_ve(folder: Path) -> int:
    """SNLI-VE to tables."""
    prepare_snli_ve(folder, folder / "pictures", folder / "out", max_missing_rate=0.6)
    return 0


def visual_genome(folder: Path) -> int:
    """Phrases of Visual Genome to a table, without held-out pictures."""
    held_out = [folder / "dataset_coco.json"]
    prepare_vg(folder, folder / "pictures", folder / "out", held_out, max_missing_rate=0.6)
    return 0


def visual_genome_qa(folder: Path) -> int:
    """Questions of Visual Genome to a table."""
    prepare_vg_qa(folder, folder / "pictures", folder / "out", min_count=1, max_missing_rate=0.6)
    return 0


def gqa(folder: Path) -> int:
    """GQA to tables, which are read."""
    prepare_gqa(folder, folder / "pictures", folder / "out", max_missing_rate=0.6)
    return corpus("gqa")(folder / "out")


def sbu(folder: Path) -> int:
    """SBU captions to tables."""
    prepare_sbu(folder, folder / "pictures", folder / "out", max_missing_rate=0.6)
    return 0


def conceptual(folder: Path) -> int:
    """Conceptual Captions to tables."""
    prepare_conceptual(folder, folder / "pictures", folder / "out", max_missing_rate=0.6)
    return 0


def coco(folder: Path) -> int:
    """Annotated objects with their pictures."""
    config = load_config(ASSETS.parent.parent / "ppdet_features" / "configs" / "scenes_tiny.yaml")
    images = CocoImages(folder / "objects.json", folder / "pictures", config)
    for at in range(min(len(images), MOST)):
        assert np.isfinite(images.annotations(at).boxes).all()
        images.image(at)
    return 0


def pictures(folder: Path) -> int:
    """One picture, whole and scaled down."""
    path = next(folder.iterdir())
    try:
        for source in (path, path.read_bytes()):
            for target in (None, 8):
                image = open_image(source, target)
                assert image.mode == "RGB" and np.asarray(image).ndim == 3
    except RecordError:
        return 1
    return 0
