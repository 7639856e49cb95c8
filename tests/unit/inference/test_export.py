"""Exported programs and weights: what they compute is what the model computes, at two sizes."""

from __future__ import annotations

import json
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micro import saved
from micro_semvlp import SEMVLP
from micro_unimo import UNIMO
from micro_unimo2 import MODEL as UNIMO2
from small_vlmo import small_config

import unimo
from unimo.config import to_plain
from unimo.errors import CapabilityError, CheckpointError, ConfigError
from unimo.inference.export import FORMATS, programs
from unimo.inference.export.run import export

needs_onnx = pytest.mark.skipif(
    find_spec("paddle2onnx") is None or find_spec("onnxruntime") is None, reason="the extra export is absent"
)
ENCODERS = {"image_encoder", "text_encoder"}
VLMO = {
    "model": to_plain(small_config(text={"vocab_size": 300, "max_position": 24})),
    "data": {"image_size": 32},
}
CASES: list[Any] = [
    pytest.param("entailment", SEMVLP, "paddle-inference", {"fusion"}, id="semvlp"),
    pytest.param("caption", UNIMO, "onnx", {"start", "step"}, id="unimo", marks=needs_onnx),
]
MORE: list[Any] = [
    pytest.param("caption", {"model": UNIMO2}, "onnx", {"start", "step"}, id="unimo2", marks=needs_onnx),
    pytest.param("retrieval", VLMO, "onnx", ENCODERS | {"fusion"}, id="vlmo", marks=needs_onnx),
    pytest.param("pretrain", {}, "onnx", ENCODERS | {"fusion"}, id="unimo3_pretrain", marks=needs_onnx),
    pytest.param("retrieval", UNIMO, "paddle-inference", ENCODERS | {"fusion"}, id="unimo_retrieval"),
    pytest.param("vqa", {"model": UNIMO2}, "paddle-inference", ENCODERS | {"fusion"}, id="unimo2_vqa"),
    pytest.param("vqa", {}, "paddle-inference", ENCODERS | {"fusion"}, id="unimo3"),
]


def installed() -> set[tuple[str, str]]:
    return {(each.metadata["Name"], each.version) for each in distributions()}


def check(task: str, changes: dict[str, Any], kind: str, graphs: set[str], folder: Path) -> None:
    before, out = installed(), folder / "out"
    model = saved(task, folder, **changes)
    found = export(model, kind, out)
    assert {each.graph for each in found} == graphs and len(found) == 2 * len(graphs)
    assert max(each.difference for each in found) < 1e-5
    manifest = json.loads((out / "export.json").read_text())
    assert manifest["graphs"].keys() == graphs
    endings = [".onnx"] if kind == "onnx" else [".json", ".pdiparams"]
    programs_ = {f"{name}{ending}" for name in graphs for ending in endings}
    others = {"export.json", "config.yaml", "tokenizer.json", "README.md"}
    assert {path.name for path in out.iterdir()} == programs_ | others
    assert installed() == before


@pytest.mark.parametrize(("task", "changes", "kind", "graphs"), CASES)
def test_programs_compute_what_the_model_does(
    task: str, changes: dict[str, Any], kind: str, graphs: set[str], tmp_path: Path
) -> None:
    check(task, changes, kind, graphs, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "changes", "kind", "graphs"), MORE)
def test_programs_of_every_paper(
    task: str, changes: dict[str, Any], kind: str, graphs: set[str], tmp_path: Path
) -> None:
    check(task, changes, kind, graphs, tmp_path)


def test_weights_are_a_model_directory_that_replaces_an_older_export(tmp_path: Path, tool: Any) -> None:
    model, out = saved("vqa", tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "export.json").write_text("{}")
    (out / "fusion.onnx").write_text("older")
    code, text, _ = tool("export", "--model", model, "--format", "safetensors", "--out", out)
    assert code == 0 and text.count("difference 0.0e+00 of 0.0001") == 6
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in model.iterdir()} | {"README.md", "export.json"}
    ours, theirs = (unimo.load(each)[0].state_dict() for each in (model, out))
    assert all(np.array_equal(theirs[name].numpy(), tensor.numpy()) for name, tensor in ours.items())


def test_a_difference_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Any) -> None:
    def wrong(owner: Any, graph: Any, folder: Path) -> Any:
        run = programs.live(owner, graph)
        return lambda arrays: {name: value + 0.01 for name, value in run(arrays).items()}

    monkeypatch.setitem(programs.WRITERS, "paddle-inference", wrong)
    words = ("--format", "paddle-inference", "--out", tmp_path / "out")
    code, _, error = tool("export", "--model", saved("vqa", tmp_path), *words)
    assert code == 2 and "image_encoder: exported and live outputs differ by" in error
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_what_cannot_be_exported_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = saved("nlvr2", tmp_path, model={"vision": {"types": 2}}), tmp_path / "out"
    with pytest.raises(CapabilityError, match="nothing of a model trained on nlvr2 is exported"):
        export(model, "paddle-inference", out)
    assert export(model, "safetensors", out) == []
    with pytest.raises(ConfigError, match="unknown format 'onx'; nearest: onnx"):
        export(model, "onx", out)
    (out / "export.json").unlink()
    with pytest.raises(CheckpointError, match="is not an earlier export"):
        export(model, "safetensors", out)
    monkeypatch.setattr(programs, "_ONNX_BYTES", 10)
    with pytest.raises(CapabilityError, match="--format paddle-inference has no such limit"):
        programs.check_size(unimo.load(model)[0])
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r'needs paddle2onnx: pip install -c constraints.txt -e "\.\[export'
    ):
        export(model, "onnx", tmp_path / "other")
    assert set(FORMATS) == {*programs.WRITERS, "safetensors"}
