"""Fine-tuning without `--init`: from the latest pre-trained model, unless a run goes on from another."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from micro import Tool, saved, words

LINE = ["--task", "vqa", *words(), "--dry-run"]


def init_of(tool: Tool, *more: str) -> str:
    _, out, _ = tool("finetune", *LINE, *more)
    return yaml.safe_load(out)["init_from"]


@pytest.mark.parametrize("begun", ["output/old/model", ""])
def test_a_run_keeps_what_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Tool, begun: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved("pretrain", Path("output/old"))
    assert init_of(tool) == "output/old/model"
    run = Path("output/unimo3_tiny_vqa")
    (run / "checkpoints").mkdir(parents=True)
    config = {"model": {"name": "unimo3_tiny"}, "task": {"name": "vqa"}, "init_from": begun}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    saved("pretrain", Path("output/newer"), seed=1)
    assert init_of(tool) == begun
    assert init_of(tool, "output_dir=output/second") == "output/newer/model"
    assert init_of(tool, "--init", "output/newer") == "output/newer/model"
