"""UNIMO, UNIMO-2, UNIMO-3 and their neighbours on PaddlePaddle.

    import unimo
    model = unimo.create_model("unimo3_base")
    model, processor = unimo.load("output/unimo3_tiny_vqa")

Importing this package does not import Paddle; the first call that needs it does.
"""

from typing import Any

from unimo._runtime import configure_cpu

configure_cpu()

from unimo.registry import create_model, list_models  # noqa: E402 - after the CPU switches

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "list_models", "load"]


def load(path: str, **overrides: Any) -> tuple[Any, Any]:
    """Open a model directory; see `unimo.inference.loading.load`."""
    from unimo.inference.loading import load as load_directory

    return load_directory(path, **overrides)
