"""Sections of models: their defaults, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from unimo.config import check_fields
from unimo.errors import ConfigError
from unimo.nn import config
from unimo.nn.config import VitConfig, check_heads

SECTIONS = [one for name, one in vars(config).items() if name.endswith("Config") and name != "Config"]


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_lie_in_their_ranges(section: type) -> None:
    check_fields(section())


@pytest.mark.parametrize(("patch", "padding", "most"), [(16, 8, 7), (16, 20, 7), (8, 4, 3), (7, 4, 3)])
def test_padding_of_half_a_patch_is_refused_with_the_most_there_may_be(patch, padding, most) -> None:
    with pytest.raises(ConfigError, match=rf"patch_padding {padding} .* {patch}; use 0 \(ViT\) or {most} "):
        VitConfig(patch_size=patch, image_size=patch, patch_padding=padding)
    assert VitConfig(patch_size=patch, image_size=patch, patch_padding=most).patch_padding == most


def test_heads_of_every_part_are_checked() -> None:
    fits, other = SimpleNamespace(hidden_size=8, num_heads=2), SimpleNamespace(hidden_size=8, num_heads=3)
    check_heads(text=fits, fusion=fits)
    for parts in ({"text": other, "fusion": fits}, {"fusion": fits, "text": other}):
        with pytest.raises(ConfigError, match=r"^text.hidden_size 8 does not divide into 3 heads"):
            check_heads(**parts)
