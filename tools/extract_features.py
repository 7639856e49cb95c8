"""Region features of images: extract them, draw them, convert them from and to the released TSV format."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402 - works from a clone that is not installed
from unimo.progress import Progress  # noqa: E402
from unimo.ranges import Share, Size, Threads  # noqa: E402

COMMANDS = ("extract", "draw", "to-tsv", "from-tsv")
EXAMPLES = """\
python tools/extract_features.py --images photos --detector bottom_up/config.yaml --weights bottom_up/model.safetensors --out regions
  python tools/extract_features.py --images scenes --kind pairs --split val --scenes-images 500 --detector DIR/config.yaml --weights DIR/model.safetensors --out regions/val
  python tools/extract_features.py --draw photo.jpg --detector ... --weights ... --out pictures
  python tools/extract_features.py draw regions photo.jpg photo_regions.png
  python tools/extract_features.py to-tsv regions regions.tsv --stems
  python tools/extract_features.py from-tsv flickr30k.tsv regions --order height-width
"""  # noqa: E501 - a command to copy stays on one line


def main(words: list[str]) -> None:
    """Run one command; without a name it is `extract`."""
    named = words[:1] and (words[0] in COMMANDS or words[0] in ("-h", "--help"))
    args = _parser().parse_args(words if named else ["extract", *words])
    if not cli.is_main_rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - results are printed once
    from ppdet_features import jobs

    progress = functools.partial(Progress, "images", unit="images", quiet=args.quiet)
    calls = dict(zip(COMMANDS, (jobs.extract, jobs.draw, jobs.to_tsv, jobs.from_tsv), strict=True))
    calls[args.command](args, progress)


def _parser() -> argparse.ArgumentParser:
    about = """Region features of images by a detector. Run the same command again to continue a killed job.
Without the name of a command: extract (extract -h shows its options)."""
    parser = cli.arguments(about, EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    extract = _command(commands, "extract", "detect the regions of images and store their features")
    extract("--images", help="folder of images, Arrow, tar, jsonl, or `scenes`")
    extract("--kind", choices=("images", "pairs", "labels", "nlvr2"), default="images", help="of corpus")
    extract("--split", default="all", help="train, val, ..., train+val, or all (the default)")
    extract("--scenes-images", type=cli.number(Size), metavar="N", help="size of a split of `scenes`")
    extract("--detector", required=True, help="YAML file of the detector")
    extract("--weights", required=True, help="its weights")
    extract("--out", required=True, help="folder to write")
    extract("--draw", metavar="N|FILE", help="draw the first N images, or one image file")
    extract("--batch-size", type=cli.number(Size), default=8, help="images of equal size at once (8)")
    extract("--look-ahead", type=cli.number(Size), default=64, help="decoded images in memory (64)")
    extract("--workers", dest="num_workers", type=cli.number(Threads), default=2, help="decoding threads (2)")
    extract("--label-score", type=cli.number(Share), default=0.2, help="smallest in labels.jsonl (0.2)")

    draw = _command(commands, "draw", "draw the stored regions of an image")
    draw("store", help="folder that extract wrote")
    draw("picture", help="image file; found in the store by its path or its name")
    draw("png", help="image to write")

    to_tsv = _command(commands, "to-tsv", "write a store as a TSV file of the released format")
    to_tsv("store", help="folder that extract wrote")
    to_tsv("tsv", help="file to write")
    to_tsv("--stems", action="store_true", help="name images 17 instead of flickr/17.jpg")

    from_tsv = _command(commands, "from-tsv", "make a store of a TSV file of the released format")
    from_tsv("tsv", help="file to read")
    from_tsv("store", help="folder to write")
    from_tsv("--classes", help="file with one class name a line")
    places = ("none", "first", "last")
    from_tsv("--background", choices=places, default="none", help="its column, to drop")
    orders = ("width-height", "height-width")
    columns = "columns 2 and 3; the released dev and test readers take height first"
    for add in (to_tsv, from_tsv):
        add("--order", choices=orders, default=orders[0], help=columns)
    for add in (extract, from_tsv):
        add("--images-per-shard", type=cli.number(Size), default=256, help="images of a file (256)")
        add("--max-bad-rate", type=cli.number(Share), default=0.01, help="share that may be skipped (0.01)")
    return parser


def _command(commands: argparse._SubParsersAction, name: str, what: str) -> Callable[..., argparse.Action]:
    """Add a command whose help has all examples; return the function that adds its options."""
    shown = cli.arguments(what, EXAMPLES)
    parser = commands.add_parser(
        name, help=what, description=what, epilog=shown.epilog, formatter_class=shown.formatter_class
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.add_argument


if __name__ == "__main__":
    cli.run(functools.partial(main, sys.argv[1:]))
