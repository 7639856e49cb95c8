"""unimo/registry.py: names, near misses, and what a capability query answers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from unimo import errors, registry
from unimo.errors import ConfigError, UnimoError
from unimo.tasks.base import Task


def test_every_registered_name_has_a_config_of_that_name():
    names = registry.list_models()
    assert {"unimo3_base", "unimo3_large", "unimo3_tiny", "meter_base", "bridgetower_base"} <= set(names)
    assert names == sorted(names)
    assert [registry.model_config(name).name for name in names] == names


def test_nearest_names_or_all_of_them():
    assert errors.nearest("vqqa", ["vqa", "retrieval"]) == "nearest: vqa"
    assert errors.nearest("zzz", ["b", "a"]) == "known: a, b"


@pytest.mark.parametrize("name", ["unimo3_bas", "resnet_50", ""])
def test_unknown_model_names_known_ones(name):
    with pytest.raises(ConfigError, match="unknown model .*(nearest|known): .*unimo3_base"):
        registry.model_config(name)


def test_unknown_task_names_known_ones():
    with pytest.raises(ConfigError, match="unknown task 'vqaa'; nearest: vqa"):
        registry.task_class("vqaa")


def test_a_paper_declares_known_capabilities():
    paper = registry.paper_of("unimo2_tiny")
    with pytest.raises(ConfigError, match="'unimo2' has unknown capabilities telepathy; known: dual_encoder"):
        replace(paper, capabilities=paper.capabilities | {"telepathy"})


def test_capabilities_select_models():
    assert "unimo3_tiny" in registry.models_with({"pixels", "fusion"})
    assert registry.models_with({"pixels", "telepathy"}) == []


def test_every_task_module_offers_what_the_contract_asks():
    for name in registry.TASKS:
        task = registry.task_class(name)
        for paper in registry.papers():
            assert task.default_config(paper).name == name
        assert task.open_data.__func__ is not Task.open_data.__func__


def test_overrides_reach_nested_fields_and_unknown_ones_fail():
    model = registry.create_model("unimo3_tiny", text={"vocab_size": 50}, fusion={"num_layers": 1})
    assert model.config.text.vocab_size == 50
    assert model.config.fusion.num_layers == 1
    with pytest.raises(ConfigError, match="unknown key model.fusion.layers; nearest: num_layers"):
        registry.create_model("unimo3_tiny", fusion={"layers": 1})


def test_a_model_without_the_capability_is_refused_with_the_names_of_others():
    registry.require("unimo3_tiny", {"pixels"}, "vqa")
    with pytest.raises(
        UnimoError, match="task 'caption' needs generation.*'unimo3_tiny'.*models that do: unimo2_base, "
    ):
        registry.require("unimo3_tiny", {"generation"}, "caption")
    with pytest.raises(UnimoError, match="models that do: none"):
        registry.require("unimo3_tiny", {"generation", "telepathy"}, "caption")


@pytest.mark.parametrize("name", ["unimo_tiny", "unimo2_tiny", "unimo3_tiny", "meter_tiny"])
def test_rough_size_is_about_that_of_the_model(name):
    config = registry.model_config(name)
    count = sum(math.prod(each.shape) for each in registry.build_model(config).parameters())
    assert 0.9 < registry.rough_size(config) / count < 1.1


@pytest.mark.parametrize("name", registry.list_models())
@pytest.mark.parametrize("sizes", [{"num_layers": 1000, "intermediate_size": 2**17}, {"vocab_size": 10**7}])
def test_sizes_that_no_machine_has_memory_for(name, sizes, monkeypatch):
    monkeypatch.setattr(registry, "MODEL_PARAMETERS", 600_000_000)
    size, value = next(iter(sizes.items()))
    section = "transformer" if size == "num_layers" and name.startswith("vlmo") else "text"
    with pytest.raises(
        ConfigError, match=rf"section {section}: .*{size} {value:,}.* parameters; this machine"
    ):
        registry.create_model(name, **{section: sizes})
