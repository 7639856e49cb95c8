"""Export a model directory: written whole, and only after exported and live outputs were compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unimo.data.processor import Processor
from unimo.errors import CapabilityError, CheckpointError, ConfigError, nearest
from unimo.files import write_text
from unimo.inference.card import CARD, model_card
from unimo.inference.export import FORMATS, TOLERANCE
from unimo.inference.export.graphs import SIZES, Graph, graphs_of
from unimo.inference.export.programs import WRITERS, Program, check_onnx, check_size, live
from unimo.inference.folders import check_replaceable, replacing_folder
from unimo.inference.loading import find_model, load_task
from unimo.inference.saving import WEIGHTS
from unimo.tasks.base import Task
from unimo.weights.files import write_safetensors
from unimo.weights.layers import tensors_of

MANIFEST = "export.json"
PLAIN = "safetensors"


@dataclass(frozen=True)
class Compared:
    """Difference of the exported and live outputs of a graph at one size."""

    graph: str
    shapes: str
    """Shapes of the inputs."""
    difference: float
    """Largest absolute difference, as a share of the largest output (at least of 1)."""
    outputs: tuple[str, ...]
    """Names of the outputs."""


def export(path: str | Path, kind: str, folder: str | Path) -> list[Compared]:
    """Write a folder with the programs of a model, or its weights, and what belongs to them.

    Beside them stand `export.json` (inputs and outputs, sizes, differences), the tokenizer, the settings of
    the processor in `config.yaml`, and a card (README.md). With `safetensors` the folder is a model
    directory, which `unimo.load` opens.

    Args:
        path: model directory, run folder or name.
        kind: one of `FORMATS`.
        folder: folder to write; an earlier export is replaced.

    Returns:
        The differences.

    Raises:
        ConfigError: another format, or its packages are not installed.
        CapabilityError: nothing of such a model is exported.
        CheckpointError: there is no such model, the folder cannot be written, or exported and live outputs
            differ by more than `TOLERANCE`; then nothing is written.
    """
    if kind not in FORMATS:
        raise ConfigError(f"unknown format {kind!r}; {nearest(kind, FORMATS)}")
    if kind == "onnx":
        check_onnx()
    folder = check_replaceable(folder, (MANIFEST,), "an earlier export")
    directory = find_model(path)
    task, processor = load_task(directory)
    graphs = _graphs(task, processor, kind)
    if kind == "onnx":
        check_size(task)
    card = model_card(directory)
    with replacing_folder(folder) as fresh:
        if kind == PLAIN:
            found = _write_plain(task, graphs, directory, fresh)
        else:
            processor.save(fresh)
            found = []
            for graph in graphs:
                found += _compare(task, graph, WRITERS[kind](task, graph, fresh))
        write_text(fresh / CARD, card)
        write_text(fresh / MANIFEST, json.dumps(_manifest(task, kind, graphs, found), indent=1))
    return found


def _graphs(task: Task, processor: Processor, kind: str) -> list[Graph]:
    """Return what is compared; weights alone go without graphs where there are none."""
    try:
        return graphs_of(task, processor)
    except CapabilityError:
        if kind != PLAIN:
            raise
        return []


def _write_plain(task: Task, graphs: Sequence[Graph], directory: Path, fresh: Path) -> list[Compared]:
    """Write a model directory, and compare the model that is loaded from it."""
    for each in directory.iterdir():
        if each.is_file() and each.name not in (WEIGHTS, CARD, MANIFEST):
            shutil.copyfile(each, fresh / each.name)
    write_safetensors(fresh / WEIGHTS, tensors_of(task))
    again, processor = load_task(fresh)
    programs = {graph.name: live(again, graph) for graph in _graphs(again, processor, PLAIN)}
    return [each for graph in graphs for each in _compare(task, graph, programs[graph.name])]


def _compare(task: Task, graph: Graph, program: Program) -> list[Compared]:
    """Compare a program with the graph as it runs here, at two sizes.

    Raises:
        CheckpointError: they differ by more than `TOLERANCE`.
    """
    found = []
    for sizes in SIZES:
        arrays = graph.sample(sizes)
        wanted, given = live(task, graph)(arrays), program(arrays)
        difference = max(_difference(given[name], value) for name, value in wanted.items())
        shapes = ", ".join(f"{each.name} {list(arrays[each.name].shape)}" for each in graph.inputs[:4])
        found.append(Compared(graph.name, shapes, difference, tuple(wanted)))
        if not difference <= TOLERANCE:
            raise CheckpointError(
                f"{graph.name}: exported and live outputs differ by {difference:.1e} with {shapes}; expected "
                f"at most {TOLERANCE:g}; nothing was written. Try another --format"
            )
    return found


def _difference(given: np.ndarray, wanted: np.ndarray) -> float:
    if given.shape != wanted.shape:
        return float("inf")
    largest = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    return float(np.abs(given - wanted).max(initial=0.0)) / largest


def _manifest(task: Task, kind: str, graphs: Sequence[Graph], found: Sequence[Compared]) -> dict[str, object]:
    described = {}
    for graph in graphs:
        inputs = {each.name: {"dtype": each.dtype, "shape": list(each.shape)} for each in graph.inputs}
        compared = [each for each in found if each.graph == graph.name]
        described[graph.name] = {
            "inputs": inputs,
            "outputs": list(compared[0].outputs),
            "difference": max(each.difference for each in compared),
        }
    content = {"model": task.model.config.name, "task": task.config.name, "format": kind}
    return {**content, "tolerance": TOLERANCE, "graphs": described}
