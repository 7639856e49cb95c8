"""Jobs that are killed at any moment and started again, each in its own process."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import small_run

from unimo import cli
from unimo.augment.corpus import CaptionCorpus
from unimo.augment.output import Job
from unimo.augment.retrieval_job import RetrievalSettings, retrieve_texts
from unimo.config import merge_into
from unimo.data.prepare.jsonl import prepare_jsonl
from unimo.data.scenes.dataset import encode
from unimo.data.scenes.scene import make_scene, render
from unimo.inference.search import build
from unimo.inference.search.encoder import Encoder
from unimo.jobs import Shard
from unimo.progress import Progress
from unimo.weights.huggingface import convert_tower

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def train(output: Path, changes: dict[str, Any]) -> None:
    """Train the small run, or go on with it."""
    small_run.train(merge_into(small_run.make_run(output), changes))


def train_as_tool(output: Path, changes: dict[str, Any], begun: Path) -> None:
    """Train the small run, or go on with it, and end the process with the code of a tool."""

    def main() -> int:
        begun.touch()
        run = merge_into(small_run.make_run(output), changes)
        return cli.code_after(small_run.train(run).stop_reason)

    cli.run(main)


def as_tool(name: str, corpus: Path, out: Path, begun: Path) -> None:
    """Do a job as a tool does."""

    def main() -> None:
        begun.touch()
        JOBS[name](corpus, out)

    cli.run(main)


def make_corpus(folder: Path, size: int = 150) -> Path:
    """Pictures with captions, and sentences."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    words = "red blue dog cat hill lake on under runs sits a the".split()
    lines = []
    for number in range(size):
        (folder / f"{number}.bmp").write_bytes(encode(render(make_scene(np.random.default_rng(number)))))
        text = " ".join(rng.choice(words, 6))
        lines.append(json.dumps({"image": f"{number}.bmp", "text": text, "split": "train"}))
    (folder / "mine.jsonl").write_text("\n".join(lines))
    sentences = {" ".join(rng.choice(words, 7)) for _ in range(9000)}
    (folder / "sentences.txt").write_text("\n".join(sorted(sentences)))
    return folder


def prepare(corpus: Path, out: Path) -> None:
    """Write Arrow tables."""
    prepare_jsonl(corpus / "mine.jsonl", out)


def convert(corpus: Path, out: Path) -> None:
    """Convert a tower."""
    source = ASSETS / "hf_roberta_tiny"
    convert_tower("hf-roberta", source / "model.safetensors", source / "config.json", out)


def letters(texts: list[str]) -> np.ndarray:
    """Embed texts by their letters."""
    return np.array([[text.count(chr(97 + at)) for at in range(26)] for text in texts], float)


silent = functools.partial(Progress, quiet=True)


def retrieve(corpus: Path, out: Path) -> None:
    """Index, embed and search sentences."""
    pairs = CaptionCorpus(str(corpus / "mine.jsonl"), split="train")
    sentences = CaptionCorpus(str(corpus / "sentences.txt"))
    job = Job(pairs, out / "texts.jsonl", out / "index", Shard(), silent)
    settings = RetrievalSettings(candidates=50, keep=5, embedder="killed_jobs:letters")
    retrieve_texts(job, sentences, settings)


def index(directory: Path, folder: Path, images: int) -> None:
    """Build an index of drawn pictures, or add to it; parts of one batch, lists from 300 vectors on."""
    build.SECONDS_OF_PART = 0
    build.prepare = functools.partial(build.prepare, most_flat=300)
    corpus = build.Corpus("scenes", "pairs", "train", images)
    build.build_index(Encoder.open(directory), corpus, folder, batch_size=16)


JOBS = {"prepare": prepare, "convert": convert, "retrieve": retrieve}
DIFFERENT = ("index.sqlite", "digests.sha256")
"""Files whose bytes depend on where a job was interrupted, as SQLite's pages do."""


def content(folder: Path) -> dict[str, bytes]:
    """Files of a folder by name, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in DIFFERENT
    }
