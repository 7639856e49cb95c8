"""Mistakes that users make with the stages of VLMo, and with sizes of its texts and pictures."""

from __future__ import annotations

STAGED = {
    "model": {"name": "vlmo_tiny"},
    "task": {"name": "pretrain"},
    "metadata": {"stages": ["vision", "language"]},
}
"""Config of a model that went through two stages."""
MISTAKES_OF_STAGES: list[tuple[str, list[str], str]] = [
    *[
        ("pretrain", ["vlmo_tiny", *given], said)
        for given, said in (
            (
                ["data.max_text_len=41"],
                "data.max_text_len 41: vlmo_tiny has text positions for 40 tokens; set",
            ),
            (
                ["data.image_size=50"],
                "vision.image_size 50 is not a multiple of vision.patch_size 16; try 48",
            ),
            (["init_from=weights.safetensors"], "init_from=weights.safetensors is none of the files that"),
            (
                ["task.stage=texts"],
                "config.task.stage: 'texts' is not one of vision, language, vision_language",
            ),
            (["task.stages=2"], "task.stages: 2 is not `all`; a single one is task.stage=NAME"),
            (
                ["task.stage=vision", "init_from=staged", "--dry-run"],
                "comes before language, which init_from",
            ),
            (["task.stage=language", "init_from=pretrained", "--dry-run"], "keeps what stage vision taught"),
            (["task.stages=all", "init_from=nowhere"], "no model directory at nowhere"),
        )
    ],
    ("pretrain", ["unimo3_tiny", "task.stages=all"], "the recipe unimo3_tiny has no stages; leave it out"),
]
"""Tool, its command line, and a part of its message."""
