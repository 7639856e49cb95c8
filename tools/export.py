"""Export a model directory for serving without this library, or as plain weights."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.inference.export import FORMATS, TOLERANCE

EXAMPLE = """python tools/export.py --model output/unimo3_tiny_vqa --format onnx --out exported
  python tools/export.py --model output/unimo2_tiny_caption --format paddle-inference --out exported

Exported and live outputs are compared at two sizes; nothing is written where they differ. The folder gets
export.json, which names inputs and outputs, the tokenizer and a card."""


def main() -> None:
    """Export, and print the differences."""
    parser = cli.arguments(__doc__, EXAMPLE)
    parser.add_argument("--model", required=True, metavar="DIR", help="model directory, run folder or name")
    parser.add_argument("--format", required=True, choices=FORMATS, help="safetensors: a model directory")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    options = parser.parse_args()
    from unimo.inference.export.run import export

    for each in export(options.model, options.format, options.out):
        print(f"{each.graph}: {each.shapes}: difference {each.difference:.1e} of {TOLERANCE:g}")
    print(f"{options.out}: {options.format}")


if __name__ == "__main__":
    cli.run(main)
