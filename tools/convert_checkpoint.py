"""Convert released weights: a tower to a folder for `model.text.init` or `model.vision.init`, or a whole
model to a model directory. With --to the other way: a model, or a tower of it, to a folder that transformers
opens."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402
from unimo.errors import ConfigError  # noqa: E402
from unimo.inference.release import convert_release, releases  # noqa: E402
from unimo.inference.to_transformers import targets, write_transformers  # noqa: E402
from unimo.weights.huggingface import SOURCES, convert_tower  # noqa: E402
from unimo.weights.zoo import LIBRARIES, convert_zoo, paddleclas_file  # noqa: E402

EXAMPLE = """python tools/convert_checkpoint.py --from hf-roberta --input roberta-base/model.safetensors \\
      --config roberta-base/config.json --out weights/roberta_base
  bash scripts/run_pretrain.sh unimo3_base model.text.init=weights/roberta_base
  (both input files are on the model's page at huggingface.co)

  python tools/convert_checkpoint.py --from unimo2-release --input UNIMO-2 --tokenizer unimo_en \\
      --out weights/unimo2
  python tools/finetune.py --task retrieval --init weights/unimo2
  (the folder is what UNIMO-2.tar.gz unpacks to, one file for each parameter; heads of another width than 64:
  --config grounded_base_en.json, another K: model.grounding.num_tokens=K)

  python tools/convert_checkpoint.py --from unimo-release --input unimo_base_en --tokenizer unimo_en \\
      --out weights/unimo data.regions=features/coco
  (what their fine-tuning saved: --task retrieval | entailment | caption | seq2seq | text_classification)

  python tools/convert_checkpoint.py --from unilm-beit --input beit_base.safetensors \\
      --tokenizer bert-base-uncased --out weights/beit
  bash scripts/run_pretrain.sh vlmo_base task.stages=all init_from=weights/beit
  (--from hf-beit for the files at huggingface.co; the tokenizer is that of the texts to come)

  python tools/convert_checkpoint.py --from paddlenlp --input roberta-base --out weights/roberta-base
  python tools/convert_checkpoint.py --from paddleclas --input CLIP_vit_base_patch16_224 --out weights/clip
  (names of these libraries, of the extra zoo; or a folder, or a .pdparams, that they wrote)

  python tools/convert_checkpoint.py --input output/bridgetower_base_vqa --to hf-bridgetower --out hf"""


def parse_arguments() -> argparse.Namespace:
    """Parse the command line.

    Raises:
        ConfigError: `--config` (towers) or `--tokenizer` is missing, or given where it has no meaning.
    """
    parser = cli.arguments(__doc__, EXAMPLE)
    sources = sorted({**SOURCES, **LIBRARIES, **releases()})
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--from", dest="source", choices=sources, help="kind of weights")
    kind.add_argument("--to", choices=targets(), help="write a model, or a tower, for transformers")
    parser.add_argument(
        "--input", required=True, type=Path, metavar="FILE", help="their file, folder or name"
    )
    parser.add_argument("--config", type=Path, metavar="config.json", help="their config; releases need none")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="their tokenizer (releases)")
    parser.add_argument("--task", default="pretrain", help="what they were trained for (releases)")
    parser.add_argument("--answers", metavar="FILE", help="names of their answers (VQA)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change the config (releases)")
    arguments = parser.parse_intermixed_args()
    if arguments.to:
        if arguments.config or arguments.tokenizer or arguments.overrides or arguments.task != "pretrain":
            raise ConfigError(f"--to {arguments.to} takes --input and --out alone; see --help")
        return arguments
    is_release = arguments.source in releases()
    if is_release and arguments.tokenizer is None:
        raise ConfigError(f"--from {arguments.source} needs --tokenizer; see --help")
    wants_config = arguments.source in SOURCES
    if not is_release and ((arguments.config is not None) != wants_config or arguments.tokenizer is not None):
        needs = "needs --config and no" if wants_config else "takes no --config and no"
        raise ConfigError(f"--from {arguments.source} {needs} --tokenizer; see --help")
    if not is_release and (arguments.overrides or arguments.answers or arguments.task != "pretrain"):
        raise ConfigError(
            f"--from {arguments.source} makes a tower, which has no task and no config to change"
        )
    return arguments


def tell(folder: Path, tower: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Print what a folder of a tower has."""
    count = sum(tensor.size for tensor in tensors.values())
    print(f"{folder}: {tower} tower, {count:,} parameters in {len(tensors)} tensors")


def main() -> None:
    """Convert a tower, a release or a model, and print the number of parameters."""
    arguments = parse_arguments()
    if arguments.to:
        done = write_transformers(arguments.to, arguments.input, arguments.out)
        print("{}: {class}, {parameters:,} parameters in {tensors} tensors".format(arguments.out, **done))
        return
    if arguments.source in SOURCES:
        tensors = convert_tower(arguments.source, arguments.input, arguments.config, arguments.out)
        tell(arguments.out, SOURCES[arguments.source].tower, tensors)
        return
    if arguments.source in LIBRARIES:
        tell(arguments.out, *convert_zoo(arguments.source, str(arguments.input), arguments.out))
        return
    if arguments.source == "paddleclas-beit":
        arguments.input = paddleclas_file(str(arguments.input))
    given = (arguments.input, arguments.tokenizer, arguments.out, arguments.task, arguments.overrides)
    done = convert_release(arguments.source, *given, arguments.config, arguments.answers)
    print(f"{arguments.out}: model, {done['parameters']:,} released parameters in {done['tensors']} tensors")


if __name__ == "__main__":
    cli.run(main)
