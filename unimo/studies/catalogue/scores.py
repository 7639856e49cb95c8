"""Scores that several studies have."""

from __future__ import annotations

from unimo.studies.study import Evaluate

SCORES = (
    Evaluate("questions_blank", of="vqa", task="vqa", options=("--blank-images",)),
    Evaluate("questions", of="vqa", task="vqa"),
)
# Every text is scored against every image: all four captions of a scene would take four times as long.
ONE_CAPTION = ("data.scenes.captions_per_image=1",)
RETRIEVAL = Evaluate("zero_shot", "pretrain", "retrieval", options=("--zero-shot",), overrides=ONE_CAPTION)
