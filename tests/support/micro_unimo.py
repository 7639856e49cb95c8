"""A UNIMO of a few thousand parameters for `micro.make_run(..., **UNIMO)`."""

from __future__ import annotations

from typing import Any

from micro import TOWER

MODEL: dict[str, Any] = {
    "name": "unimo_tiny",
    "text": {**TOWER, "vocab_size": 300},
    "regions": {"feature_size": 12},
}
UNIMO: dict[str, Any] = {"model": MODEL, "data": {"regions": "grid:2:2"}}
