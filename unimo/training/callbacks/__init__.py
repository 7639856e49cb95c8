"""Logging, evaluation, saving and checks around training steps. All callbacks are called on every rank."""

from unimo.training.callbacks.evaluation import Evaluate
from unimo.training.callbacks.metrics_file import JsonLines
from unimo.training.callbacks.nonfinite import NonFiniteGuard
from unimo.training.callbacks.pacing import Pacing
from unimo.training.callbacks.progress import Progress
from unimo.training.callbacks.saving import Checkpoint
from unimo.training.callbacks.throughput import Throughput
from unimo.training.callbacks.visualdl import VisualDL
from unimo.training.state import Callback

__all__ = [
    "Callback",
    "Checkpoint",
    "Evaluate",
    "JsonLines",
    "NonFiniteGuard",
    "Pacing",
    "Progress",
    "Throughput",
    "VisualDL",
]
