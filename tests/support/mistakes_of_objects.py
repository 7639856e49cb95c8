"""Mistakes that users make with SemVLP: its modes, its layers, the objects of images and answers."""

from __future__ import annotations

from pathlib import Path

from region_samples import write_store


def write_objects(folder: Path) -> None:
    """Write the files that the table names."""
    write_store(folder / "objects_of_others", ["0.jpg"])
    asked = '{"image": "p.png", "question": "what is it ?", "answers": {"red": 1.0}}\n'
    (folder / "asked.jsonl").write_text(asked * 4)
    (folder / "animals.json").write_text('["dog", "cat"]')


MISTAKES_OF_OBJECTS: list[tuple[str, list[str], str]] = [
    *[
        ("pretrain", ["semvlp_tiny", "train.device=cpu", "output_dir=objects", *given], said)
        for given, said in (
            (["task.modes=three"], "config.task.modes: 'three' is not one of both, single, two"),
            (["task.mode=two"], "unknown key config.task.mode; nearest: modes"),
            (["model.cross.start=-1"], "config.model.cross.start -1: expected 0 or more"),
            (["model.cross.start=5"], "model.cross.start (L_s) 5: expected 0 to 4"),
            (["model.objective.object_labels=true"], "data.regions have no labels; name features of a"),
            (["model.objective.object_attributes=true"], "data.regions have no attributes; name features"),
            (
                ["data.pairs=captions.jsonl", "data.regions=objects_of_others", "data.tokenizer=scenes"],
                "no regions of image p.png in objects_of_others; extract them with",
            ),
            (
                ["data.pairs=[{path: asked.jsonl, questions: true}]", "task.answers=animals.json"],
                "task.answers=animals.json: none of the 1 answers of asked.jsonl is among its 2 classes",
            ),
        )
    ],
]
"""Tool, its command line, and a part of its message."""
