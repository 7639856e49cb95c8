"""A SemVLP of a few thousand parameters for `micro.make_run(..., **SEMVLP)`."""

from __future__ import annotations

from typing import Any

from micro import TOWER

MODEL: dict[str, Any] = {
    "name": "semvlp_tiny",
    "text": {**TOWER, "vocab_size": 300},
    "regions": {"feature_size": 12},
    "cross": {"start": 1},
}
SEMVLP: dict[str, Any] = {"model": MODEL, "data": {"regions": "grid:2:2"}}
