"""How long a run takes: a guess from a few samples, then what its first steps really took."""

from __future__ import annotations

from dataclasses import dataclass, replace

DAY = 24 * 3600.0
_UNITS = (("years", 365.25 * DAY), ("days", DAY), ("h", 3600.0), ("min", 60.0))


@dataclass(frozen=True)
class Pace:
    """Time that the parts of a run take, in seconds."""

    basis: str
    """Where the times of round and step are from."""
    round_seconds: float
    step_seconds: float
    """All rounds of a step and the update."""
    steps: int
    """Steps that are left."""
    evaluation_seconds: float = 0.0
    """One evaluation, at least: decoding and ranking are not known before."""
    evaluations: int = 0
    checkpoint_seconds: float = 0.0
    """Writing one checkpoint."""
    checkpoints: int = 0

    @property
    def run_seconds(self) -> float:
        """Rest of the run, with evaluation and checkpoints."""
        training = self.steps * self.step_seconds
        evaluation = self.evaluations * self.evaluation_seconds
        return training + evaluation + self.checkpoints * self.checkpoint_seconds

    def after_round(self, seconds: float) -> Pace:
        """Return the pace with the time of a measured round; the rest is corrected by the same factor."""
        factor = seconds / self.round_seconds if self.round_seconds else 1.0
        return replace(
            self,
            basis="measured over a round",
            round_seconds=seconds,
            step_seconds=self.step_seconds * factor,
            evaluation_seconds=self.evaluation_seconds * factor,
        )

    def after_step(self, seconds: float, rounds: int) -> Pace:
        """Return the pace with the time of a measured step; steps that are left are one less.

        The rest is corrected by the same factor.
        """
        factor = seconds / self.step_seconds if self.step_seconds else 1.0
        return replace(
            self,
            basis="measured over a step",
            round_seconds=self.round_seconds * factor if rounds > 1 else seconds,
            step_seconds=seconds,
            steps=self.steps - 1,
            evaluation_seconds=self.evaluation_seconds * factor,
        )

    def __str__(self) -> str:
        extra = {
            "evaluation at least": self.evaluations * self.evaluation_seconds,
            "checkpoints": self.checkpoints * self.checkpoint_seconds,
        }
        # Only what changes the picture.
        parts = [
            f"{name} {duration(value)}" for name, value in extra.items() if value > 0.05 * self.run_seconds
        ]
        whole = f"run {duration(self.run_seconds)}" + (f" ({', '.join(parts)})" if parts else "")
        times = [f"round {duration(self.round_seconds)}", f"step {duration(self.step_seconds)}", whole]
        return f"{self.basis}: {', '.join(times)}"


def duration(seconds: float) -> str:
    """Format a time with a unit that suits it: `12 s`, `3.7 h`, `43 years`."""
    for name, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.2g} {name}" if seconds < 100 * size else f"{seconds / size:.0f} {name}"
    return f"{seconds:.2g} s"


def events(every: int, done: int, total: int) -> int:
    """Count the steps after `done`, up to `total`, at which something is due that happens every `every` steps
    and at the end."""
    left = total // every - done // every if every else 0
    return left + (0 if every and total % every == 0 else 1)
