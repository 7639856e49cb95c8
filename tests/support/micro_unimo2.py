"""A UNIMO-2 of a few thousand parameters for `micro.make_run(..., model=MODEL)`."""

from __future__ import annotations

from typing import Any

from micro import TOWER

MODEL: dict[str, Any] = {
    "name": "unimo2_tiny",
    "text": {**TOWER, "vocab_size": 300},
    "vision": {**TOWER, "image_size": 32},
    "grounding": {"dictionary_size": 16, "num_tokens": 4},
    "fusion": TOWER,
}
WITH_DROPOUT: dict[str, Any] = {
    **MODEL,
    "text": {**TOWER, "vocab_size": 300, "dropout": 0.1},
    "grounding": {"dictionary_size": 20, "num_tokens": 4},
}
"""The same for runs that are broken and go on, whose random numbers have to go on too."""
