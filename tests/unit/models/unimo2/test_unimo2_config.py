"""Configuration of UNIMO-2: the paper's numbers, and mistakes that are refused."""

import pytest

from unimo.config import merge_into
from unimo.errors import ConfigError
from unimo.models.unimo2 import SIZES


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"grounding": {"num_tokens": 200, "dictionary_size": 128}},
            r"num_tokens \(K\) 200 .*dictionary_size \(C\) 128; choose a smaller K",
        ),
        ({"grounding": {"num_tokens": -1}}, r"num_tokens -1: expected 0 or more; try 100"),
        ({"grounding": {"temperature_init": 0.0}}, "temperature_init 0: expected a number above 0; try 100"),
        ({"vision": {"image_size": 230}}, "image_size 230 is not a multiple .*patch_size 16; try 224"),
        ({"vision": {"patch_padding": 8}}, "patch_padding 8 .* or 7"),
        ({"text": {"hidden_size": 512}}, r"share one hidden_size, found \[512, 768, 768\]"),
        ({"fusion": {"num_heads": 7}}, "fusion.hidden_size 768 .* 7 heads"),
        ({"fusion": {"visibility": "pairwise"}}, "visibility"),
        ({"grounding": {"methode": "topk"}}, "nearest: method"),
    ],
)
def test_mistakes(overrides, message):
    with pytest.raises(ConfigError, match=message):
        merge_into(SIZES["unimo2_base"], overrides)


def test_numbers_of_the_paper():
    config = SIZES["unimo2_base"]
    grounding = config.grounding
    assert (grounding.dictionary_size, grounding.num_tokens, grounding.beta) == (2048, 100, 0.25)
    assert (config.vision.image_size, config.vision.patch_size, config.vision.num_patches) == (224, 16, 196)
    layers = [part.num_layers for part in (config.text, config.vision, config.fusion)]
    assert layers == [12, 12, 12] and config.text.max_position - 2 == 512
    large = SIZES["unimo2_large"]
    assert [part.num_layers for part in (large.text, large.vision, large.fusion)] == [24, 24, 24]
    assert large.hidden_size == 1024
    assert all(name == config.name for name, config in SIZES.items())


def test_k_is_free_in_the_one_to_one_map_and_zero_switches_off():
    merge_into(SIZES["unimo2_tiny"], {"grounding": {"method": "one_to_one", "num_tokens": 500}})
    for changes in ({"num_tokens": 0}, {"enabled": False}):
        assert not merge_into(SIZES["unimo2_tiny"], {"grounding": changes}).grounding.is_active
    assert SIZES["unimo2_tiny"].grounding.is_active
