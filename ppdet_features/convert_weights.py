"""Convert Detectron2 weights of bottom-up attention (array pickle or safetensors) to a detector's folder."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the clone, and not this folder

from unimo.cli import arguments, run  # noqa: E402 - works from a clone that is not installed

EXAMPLE = """python ppdet_features/convert_weights.py --weights faster_rcnn_from_caffe_attr.pkl \\
    --config ppdet_features/configs/bottom_up_r101_c4.yaml --out detectors/bottom_up"""


def main(words: list[str] | None = None) -> None:
    """Convert weights, check them against the config, and write `config.yaml` and `model.safetensors`."""
    parser = arguments(__doc__, EXAMPLE)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. num_attributes=0")
    parser.add_argument("--weights", required=True, help=".pkl as Detectron2 writes it, or .safetensors")
    parser.add_argument("--config", required=True, help="YAML file of the detector")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument(
        "--background",
        choices=("last", "first"),
        default="last",
        help="position of the background among class scores: last (Detectron2) or first (Caffe)",
    )
    args = parser.parse_args(words)
    # Paddle is slow to import; --help does without it.
    from ppdet_features.config import dump_config, load_config
    from ppdet_features.detector import FasterRCNN
    from ppdet_features.weights import convert_detectron2
    from unimo.config import parse_overrides
    from unimo.files import filling, make_folder, write_text
    from unimo.weights.files import read_tensors, write_safetensors
    from unimo.weights.layers import load_into, tensors_of

    output = make_folder(args.out, "--out")
    config = load_config(args.config, parse_overrides(args.overrides))
    detector = FasterRCNN(config)
    tensors = convert_detectron2(read_tensors(args.weights), background_first=args.background == "first")
    load_into(detector, tensors, args.weights)
    with filling(output) as fresh:
        write_safetensors(fresh / "model.safetensors", tensors_of(detector))
        write_text(fresh / "config.yaml", dump_config(config))
    print(f"{output}/config.yaml and model.safetensors: {len(detector.state_dict())} tensors")


if __name__ == "__main__":
    run(main)
