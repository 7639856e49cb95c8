"""Corpora for contrastive learning: `tools/augment_corpus.py rewrite|retrieve-text|retrieve-images`."""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo.cli import add_command, arguments, is_main_rank, number, run  # noqa: E402
from unimo.jobs import Shard  # noqa: E402 - works from a clone that is not installed
from unimo.progress import Progress  # noqa: E402
from unimo.ranges import Count, Seed, Size  # noqa: E402

DESCRIPTION = """Rewrite captions and retrieve related texts and images for them (UNIMO's CMCL).
Run the same command again to continue a killed job."""
EXAMPLES = """\
python tools/augment_corpus.py rewrite --captions data/f8k --out aug/rewrites.jsonl --work aug/work
  python tools/augment_corpus.py retrieve-text --captions data/f8k --corpus books.txt --out aug/texts.jsonl --work aug/books
  python tools/augment_corpus.py retrieve-images --captions data/f8k --collection labels.jsonl --out aug/images.jsonl --work aug/labels
"""  # noqa: E501 - a command to copy stays on one line
PARSERS = "textblob (default), spacy:PIPELINE or stanford:JARS"


def main(words: list[str] | None = None) -> None:
    """Run one job, or continue a killed one, and print its counts as JSON."""
    args = _parser().parse_args(words)
    # Readers and NumPy are slow to import, and --help does not need them.
    from unimo.augment.corpus import CaptionCorpus
    from unimo.augment.output import Job

    captions = CaptionCorpus(args.captions, args.split, args.kind, "--kind")
    progress = functools.partial(Progress, quiet=args.quiet)
    shard = Shard.parse(args.shard) if args.shard else Shard.of_rank()
    job = Job(captions, shard.file(Path(args.out)), Path(args.work), shard, progress)
    if args.job == "rewrite":
        from unimo.augment.rewrite_job import RewriteSettings, rewrite_corpus

        counts = rewrite_corpus(job, _settings(RewriteSettings, args))
    else:
        from unimo.augment.retrieval_job import RetrievalSettings, retrieve_images, retrieve_texts

        settings = _settings(RetrievalSettings, args)
        if args.job == "retrieve-text":
            corpus = CaptionCorpus(args.corpus, args.corpus_split, args.corpus_kind, "--corpus-kind")
            counts = retrieve_texts(job, corpus, settings)
        else:
            labels = Path(args.collection) if args.collection else captions
            counts = retrieve_images(job, labels, settings)
    if is_main_rank():
        print(json.dumps(counts))


def _settings(kind: type, args: argparse.Namespace) -> object:
    return kind(**{name: getattr(args, name) for name in kind.__dataclass_fields__ if hasattr(args, name)})


def _parser() -> argparse.ArgumentParser:
    parser = arguments(DESCRIPTION, EXAMPLES)
    kinds = "rewrite|retrieve-text|retrieve-images"
    commands = parser.add_subparsers(dest="job", required=True, metavar=kinds)

    add = _command(commands, "rewrite", "positives and hard negatives of every caption")
    translator = "back-translation by an http address, a folder of models, or jsonl"
    add("--translator", default="", help=translator)
    add("--neighbours", type=number(Count), default=20, help="similar entries tried (20)")
    add("--min-count", type=number(Size), default=3, help="smallest count of a replacement (3)")
    add("--seed", type=number(Seed), default=0)
    add("--parser", default="textblob", help=PARSERS)

    add = _command(commands, "retrieve-text", "sentences related to every caption")
    add("--corpus", required=True, help="corpus of sentences to search")
    add("--corpus-split", default="train")
    add("--corpus-kind", choices=("auto", "pairs", "texts"), default="auto")
    add("--candidates", type=number(Size), default=1000, help="hits by TF-IDF to rerank (1000)")
    add("--embedder", default="lsa", help="lsa, or package.module:function of your own")

    add = _command(commands, "retrieve-images", "images with the objects of every caption's image")
    labels = "jsonl of detected labels, or folder of region features; without it, objects of the captions"
    add("--collection", help=labels)
    add("--parser", default="textblob", help=PARSERS)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, what: str) -> Callable[..., argparse.Action]:
    """Add a command with the options that all have; return the function that adds further ones."""
    add = add_command(commands, name, what, EXAMPLES).add_argument
    add("--captions", required=True, help="corpus of the captions: folder, Arrow, jsonl or txt")
    add("--split", default="train", help="split of the captions (train)")
    add("--kind", choices=("auto", "pairs", "texts"), default="auto")
    add("--out", required=True, help="jsonl file to write")
    add("--work", required=True, help="folder of index and statistics, kept for the next run")
    add("--keep", type=number(Size), default=100, help="results of each caption (100)")
    add("--memory-mb", type=number(Size), default=1000, help="memory for counts and caches (1000)")
    add("--shard", default="", help="RANK/OF: every OF-th caption, into OUT-RANK-of-OF")
    add("--quiet", action="store_true", help="no progress")
    return add


if __name__ == "__main__":
    run(main)
