"""Which tower layers a fusion layer reads, and what a config refuses."""

import pytest
from small_models import small_model

from unimo.config import merge_into
from unimo.errors import ConfigError
from unimo.models.unimo3 import SIZES
from unimo.models.unimo3.config import FusionConfig, linked_layers


def _table(num_tower_layers: int = 12, given_start: int = 0, **options) -> list[list[int]]:
    return [list(r) for r in linked_layers(FusionConfig(**options), num_tower_layers, given_start)]


def test_causal_is_the_default_and_ends_at_the_top():
    table = _table()
    assert [len(layers) for layers in table] == [7, 8, 9, 10, 11, 12]
    assert table[0] == [1, 2, 3, 4, 5, 6, 7]
    assert sum(map(len, table)) == 57
    assert sum(map(len, _table(24))) == 129


@pytest.mark.parametrize(
    ("link_range", "first", "last"),
    [
        ("relative", [], [1, 2, 3, 4, 5]),
        ("all", list(range(1, 13)), list(range(1, 13))),
        ("bridge", [7], [12]),
    ],
)
def test_link_ranges(link_range, first, last):
    table = _table(link_range=link_range)
    assert (table[0], table[-1], len(table)) == (first, last, 6)


@pytest.mark.parametrize(("internal", "start"), [(6, 8), (3, 11), (1, 13)])
def test_start_layer_follows_the_number_of_internal_layers(internal, start):
    config = FusionConfig(num_internal=internal)
    assert config.start(12, 0) == start
    assert _table(num_internal=internal)[-1][-1] == 12


def test_no_links_start_from_the_last_layer():
    config = FusionConfig(link_range="none")
    assert config.internal_layers == 0
    assert config.start(12, 0) - 1 == 12
    assert _table(link_range="none") == []


def test_first_layer_without_links():
    assert _table(first_layer_gate=False)[0] == []


def test_earlier_start():
    assert _table(given_start=7)[-1][-1] == 11


@pytest.mark.parametrize("start", [1, 9, 14])
def test_impossible_start_is_refused(start):
    with pytest.raises(ConfigError, match="layers 1 to 12 exist"):
        _table(given_start=start)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"fusion": {"num_internal": 7}}, "num_internal 7"),
        ({"vision": {"image_size": 225}}, "try 224"),
        ({"fusion": {"link_feature": "raw"}}, "fusion.link_feature no longer exists: .* delete the key"),
        ({"text": {"num_heads": 7}}, "7 heads"),
        ({"fusion": {"link_range": "casual"}}, "causal"),
        ({"fusion": {"link_rang": "all"}}, "link_range"),
        ({"text": {"num_layers": 4}}, "deeper tower"),
    ],
)
def test_bad_configs_are_refused_in_words(overrides, words):
    with pytest.raises(ConfigError, match=words):
        merge_into(SIZES["unimo3_base"], overrides)


def test_presets_of_figure_2():
    assert SIZES["meter_base"].fusion.link_range == "none"
    assert SIZES["meter_base"].vision.used_layers == 11
    assert SIZES["bridgetower_base"].fusion.gate_dim == "none"
    assert SIZES["unimo3_base"].fusion.internal_layers == 6
    assert SIZES["unimo3_base_d"].fusion.internal_layers == 3
    assert all(name == config.name for name, config in SIZES.items())


def test_towers_start_from_the_folders_that_the_config_names(monkeypatch):
    calls = []
    monkeypatch.setattr("unimo.models.parts.load_tower", lambda *given: calls.append(given[:3]))
    model = small_model("meter_tiny", text={"init": "roberta"}, vision={"init": "clip"})
    assert calls == [(model.text, "roberta", 0), (model.vision, "clip", 1)]
