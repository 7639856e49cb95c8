"""`--list`: every recipe, with sizes that the page of models has."""

import re
from pathlib import Path

import pytest
from micro import Tool

from unimo import registry
from unimo.config import list_recipes

MODELS = Path(__file__).resolve().parents[3] / "docs" / "reference" / "models.md"


def test_recipes_of_pretraining(tool: Tool) -> None:
    code, out, _ = tool("pretrain", "--list")
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert code == 0 and set(list_recipes("pretrain")) <= set(rows)
    for name, said in {
        "unimo3_base": r"333.3 M +8 A100 GPUs +COCO, .*\(4 million images\)",
        "unimo_large": r"358.5 M +64 V100 GPUs, 10 days +COCO, .*",
        "unimo2_tiny": r"3.6 M +\(2 CPU cores\) +\(`scenes`\)",
    }.items():
        assert re.fullmatch(rf"{name} +{said}", rows[name])
    assert "runs on the built-in pictures `scenes`" in out


def test_recipes_of_fine_tuning(tool: Tool) -> None:
    code, out, _ = tool("finetune", "--list")
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert code == 0 and set(registry.TASKS) - {"pretrain"} <= set(rows)
    for task in set(registry.TASKS) - {"pretrain"}:
        assert registry.task_class(task).published_data in rows[task]
        assert all(name in rows[task].split() for name in list_recipes(task)), task


@pytest.mark.parametrize("model", registry.list_models())
def test_parameters_are_those_of_the_page(model: str) -> None:
    lines = MODELS.read_text(encoding="utf8").splitlines()
    row = next(line for line in lines if line.startswith("|") and f"`{model}`" in line)
    number = re.search(r"\| (?:about )?([\d,.]+)( million)?", row)
    counted = float(number[1].replace(",", "")) / (1 if number[2] else 1e6)
    assert registry.paper_of(model).parameters[model] == pytest.approx(counted, abs=0.06)
