"""Cards of released weights as text: the table of all, and one with everything that is known of it."""

from __future__ import annotations

from dataclasses import fields

from unimo.weights.cards import Card, cards
from unimo.weights.named import is_converted, released_folder, use


def cards_table() -> str:
    """Return a table of all cards in Markdown, and which are here."""
    cells = (
        (f"`{card.name}`", card.title, card.part, _millions(card), card.licence, _state(card))
        for card in cards().values()
    )
    rows = [f"| {' | '.join(each)} |" for each in cells]
    head = "| name | what | part | parameters | licence | here |"
    return "\n".join([head, "|---" * 6 + "|", *rows])


def card_text(card: Card) -> str:
    """Return what is known of a card, a fact a line, and how it is used."""
    lines = [f"{card.name}: {card.title}"]
    for each in fields(card):
        value = getattr(card, each.name)
        if each.name in ("name", "title") or not value:
            continue
        if isinstance(value, dict):
            lines += [f"  {each.name}: {key}: {known}" for key, known in value.items()]
        else:
            lines.append(f"  {each.name}: {', '.join(value) if isinstance(value, list) else value}")
    return "\n".join([*lines, f"  here: {_state(card)}", f"  use: {use(card)}"])


def _millions(card: Card) -> str:
    return f"{card.parameters / 1e6:.1f}M" if card.parameters else ""


def _state(card: Card) -> str:
    if is_converted(card):
        return "yes"
    if released_folder(card).is_dir():
        return "files"
    if card.part != "tokenizer" and not card.converter:
        return "not converted here yet"
    return "" if card.sources else "no address"
