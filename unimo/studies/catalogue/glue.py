"""Texts alone: the towers of pre-trained models on GLUE."""

from __future__ import annotations

from unimo.studies.glue.grid import GlueStudy

GLUE = GlueStudy(
    name="glue",
    question="How well does a pre-trained model read texts alone?",
    paper="UNIMO-3, Table 3",
    steps=(),
    rows=(),
    tables=(),
    next_command="python tools/study.py glue --help",
)
