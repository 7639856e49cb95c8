"""Logging, evaluation, saving and checks around training steps: one file per concern."""

from unimo.training.callbacks.base import Callback
from unimo.training.callbacks.checkpoint import Checkpoint
from unimo.training.callbacks.evaluate import Evaluate
from unimo.training.callbacks.jsonl import JsonLines
from unimo.training.callbacks.nonfinite import NonFiniteGuard
from unimo.training.callbacks.progress import Progress
from unimo.training.callbacks.throughput import Throughput
from unimo.training.callbacks.visualdl import VisualDL

__all__ = [
    "Callback",
    "Checkpoint",
    "Evaluate",
    "JsonLines",
    "NonFiniteGuard",
    "Progress",
    "Throughput",
    "VisualDL",
]
