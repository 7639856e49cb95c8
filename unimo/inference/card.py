"""The card of a model: README.md with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unimo.errors import CheckpointError
from unimo.files import read_json_object
from unimo.inference.saving import METRICS, WEIGHTS, read_config
from unimo.registry import paper_of
from unimo.weights.files import open_safetensors

CARD = "README.md"
KINDS = {
    "vqa": "visual-question-answering",
    "gqa": "visual-question-answering",
    "caption": "image-to-text",
    "text_classification": "text-classification",
    "image_classification": "image-classification",
    "segmentation": "image-segmentation",
}
"""Task -> its name at the hub, of those that have one there."""


def model_card(directory: Path) -> str:
    """Return the card of a model directory, from its config and metrics.

    Raises:
        CheckpointError: the directory has no config or weights.
    """
    content = read_config(directory)
    name, task = content["model"]["name"], content["task"]["name"]
    paper = paper_of(name)
    scores = read_json_object(directory / METRICS, CheckpointError) if (directory / METRICS).is_file() else {}
    split = str(scores.get("split", ""))
    numbers = {key: value for key, value in scores.items() if isinstance(value, (int, float))}
    parameters = sum(x.size for x in open_safetensors(directory / WEIGHTS).values())
    parts = [
        f"---\n{yaml.safe_dump(_front(content, paper.citation, numbers, split), sort_keys=False)}---\n",
        f"# {name}: {task}\n",
        f"{paper.citation or paper.name}, on PaddlePaddle; {parameters:,} parameters with heads. "
        f"Recipe `configs/{paper.name}/{task}.yaml`.\n",
        _training(content),
        _scores(numbers, scores, split),
        _loading(task),
        "## Licence\n\nNot stated; whoever publishes the model adds `license:` to the lines at the top.\n",
    ]
    return "\n".join(part for part in parts if part)


def _front(
    content: Mapping[str, Any], citation: str, numbers: Mapping[str, float], split: str
) -> dict[str, Any]:
    name, task = content["model"]["name"], content["task"]["name"]
    arxiv = re.search(r"arXiv (\d{4}\.\d{5})", citation)
    tags = ["paddlepaddle", "unimo", name, task, *([f"arxiv:{arxiv[1]}"] if arxiv else [])]
    front: dict[str, Any] = {"library_name": "unimo", "tags": tags}
    if task in KINDS:
        front["pipeline_tag"] = KINDS[task]
    if numbers:
        corpora = ", ".join(_corpora(content)) or "unknown"
        data = {"name": corpora, "type": corpora, **({"split": split} if split else {})}
        measured = [{"type": key, "name": key, "value": round(value, 4)} for key, value in numbers.items()]
        result = {"task": {"type": KINDS.get(task, task)}, "dataset": data, "metrics": measured}
        front["model-index"] = [{"name": name, "results": [result]}]
    return front


def _corpora(content: Mapping[str, Any]) -> list[str]:
    """Return the corpora by the last part of their paths, which says nothing of the machine."""
    kinds = ("pairs", "texts", "images") if content["task"]["name"] == "pretrain" else ("path",)
    found = [entry for kind in kinds for entry in (content.get("data") or {}).get(kind) or ()]
    entries = (entry for entry in found if isinstance(entry, Mapping))
    names = (entry.get("name") or Path(entry.get("path", "")).name for entry in entries)
    return list(dict.fromkeys(names))


def _training(content: Mapping[str, Any]) -> str:
    train, optim = content.get("train") or {}, content.get("optim") or {}
    facts = {
        "data": ", ".join(_corpora(content)),
        "steps": train.get("max_steps"),
        "epochs": train.get("epochs"),
        "batch size": train.get("batch_size"),
        "learning rate": optim.get("lr"),
        "seed": content.get("seed"),
        "started from": Path(content.get("init_from") or "").name,
    }
    lines = [f"| {key} | {value} |" for key, value in facts.items() if value not in (None, "")]
    return "\n".join(["## Training\n", "| | |\n|---|---|", *lines, ""])


def _scores(numbers: Mapping[str, float], scores: Mapping[str, Any], split: str) -> str:
    if not numbers:
        return ""
    chosen = f"; checkpoint chosen by the selection `{scores['selection']}`" if "selection" in scores else ""
    lines = [f"| {key} | {value:.4g} |" for key, value in numbers.items()]
    title = f"## Scores on `{split}`" if split else "## Scores"
    return "\n".join([title, "", f"As `metrics.json` has them{chosen}.\n", "| | |\n|---|---|", *lines, ""])


def _loading(task: str) -> str:
    load = "model, processor = unimo.load(DIR)" + ("" if task == "pretrain" else "  # without the head")
    lines = ["import unimo", "", load]
    if task != "pretrain":
        lines += ["", "from unimo.inference.pipeline import Pipeline", "", "answers = Pipeline(DIR).ask"]
    code = "\n".join(lines)
    return (
        f"## Use\n\n`DIR` is the folder of this card, a model directory of unimo.\n\n```python\n{code}\n```\n"
    )
