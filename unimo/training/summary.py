"""What a run prints at its end: a table, and the command to type next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unimo import signals


def format_summary(summary: Mapping[str, Any]) -> str:
    """Format a summary as a small table, followed by the next command to type."""
    rows = {
        "run": f"{summary['model']} {summary['task']}, {summary['parameters'] / 1e6:.1f} M parameters",
        "started from": summary["started_from"],
        "steps": f"{summary['step']} of {summary['max_steps']} ({summary['steps_now']} now)"
        + ", ended early by train.patience" * bool(summary.get("ended_early")),
        "speed": f"{summary['samples_per_second']:.4g} samples/s on {summary['ranks']} rank(s)",
        "peak memory": f"{summary['peak_memory_mb']:.0f} MB",
        "trained on": f"{summary['train_split']}; selection {summary['selection']}: by {summary['split']}",
        **{f"{summary['split']} {name}": f"{value:.4f}" for name, value in summary["metrics"].items()},
        "output": summary["output_dir"],
    }
    if "modes" in summary:
        scores = ", ".join(f"{mode} {score:.4f}" for mode, score in summary["modes"].items())
        rows |= {"mode": f"{summary['mode']}, the best by {summary['selected_by']}: {scores}"}
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {value}" for name, value in rows.items()]
    if summary.get("was_finished"):
        longer = f"train.max_steps={2 * summary['max_steps']}"
        if summary.get("ended_early"):
            longer = "a larger train.patience"
        lines += ["", f"This run was finished before. To go on: the same command with {longer}."]
    if summary["step"] < summary["max_steps"] and not summary.get("ended_early"):
        saved = "and saved" if summary["step"] else "in its first step"
        end = f"Stopped by {summary['stopped_by']} {saved}. To go on, run the same command again."
    elif summary["stopped_by"] in signals.NAMES:
        end = "Trained and saved, but not evaluated. To evaluate, run the same command again."
    else:
        end = f"Next:\n  {summary['next']}"
    return "\n".join([*lines, "", end])
