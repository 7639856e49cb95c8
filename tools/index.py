"""Search among many images, or texts: build an index, add to it, search it, check it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402
from unimo.ranges import Count, Size  # noqa: E402

EXAMPLES = """python tools/index.py build --model output/vlmo_tiny_pretrain --images photos --out output/index
  python tools/index.py search output/index "a red circle left of a square" --html output/found.html
  python tools/index.py search output/index --image query.png --count 20 --json
  python tools/index.py add output/index --images more_photos
  python tools/index.py build --model output/vlmo_tiny_pretrain --texts captions.txt --out output/texts
  python tools/index.py check output/index"""


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    corpus = parser.add_mutually_exclusive_group(required=True)
    corpus.add_argument("--images", help="folder of images, Arrow, tar, jsonl, or `scenes`")
    corpus.add_argument("--texts", help="file of a text a line, Arrow, tar, jsonl, or `scenes`")
    parser.add_argument("--kind", choices=("images", "texts", "pairs", "labels", "nlvr2"), help="of samples")
    parser.add_argument("--split", default="all", help="train, val, ..., train+val, or all (the default)")
    parser.add_argument("--scenes-images", type=cli.number(Size), metavar="N", help="of a split of `scenes`")
    parser.add_argument("--batch-size", type=cli.number(Size), default=32, help="encoded at once (32)")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.arguments(__doc__, EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="build|add|search|check")
    build = cli.add_command(commands, "build", "encode images or texts; run again, it goes on", EXAMPLES)
    build.add_argument("--model", required=True, help="model directory with a dual encoder")
    build.add_argument("--out", dest="index", required=True, metavar="INDEX", help="folder to write")
    _add_corpus(build)
    add = cli.add_command(commands, "add", "add to an index; what is there stays", EXAMPLES)
    add.add_argument("index", metavar="INDEX")
    add.add_argument("--model", help="where its model is now (default: where it was)")
    _add_corpus(add)
    search = cli.add_command(commands, "search", "find what is nearest to texts or images", EXAMPLES)
    search.add_argument("index", metavar="INDEX")
    search.add_argument("texts", nargs="*", metavar="TEXT", help="text queries")
    search.add_argument("--image", action="append", type=Path, default=[], metavar="FILE", help="image query")
    search.add_argument("--model", help="where its model is now (default: where it was)")
    search.add_argument("--count", type=cli.number(Size), default=10, metavar="K", help="results (10)")
    search.add_argument("--rerank", type=cli.number(Count), default=0, metavar="N", help="by fusion (0)")
    search.add_argument("--recall", action="store_true", help="compare with a search of all vectors")
    search.add_argument("--json", action="store_true", help="print a JSON line a query")
    search.add_argument("--html", type=Path, metavar="FILE", help="write a page of thumbnails")
    check = cli.add_command(commands, "check", "compare all files with their checksums", EXAMPLES)
    check.add_argument("index", metavar="INDEX")
    return parser.parse_args()


def main() -> None:
    """Run the command that the command line names."""
    options = parse()
    {"build": grow, "add": grow, "search": search, "check": check}[options.command](options)


def check(options: argparse.Namespace) -> None:
    """Compare the files of an index with their checksums."""
    from unimo.inference.search.store import open_store

    store = open_store(options.index)
    store.check_all()
    print(f"{options.index}: {store.state.rows:,} vectors in {len(store.state.parts)} parts, all sound")


def grow(options: argparse.Namespace) -> None:
    """Build an index, or add to one."""
    from unimo.inference.search.build import Corpus, build_index
    from unimo.inference.search.encoder import Encoder
    from unimo.inference.search.store import model_of

    directory = options.model or model_of(options.index)
    holds, path = ("images", options.images) if options.images else ("texts", options.texts)
    corpus = Corpus(path, options.kind or holds, options.split, options.scenes_images, holds)
    done = build_index(Encoder.open(directory), corpus, options.index, options.batch_size)
    broken = f", {done.broken:,} could not be read" if done.broken else ""
    print(f"{options.index}: {done.added:,} {holds} added, {done.known:,} known{broken}; {done.rows:,} now")
    query = '"a text"' if options.images else "--image FILE"
    print(f"Next:\n  python tools/index.py search {options.index} {query} --html {options.index}.html")


def search(options: argparse.Namespace) -> None:
    """Print what was found, and write it as a page if asked to."""
    from unimo.inference.search.encoder import Encoder
    from unimo.inference.search.searcher import Searcher
    from unimo.inference.search.store import model_of

    directory = options.model or model_of(options.index)
    searcher = Searcher(options.index, Encoder.open(directory, options.rerank))
    queries = [*options.texts, *options.image]
    results = searcher.search(queries, options.count, options.rerank)
    for query, hits in zip(queries, results, strict=True):
        if options.json:
            print(json.dumps({"query": str(query), "hits": [hit.as_dict() for hit in hits]}))
        else:
            print(f"{query}:", *(f"{place:4}  {hit}" for place, hit in enumerate(hits, 1)), sep="\n")
    if options.recall:
        share = searcher.recall(queries)
        print(f"recall@10 against all vectors: {share:.3f} ({searcher.nearest.name})", file=sys.stderr)
    if options.html:
        from unimo.analysis.search_page import write_page

        write_page(options.html, searcher, queries, results)
        print(f"page: {options.html}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
