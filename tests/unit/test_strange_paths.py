"""Names that no file can have, given to the Python interface: errors of ours, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from unimo import load
from unimo.augment.corpus import CaptionCorpus
from unimo.augment.output import Job, describe_files
from unimo.augment.parsers import open_parser
from unimo.augment.rewrite_job import RewriteSettings, _open_translator
from unimo.config import read_recipe
from unimo.data.images.open import open_image
from unimo.data.prepare.conceptual import prepare_conceptual
from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.karpathy import prepare_karpathy
from unimo.data.prepare.sbu import prepare_sbu
from unimo.data.prepare.snli_ve import prepare_snli_ve
from unimo.data.prepare.visual_genome import prepare_vg
from unimo.data.prepare.vqa import prepare_vqa
from unimo.data.readers.arrow import ArrowDataset
from unimo.data.readers.jsonl import JsonlDataset
from unimo.data.readers.open import (
    find_splits,
    open_all_splits,
    open_answers,
    open_corpus,
    open_labeled_images,
)
from unimo.data.readers.open_glue import open_glue
from unimo.data.readers.tar import TarDataset
from unimo.data.regions.open import open_regions, open_store
from unimo.data.regions.tsv import TsvRegions
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import UnimoError
from unimo.files import make_folder, make_place, read_json
from unimo.inference.loading import load_task
from unimo.inference.pipeline import Pipeline
from unimo.jobs import Shard
from unimo.models.unimo.augmented import open_augmentations
from unimo.settings import CorpusConfig, DataConfig
from unimo.tasks.caption.data import read_references
from unimo.tasks.caption.tags import read_tags
from unimo.weights.files import read_safetensors
from unimo.weights.paddle_folder import open_folder

DATA = DataConfig()
NAMES = {
    "long name": "a" * 300,
    "long name in a folder": "nowhere/" + "a" * 300 + "/b",
    "long path": "/".join(["a" * 100] * 60),
    "NUL": "a\0b",
    "NUL in a folder": "a\0b/c.jsonl",
    "half a character": "a\ud83d",
    "no such user": "~nobody-of-this-name/a",
    "long pattern": "b" * 300 + "/c*",
    "NUL in a pattern": "a\0b/c*",
    "long list": ",".join(["a" * 200] * 3),
}
ENTRIES: dict[str, Callable[[str], object]] = {
    "open_corpus": lambda name: open_corpus(CorpusConfig(name), "train", "pairs", DATA),
    "open_corpus, root": lambda name: open_corpus(CorpusConfig("a"), "train", "pairs", DataConfig(root=name)),
    "open_corpus, images": lambda name: open_corpus(CorpusConfig(name), "train", "images", DATA),
    "open_all_splits": lambda name: open_all_splits(CorpusConfig(name), "texts", DATA),
    "find_splits": lambda name: find_splits(CorpusConfig(name), "pairs", DATA),
    "open_answers": lambda name: open_answers(CorpusConfig(name), DATA),
    "open_labeled_images": lambda name: open_labeled_images(CorpusConfig(name), "train", DATA),
    "open_glue": lambda name: open_glue(CorpusConfig(name), "train", DATA, "sst2"),
    "open_regions": open_regions,
    "open_store": lambda name: open_store(Path(name)),
    "TsvRegions": lambda name: TsvRegions(Path(name)),
    "readers": lambda name: JsonlDataset(name, "pairs"),
    "readers, tar": lambda name: TarDataset(name, "pairs"),
    "readers, arrow": lambda name: ArrowDataset(name, "pairs"),
    "load": load,
    "load_task": load_task,
    "Pipeline": Pipeline,
    "load_tokenizer": load_tokenizer,
    "open_image": lambda name: open_image(Path(name)),
    "read_safetensors": lambda name: read_safetensors(Path(name)),
    "open_folder": open_folder,
    "read_references": read_references,
    "read_tags": lambda name: read_tags(name, 1, 1, 1),
    "read_json": lambda name: read_json(name, UnimoError),
    "open_augmentations": lambda name: open_augmentations(rewrites=name),
    "CaptionCorpus": CaptionCorpus,
    "translator": lambda name: _open_translator(RewriteSettings(translator=name), Path("work")),
    "describe_files": lambda name: describe_files(Path(name)),
    "parser": lambda name: open_parser(f"stanford:{name}"),
    "read_recipe": lambda name: read_recipe(f"{name}.yaml", "pretrain"),
    "prepare_jsonl": lambda name: prepare_jsonl(name, "out"),
    "prepare_karpathy": lambda name: prepare_karpathy(name, "images", "out"),
    "prepare_vqa": lambda name: prepare_vqa(name, "images", "out"),
    "prepare_snli_ve": lambda name: prepare_snli_ve(name, "images", "out"),
    "prepare_vg": lambda name: prepare_vg(name, "images", "out"),
    "prepare_sbu": lambda name: prepare_sbu(name, "images", "out"),
    "prepare_conceptual": lambda name: prepare_conceptual(name, "images", "out"),
    "make_folder": make_folder,
    "make_place": make_place,
    "output": lambda name: Job(None, Path(name), Path("work"), Shard(), None).check(),
}


@pytest.mark.parametrize(
    ("entry", "name"),
    # A folder of such a name can be made.
    [
        (entry, name)
        for entry in ENTRIES
        for name in NAMES
        if (entry, name) != ("make_folder", "no such user")
    ],
)
def test_names_that_no_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnimoError) as caught:
        ENTRIES[entry](NAMES[name])
    assert len(str(caught.value)) <= 2000 and "\n" not in str(caught.value)
