"""A plan as a table that a person reads in ten seconds."""

from __future__ import annotations

from collections.abc import Sequence

from unimo.training.plan import Corpus, Memory, Part, Plan

_NUMBERS = {"parameters", "trainable", "records", "pictures", "texts"}
"""Heads of columns that are aligned to the right."""


def format_plan(plan: Plan) -> str:
    """Format a plan; that of a run that goes on is short."""
    name = f"{plan.model} {plan.task}".strip()  # a detector has no task
    left, hints = plan.last_step - plan.first_step, [f"! {hint}" for hint in plan.hints]
    if plan.first_step:
        head = f"plan: {name} goes on after step {plan.first_step:,}, {left:,} steps left"
        return "\n".join([head, *_rows({"batch": _batch(plan), "time": _time(plan)}), *hints])
    parts = [*plan.parameters, _sum(plan.parameters)]
    return "\n".join(
        [
            f"plan: {name}, {left:,} steps",
            *_table(
                ("part", "parameters", "trainable", "weights"),
                [
                    (part.part.partition(":")[0], count(part.parameters), count(part.trainable), part.weights)
                    for part in parts
                ],
            ),
            *_table(
                ("data", "split", "records", "pictures", "texts", "share"),
                [_data(corpus) for corpus in plan.data],
            ),
            *_rows({"batch": _batch(plan), "cost": _cost(plan)}),
            *(_rows({"rates": f"{_factors(plan.rates)} of optim.lr, by layer"}) if plan.rates else ()),
            *(_rows({"memory": _memory(plan.memory)}) if plan.memory else ()),
            *_rows({"time": _time(plan), "disk": _disk(plan)}),
            *hints,
        ]
    )


def size(number: float) -> str:
    """Format bytes: `1.3 GB`."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"


def count(number: float) -> str:
    """Format a count in three digits: `333 M`."""
    for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= unit:
            scaled = number / (1e3 if name == "k" else unit)
            return f"{scaled:.0f} {name}" if scaled >= 100 else f"{scaled:.3g} {name}"
    return f"{number:,.0f}"


def _sum(parts: Sequence[Part]) -> Part:
    return Part("all", sum(part.parameters for part in parts), sum(part.trainable for part in parts), "")


def _data(corpus: Corpus) -> tuple[str, ...]:
    name = f"{corpus.corpus} (built in)" if corpus.is_built_in else corpus.corpus
    pictures = "?" if corpus.pictures is None else f"{corpus.pictures:,}"
    use = f"{corpus.share:.1%}" if corpus.share else corpus.use
    return name, corpus.split, f"{corpus.records:,}", pictures, f"{corpus.texts:,}", use


def _batch(plan: Plan) -> str:
    step = plan.step
    ranks = f"{step.ranks} rank{'s' * (step.ranks > 1)}"
    rounds = f"{step.rounds} round{'s' * (step.rounds > 1)}"
    return f"{step.samples:,} samples = {ranks} x {rounds} x {step.micro_batch_samples}"


def _factors(rates: tuple[float, float]) -> str:
    return " to ".join(f"{factor:.3g}" for factor in rates)


def _cost(plan: Plan) -> str:
    step = plan.step
    if step.operations is None:
        return "unknown: the first samples are broken"
    tokens = {"text": step.text_tokens, "image": step.image_tokens}
    listed = " and ".join(f"{count(number)} {kind}" for kind, number in tokens.items() if number)
    counted = f"{count(step.operations)}FLOP in matrix products a step"
    return f"{listed} tokens, {counted}" if listed else counted


def _memory(memory: Memory) -> str:
    parts = {
        "parameters": memory.parameters_bytes,
        "gradients": memory.gradients_bytes,
        "optimizer": memory.optimizer_bytes,
        "batches": memory.batches_bytes,
        "process": memory.process_bytes,
    }
    passing = {"activations": memory.activations_bytes, "evaluation": memory.evaluation_bytes}
    largest = max(passing, key=lambda name: passing[name])
    parts[largest] = passing[largest]
    parts["heap"] = max(0, memory.peak_bytes - sum(parts.values()))
    listed = " + ".join(f"{name} {size(held)}" for name, held in parts.items() if held)
    return f"{size(memory.peak_bytes)} of {size(memory.machine_bytes)}: {listed}"


def _time(plan: Plan) -> str:
    return "unknown" if plan.time is None else str(plan.time)


def _disk(plan: Plan) -> str:
    disk = plan.disk
    checkpoint = f"checkpoint {size(disk.checkpoint_bytes)}"
    return f"{checkpoint}, {size(disk.needed_bytes)} in all; {size(disk.free_bytes)} free"


def _rows(rows: dict[str, str]) -> list[str]:
    return [f"  {name:<8}{value}" for name, value in rows.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: numbers to the right, under their heads."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    aligned = []
    for row in (head, *rows):
        cells = [
            f"{cell:>{width}}" if name in _NUMBERS else f"{cell:<{width}}"
            for name, cell, width in zip(head, row, widths, strict=True)
        ]
        aligned.append(f"  {'  '.join(cells)}".rstrip())
    return aligned
