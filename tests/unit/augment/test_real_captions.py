"""Rewrites of the 4,000 captions of `flickr8k_800`: what holds for every one of them. Prints its counts:

pytest -m slow -s tests/unit/augment/test_real_captions.py
"""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from unimo.augment.corpus import CaptionCorpus
from unimo.augment.output import Job
from unimo.augment.rewrite_job import RewriteSettings, rewrite_corpus
from unimo.augment.terms import normalise
from unimo.jobs import Shard
from unimo.progress import Progress

silent = functools.partial(Progress, quiet=True)


@pytest.mark.slow
def test_no_rewrite_is_a_caption_of_its_image(shared: Path, tmp_path: Path):
    images = json.loads((shared / "data/flickr8k_800/dataset_flickr8k.json").read_bytes())["images"]
    folder = shared / "data/flickr8k_800/images"
    lines = [
        {"image": str(folder / image["filename"]), "texts": [one["raw"] for one in image["sentences"]]}
        for image in images
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus = CaptionCorpus(str(tmp_path / "train.jsonl"))
    out = tmp_path / "out.jsonl"
    told = rewrite_corpus(Job(corpus, out, tmp_path / "work", Shard(), silent), RewriteSettings())
    assert told["samples"] == 4000 and told["with_objects"] >= 0.95 * 4000 and told["broken"] == 0

    own: dict[str, set[str]] = defaultdict(set)
    with open(out, encoding="utf8") as file:
        for line in file:
            row = json.loads(line)
            own[row["image_id"]].add(normalise(row["text"]))
    counts: Counter[str] = Counter()
    with open(out, encoding="utf8") as file:
        for line in file:
            row = json.loads(line)
            for level, rewrites in row["negatives"].items():
                new = {normalise(rewrite["text"]) for rewrite in rewrites}
                assert len(new) == len(rewrites) and not new & own[row["image_id"]], row["text"]
                counts[level] += len(new)
                counts[f"captions with {level}"] += bool(new)
    print(json.dumps({**told, **counts}))
    assert min(counts[f"captions with {level}"] for level in ("sentence", "phrase", "word")) > 0.95 * 4000
