"""List, show and fetch released weights that are opened by name, and publish one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unimo import cli
from unimo.weights.cards import get_card, home
from unimo.weights.tables import card_text, cards_table

EXAMPLE = """python tools/weights.py list
  python tools/weights.py show roberta-base
  python tools/weights.py fetch roberta-base clip-vit-base-patch16
  bash scripts/run_pretrain.sh unimo3_base model.text.init=roberta-base data.tokenizer=roberta-base
  python tools/weights.py push output/unimo3_base_vqa/model OWNER/NAME

They are kept in UNIMO_HOME, or ~/.cache/unimo: files of others in released/NAME, where those without an
address are put by hand, and what is made of them in converted/NAME."""


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.arguments(__doc__, EXAMPLE)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | show | fetch | push")
    commands.add_parser("list", help="all of them, and which are here")
    show = commands.add_parser("show", help="one, with its sources, licence and scores")
    show.add_argument("names", nargs="+", metavar="NAME", help="name, or repository at the Hugging Face hub")
    fetch = commands.add_parser("fetch", help="download, check and convert, unless that was done before")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="name, or repository at the Hugging Face hub")
    fetch.add_argument("--again", action="store_true", help="anew; the old ones stay until that succeeded")
    push = commands.add_parser("push", help="upload a model directory or an export to the Hugging Face hub")
    push.add_argument(
        "model", metavar="DIR", help="model directory, run folder, or folder of tools/export.py"
    )
    push.add_argument("repository", metavar="OWNER/NAME", help="repository of models, which exists")
    return parser.parse_args()


def main() -> None:
    """List, show, fetch or push."""
    arguments = parse_arguments()
    if arguments.command == "push":
        from unimo.inference.publish import push

        print(push(arguments.model, arguments.repository))
        return
    if arguments.command == "list":
        print(f"{cards_table()}\n\nin {home()}; released/NAME takes files that have no address")
        return
    chosen = [get_card(name) for name in arguments.names]
    if arguments.command == "show":
        print("\n\n".join(map(card_text, chosen)))
        return
    from unimo.inference.release import fetch_card

    for card in chosen:
        print(f"{card.name}: {fetch_card(card, arguments.again)}")


if __name__ == "__main__":
    cli.run(main)
