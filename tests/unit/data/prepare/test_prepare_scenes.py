"""`prepare_data.py scenes`: the files are a corpus that training, preparation and extraction read."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.prepare.scenes import KINDS, prepare_scenes
from unimo.data.readers.open import open_corpus
from unimo.data.scenes.dataset import ScenesDataset
from unimo.errors import ConfigError
from unimo.settings import CorpusConfig, DataConfig, ScenesConfig


def told(record):
    return repr((record.text, record.answer_scores, record.label, record.question_type, record.facts))


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_is_a_corpus_with_the_records_of_scenes(kind, tmp_path):
    summary = prepare_scenes(tmp_path, kind, 8)
    drawn = ScenesDataset(kind, "train", ScenesConfig(train_images=8))
    assert (summary["pictures"], summary["texts"]) == (drawn.count_images(), len(drawn))
    parts = [
        open_corpus(CorpusConfig(str(tmp_path)), s, kind, DataConfig()) for s in ("train", "val", "test")
    ]
    found = [part[index] for part in parts for index in range(len(part))]
    wanted = [drawn[index] for index in range(len(drawn))]
    assert sorted(map(told, found)) == sorted(map(told, wanted))
    assert prepare_jsonl(tmp_path, tmp_path / "tables", kind)["broken"] == 0


@pytest.mark.parametrize("seen", [(0,), (1,), ()], ids=["left", "right", "sentence"])
def test_one_picture_of_a_pair_tells_nothing_in_any_split(seen, tmp_path):
    """The four pairs of a sentence stay together, through the table, too."""
    prepare_scenes(tmp_path, "nlvr2", 30)
    prepare_jsonl(tmp_path, tmp_path / "tables", "nlvr2")
    sizes = []
    for split in ("train", "val", "test"):
        labels = defaultdict(Counter)
        data = open_corpus(CorpusConfig(str(tmp_path / "tables")), split, "nlvr2", DataConfig())
        for record in data:
            labels[(record.text, *(record.images[side] for side in seen))][record.label] += 1
        assert all(counts[0] == counts[1] for counts in labels.values())
        sizes.append(len(data))
    assert sum(sizes) == 120 and min(sizes) >= 4


def test_other_kinds_and_unusable_folders_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="'texts' of scenes has no files; known: pairs, vqa, gqa, entailment"
    ):
        prepare_scenes(tmp_path, "texts", 8)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out"):
        prepare_scenes(tmp_path / "file", "pairs", 8)
