"""Convert released weights: a tower to a folder for `model.text.init` or `model.vision.init`, or a whole
model to a model directory. With --to the other way: a model, or a tower of it, to a folder that transformers
opens."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli  # noqa: E402
from unimo.errors import ConfigError  # noqa: E402
from unimo.inference.release import convert, sources  # noqa: E402
from unimo.inference.to_transformers import targets, write_transformers  # noqa: E402

EXAMPLE = """python tools/convert_checkpoint.py --input roberta-base --out weights/roberta_base
  bash scripts/run_pretrain.sh unimo3_base model.text.init=weights/roberta_base
  (a folder as it is at huggingface.co, or a file of safetensors or PyTorch; no code in it is run)

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
    """Parse the command line."""
    parser = cli.arguments(__doc__, EXAMPLE)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--from", dest="source", choices=sources(), help="kind of weights, if not recognised")
    kind.add_argument("--to", choices=targets(), help="write a model, or a tower, for transformers")
    parser.add_argument("--input", required=True, metavar="PATH", help="their file, folder or name")
    parser.add_argument("--config", metavar="config.json", help="their config, if not beside the weights")
    parser.add_argument("--tokenizer", metavar="DIR", help="their tokenizer, if not beside them (releases)")
    parser.add_argument("--task", help="what they were trained for, default pretrain (releases)")
    parser.add_argument("--answers", metavar="FILE", help="names of their answers (VQA)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--allow-missing",
        action="append",
        default=[],
        metavar="PATTERN",
        help="tensors that may be missing and then start at random, such as 'pooler.*'; may be repeated",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change the config (releases)")
    given = parser.parse_intermixed_args()
    others = (given.config, given.tokenizer, given.task, given.answers, given.allow_missing, given.overrides)
    if given.to and any(others):
        raise ConfigError(f"--to {given.to} takes --input and --out alone; see --help")
    return given


def main() -> None:
    """Convert a tower, a release or a model, and print what came of it."""
    given = parse_arguments()
    if given.to:
        done = write_transformers(given.to, Path(given.input), given.out)
        print("{}: {class}, {parameters:,} parameters in {tensors} tensors".format(given.out, **done))
        return
    done = convert(
        given.input,
        given.out,
        given.source,
        given.config,
        given.tokenizer,
        given.task,
        given.overrides,
        given.allow_missing,
        given.answers,
    )
    print(done.text())


if __name__ == "__main__":
    cli.run(main)
