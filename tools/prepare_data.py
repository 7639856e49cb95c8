"""Turn data sets into Arrow tables; `python tools/prepare_data.py --help` lists the commands."""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo.cli import add_command, arguments, number, run  # noqa: E402 - works from a clone that is not installed
from unimo.data.prepare.jsonl import prepare_jsonl  # noqa: E402
from unimo.data.prepare.karpathy import prepare_karpathy  # noqa: E402
from unimo.data.prepare.nlvr2 import prepare_nlvr2  # noqa: E402
from unimo.data.prepare.scenes import KINDS, prepare_scenes  # noqa: E402
from unimo.data.prepare.snli_ve import prepare_snli_ve  # noqa: E402
from unimo.data.prepare.vqa import prepare_vqa  # noqa: E402
from unimo.progress import tracked  # noqa: E402
from unimo.ranges import Count, Share, Size  # noqa: E402

EXAMPLES = """\
python tools/prepare_data.py karpathy --annotations dataset_flickr8k.json --images images --out data/f8k
  python tools/prepare_data.py karpathy --annotations dataset_coco.json --images coco --out data/coco
  python tools/prepare_data.py vqa --annotations vqav2 --images coco --out data/vqa
  python tools/prepare_data.py snli-ve --annotations snli_ve --images flickr30k-images --out data/snli_ve
  python tools/prepare_data.py nlvr2 --annotations nlvr2/data --images nlvr2-images --out data/nlvr2
  python tools/prepare_data.py jsonl --input my.jsonl --kind pairs --out data/mine
  python tools/prepare_data.py scenes --out pictures"""


def main(words: list[str] | None = None) -> None:
    """Prepare one data set and print its counts as JSON."""
    args = vars(_parser().parse_args(words))
    prepare: Callable[..., dict] = args.pop("prepare")
    progress = functools.partial(tracked, unit="images")
    print(json.dumps(prepare(**args, progress=progress), indent=2, ensure_ascii=False))


def _parser() -> argparse.ArgumentParser:
    about = "Turn data sets into Arrow tables in the column layout of ViLT, METER and VLMo."
    parser = arguments(about, EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="karpathy|vqa|snli-ve|nlvr2|jsonl|scenes")

    add = _command(commands, "karpathy", prepare_karpathy, "Flickr8k, Flickr30k or COCO captions")
    add("--annotations", required=True, help="Karpathy JSON, e.g. dataset_flickr8k.json")
    add("--images", required=True, help="folder of the images (COCO: with train2014, val2014)")
    add("--name", default="", help="first part of the file names; from the JSON if not given")
    add("--rows-per-file", type=number(Count), default=0, help="images of one file; 0: all (default)")

    add = _command(commands, "vqa", prepare_vqa, "VQA v2")
    add("--annotations", required=True, help="folder of the v2_*_questions.json and *_annotations.json")
    add("--images", required=True, help="folder with train2014, val2014 and, for test, test2015")
    answers = "annotators' answers as they are (ViLT, METER) or normalised first (BridgeTower; files *_fix)"
    add("--variant", choices=("raw", "normalised"), default="raw", help=answers)
    add("--min-count", type=number(Size), default=9, help="smallest count of an answer class (default 9)")
    add("--rest-images", type=number(Count), default=1000, help="images of rest_val (default 1000)")

    add = _command(commands, "snli-ve", prepare_snli_ve, "SNLI-VE")
    add("--annotations", required=True, help="folder of snli_ve_{train,dev,test}.jsonl")
    add("--images", required=True, help="folder of the Flickr30k images")

    add = _command(commands, "nlvr2", prepare_nlvr2, "NLVR2")
    add("--annotations", required=True, help="folder of train.json, dev.json, test1.json")
    add("--images", required=True, help="folder with train/<directory>, dev and test1")

    add = _command(commands, "jsonl", prepare_jsonl, "your own images and texts (see docs/guides/data.md)")
    add("--input", required=True, dest="source", help="jsonl file, or folder of train.jsonl, val.jsonl")
    add("--images", help="folder that image paths are relative to; default: the jsonl file's")
    add("--kind", choices=KINDS, default="pairs")
    add("--name", default="own", help="first part of the file names")
    add("--min-count", type=number(Size), default=1, help="VQA: smallest count of an answer class")

    what = "pictures of the built-in corpus as files, to try what is meant for yours"
    drawn = add_command(commands, "scenes", what, EXAMPLES)
    drawn.set_defaults(prepare=prepare_scenes)
    drawn.add_argument("--out", required=True, help="folder to write to")
    drawn.add_argument("--kind", choices=KINDS, default="pairs")
    drawn.add_argument("--count", type=number(Size), default=100, help="pictures (default 100)")
    return parser


def _command(
    commands: argparse._SubParsersAction, name: str, prepare: Callable[..., dict], what: str
) -> Callable[..., argparse.Action]:
    """Add a command with the options that all have; return the function that adds further ones."""
    parser = add_command(commands, name, what, EXAMPLES)
    parser.set_defaults(prepare=prepare)
    parser.add_argument("--out", required=True, help="folder to write to")
    give_up = "share of missing or broken images (jsonl: samples) at which to give up (default 0.01)"
    parser.add_argument("--max-missing-rate", type=number(Share), default=0.01, help=give_up)
    return parser.add_argument


if __name__ == "__main__":
    run(main)
