"""Train the region detector on COCO-format annotations, or on the built-in `scenes`."""

import argparse
import functools
import json
import logging
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the clone, and not this folder

from unimo.cli import arguments, code_after, is_main_rank, number, run  # noqa: E402 - works from a clone that is not installed
from unimo.progress import tracked  # noqa: E402
from unimo.ranges import NonNegative  # noqa: E402

EXAMPLE = """python ppdet_features/train_detector.py --config ppdet_features/configs/scenes_tiny.yaml \\
    --scenes --out output/detector --minutes 20"""
SCENES_TRAIN, SCENES_VAL = 20000, 500


def main(words: list[str] | None = None) -> int:
    """Train a detector, or resume a stopped run; then evaluate and write it."""
    parser = arguments(__doc__, EXAMPLE)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. Training.steps=5000")
    parser.add_argument("--config", required=True, help="YAML file of the detector")
    parser.add_argument("--out", required=True, help="folder to write; a run stopped there is resumed")
    parser.add_argument("--annotations", help="COCO JSON to train on; objects may have attribute_ids")
    parser.add_argument("--images", help="folder of its images (that of the JSON)")
    parser.add_argument("--val-annotations", help="COCO JSON to evaluate on at the end")
    parser.add_argument("--val-images", help="folder of its images (that of --images)")
    parser.add_argument(
        "--scenes", action="store_true", help="the built-in drawn shapes; 500 held-out scenes"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--init", help="detector to start from: .safetensors, .pdparams; may have other classes"
    )
    start.add_argument("--backbone", help="ImageNet ResNet to start from, in PaddleDetection's names")
    parser.add_argument("--minutes", type=number(NonNegative), help="end training then, in this process")
    parser.add_argument("--quiet", action="store_true", help="log no losses")
    args = parser.parse_args(words)
    # Paddle is slow to import; --help does without it.
    from ppdet_features.config import load_config
    from ppdet_features.training import train
    from unimo.config import parse_overrides

    logging.getLogger("ppdet_features").setLevel(logging.INFO if is_main_rank() else logging.WARNING)
    config = load_config(args.config, parse_overrides(args.overrides))
    images, held_out = _open_images(args, config)
    metrics = train(
        config,
        images,
        Path(args.out),
        init=args.init,
        backbone=args.backbone,
        held_out=held_out,
        minutes=args.minutes,
        quiet=args.quiet,
        progress=functools.partial(tracked, what="evaluation", unit="images"),
    )
    reason = metrics.get("stopped_by", "")
    if is_main_rank():
        if reason:
            message = f"stopped by {reason} at step {metrics['step']} of {config.train.steps} and saved"
            print(f"{message}; the same command resumes training", file=sys.stderr)
        print(json.dumps(metrics))
    return code_after(reason)


def _open_images(args: argparse.Namespace, config: object) -> tuple[object, object]:
    """Images to train on, and held-out ones or None."""
    from ppdet_features.annotated_images import CocoImages, ScenesImages
    from unimo.errors import ConfigError

    if args.scenes == bool(args.annotations):
        raise ConfigError("give either --annotations FILE --images DIR, or --scenes")
    if args.scenes:
        return ScenesImages("train", SCENES_TRAIN, config), ScenesImages("val", SCENES_VAL, config)
    train = CocoImages(args.annotations, args.images or Path(args.annotations).parent, config)
    if not args.val_annotations:
        return train, None
    return train, CocoImages(args.val_annotations, args.val_images or args.images, config)


if __name__ == "__main__":
    run(main)
