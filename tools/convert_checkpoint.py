"""Convert weights of others: a tower into a folder for `model.text.init` or `model.vision.init`, or a whole
released model into a model directory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml  # noqa: E402

from unimo import cli  # noqa: E402
from unimo.errors import CheckpointError, ConfigError  # noqa: E402
from unimo.files import read_json_object, write_text  # noqa: E402
from unimo.inference.release import convert_release, releases  # noqa: E402
from unimo.weights.files import read_safetensors, write_safetensors  # noqa: E402
from unimo.weights.huggingface import SOURCES, from_hf, read_sizes  # noqa: E402

EXAMPLE = """python tools/convert_checkpoint.py --from hf-roberta --input roberta-base/model.safetensors \\
      --config roberta-base/config.json --out weights/roberta_base
  bash scripts/run_pretrain.sh unimo3_base model.text.init=weights/roberta_base
  (both input files are on the model's page at huggingface.co)

  python tools/convert_checkpoint.py --from unimo2-release --input UNIMO-2 --tokenizer unimo_en \\
      --out weights/unimo2
  python tools/finetune.py --task retrieval --init weights/unimo2
  (the folder is what UNIMO-2.tar.gz unpacks to, one file for each parameter)

  python tools/convert_checkpoint.py --from unimo-release --input unimo_base_en --tokenizer unimo_en \\
      --out weights/unimo data.regions=features/coco
  (what their fine-tuning saved: --task retrieval | entailment | caption | seq2seq | text_classification)"""


def parse_arguments() -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: `--config` or `--tokenizer` is missing, or there where it means nothing.
    """
    parser = cli.arguments(__doc__, EXAMPLE)
    sources = sorted({**SOURCES, **releases()})
    parser.add_argument("--from", dest="source", required=True, choices=sources, help="kind of weights")
    parser.add_argument("--input", required=True, type=Path, metavar="FILE", help="their weights, or folder")
    parser.add_argument("--config", type=Path, metavar="config.json", help="their config (towers)")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="their tokenizer (releases)")
    parser.add_argument("--task", default="pretrain", help="what they were trained for (releases)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change the config (releases)")
    arguments = parser.parse_intermixed_args()
    wanted, other = ("tokenizer", "config") if arguments.source in releases() else ("config", "tokenizer")
    if getattr(arguments, wanted) is None or getattr(arguments, other) is not None:
        raise ConfigError(f"--from {arguments.source} needs --{wanted} and no --{other}; see --help")
    if wanted == "config" and (arguments.overrides or arguments.task != "pretrain"):
        raise ConfigError(
            f"--from {arguments.source} makes a tower, which has no task and no config to change"
        )
    return arguments


def convert_tower(arguments: argparse.Namespace) -> None:
    """Read, rename, write; the folder is made only when everything fits."""
    source = SOURCES[arguments.source]
    sizes = read_sizes(source, read_json_object(arguments.config, ConfigError))
    tensors = from_hf(source, read_safetensors(arguments.input), sizes)
    config = {"tower": source.tower, "source": arguments.source, **sizes}
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_text(arguments.out / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    except OSError as error:
        raise CheckpointError(f"cannot write into {arguments.out}: {error.strerror}") from error
    write_safetensors(arguments.out / "model.safetensors", tensors)
    count = sum(tensor.size for tensor in tensors.values())
    print(f"{arguments.out}: {source.tower} tower, {count:,} parameters in {len(tensors)} tensors")


def main() -> None:
    """Convert a tower or a release, and say how much was written."""
    arguments = parse_arguments()
    if arguments.source in SOURCES:
        convert_tower(arguments)
        return
    given = (arguments.input, arguments.tokenizer, arguments.out, arguments.task, arguments.overrides)
    done = convert_release(arguments.source, *given)
    print(f"{arguments.out}: model, {done['parameters']:,} released parameters in {done['tensors']} tensors")


if __name__ == "__main__":
    cli.run(main)
