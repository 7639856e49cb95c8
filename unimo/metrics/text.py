"""Texts as UTF-8 can hold them: for the libraries and programs that texts are given to, and for files."""

from __future__ import annotations


def encodable(text: str) -> str:
    """Replace each lone surrogate, which JSON can hold but UTF-8 cannot, by a question mark."""
    return text.encode(errors="replace").decode()
