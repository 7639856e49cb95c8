"""`augment_corpus.py rewrite`: positives and hard negatives of every caption of a corpus."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimo.augment.corpus import Caption, CaptionCorpus
from unimo.augment.index import Entry, TfidfIndex, build_index
from unimo.augment.ngram import TrigramModel
from unimo.augment.output import Job, Line, describe_files, one_at_a_time
from unimo.augment.parsers import open_parser
from unimo.augment.rewriting import Rewriter
from unimo.augment.statistics import CorpusStatistics
from unimo.augment.terms import normalise, terms_of
from unimo.augment.translation import (
    FileTranslations,
    HttpTranslator,
    LocalTranslator,
    Translator,
    is_address,
)
from unimo.config import check_fields
from unimo.errors import DataError
from unimo.files import checked_path
from unimo.progress import Progress
from unimo.ranges import Count, Seed, Size


@dataclass(frozen=True)
class RewriteSettings:
    """Settings of rewriting.

    Raises:
        ConfigError: a number outside its range.
    """

    parser: str = "textblob"
    keep: Size = 100
    """Number of word and phrase rewrites of a caption, and of sentences of other images."""
    neighbours: Count = 20
    """Number of similar entries tried for each node."""
    min_count: Size = 3
    """Smallest count of an entry of the vocabulary."""
    seed: Seed = 0
    translator: str = ""
    """An http address, a folder of models, or a jsonl file of translations; empty for no positives."""
    memory_mb: Size = 1000
    """Memory for counts and caches; the programs need about 300 MB more."""

    def __post_init__(self) -> None:
        check_fields(self)


def rewrite_corpus(job: Job, settings: RewriteSettings) -> dict[str, Any]:
    """Write one line for each caption of the shard; see docs/reference/augment.md for its keys.

    Returns counts of captions, of those with an object, and of broken ones.

    Raises:
        ConfigError: a file or folder cannot be written.
        DataError: too few readable captions, files of another corpus or other settings, or a translator that
            does not answer.
    """
    job.check()
    corpus, work = job.captions, job.folder
    parse = open_parser(settings.parser)
    about = {"corpus": corpus.fingerprint(), "parser": settings.parser, "memory_mb": settings.memory_mb}
    statistics = CorpusStatistics(settings.memory_mb)
    with one_at_a_time(work):
        translate = _open_translator(settings, work)
        with job.progress("counting", len(corpus)) as bar:
            statistics.collect(corpus, parse, work / "statistics.npz", about, bar.update)
        vocabulary = statistics.entries(
            settings.min_count, settings.neighbours, settings.seed, work / "vocabulary.npz", about
        )
        index = index_captions(corpus, work / "index", settings.memory_mb // 4, job.progress)
    model = TrigramModel(statistics.trigrams)
    rewriter = Rewriter(parse, vocabulary, model, keep=settings.keep, seed=settings.seed)
    about = {"command": "rewrite", **about, **dataclasses.asdict(settings)}
    if settings.translator and not is_address(settings.translator):
        about["translations"] = describe_files(Path(settings.translator))

    def lines_of(captions: Sequence[Caption]) -> Iterator[Line]:
        positives = translate(captions) if translate else [[] for _ in captions]
        for caption, found in zip(captions, positives, strict=True):
            yield rewrite_caption(caption, rewriter, index, settings.keep, found)

    job.write(about, "rewriting", lines_of, together=16)
    return {"samples": statistics.read, "with_objects": statistics.parsed, "broken": statistics.broken}


def rewrite_caption(
    caption: Caption, rewriter: Rewriter, index: TfidfIndex, keep: int, positives: list[dict[str, str]]
) -> dict[str, Any]:
    """Make the line of one caption: positives, and hard negatives by level."""
    others = [text for text in index.texts_of_image(caption.image_id) if text != caption.text]
    own = {normalise(text) for text in (caption.text, *others)}
    positives = [row for row in positives if normalise(row["text"]) not in own]
    # Positives are as true of the image as its other captions.
    others += [row["text"] for row in positives]
    own |= {normalise(text) for text in others}
    negatives: dict[str, list[dict[str, Any]]] = {"sentence": [], "phrase": [], "word": []}
    terms = terms_of(caption.text)
    for hit in index.search(terms, keep, without_image=caption.image_id, without_texts=own):
        negatives["sentence"].append({"id": hit.sample_id, "text": hit.text, "score": hit.score})
    for rewrite in rewriter.rewrite(caption.text, caption.sample_id, others):
        line = {"text": rewrite.text, "changes": rewrite.changes, "fluency": rewrite.fluency}
        negatives[rewrite.level].append(line)
    return {
        "id": caption.sample_id,
        "image_id": caption.image_id,
        "text": caption.text,
        "positives": positives,
        "negatives": negatives,
    }


def index_captions(
    corpus: CaptionCorpus, folder: Path, memory_mb: int, progress: Callable[..., Progress]
) -> TfidfIndex:
    """Build or open the inverted index of a corpus.

    Raises:
        DataError: the folder has the index of another corpus.
    """
    with progress("indexing", len(corpus)) as bar:

        def entries(start: int) -> Iterator[Entry | None]:
            bar.skip(start)
            for caption in map(corpus.get, range(start, len(corpus))):
                bar.update(1)
                yield caption and Entry(
                    caption.sample_id, caption.image_id, caption.text, terms_of(caption.text)
                )

        about = {"corpus": corpus.fingerprint(), "what": "sentences"}
        return build_index(entries, folder, about, memory_mb=memory_mb)


def _open_translator(settings: RewriteSettings, work: Path) -> Translator | None:
    if not settings.translator:
        return None
    if is_address(settings.translator):
        return HttpTranslator(settings.translator)
    if checked_path(settings.translator, DataError, "the translator").is_dir():
        return LocalTranslator(settings.translator, work)
    return FileTranslations(settings.translator, work)
