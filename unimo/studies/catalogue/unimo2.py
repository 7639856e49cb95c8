"""UNIMO-2 with and without the parts of grounded learning."""

from __future__ import annotations

from unimo.studies.catalogue.scores import RETRIEVAL
from unimo.studies.study import Claim, Column, Evaluate, Finetune, Pretrain, Row, Steps, Study, Table

SHAPES = "image_classification"
DESCRIBE = (
    Finetune("caption", "caption", "caption"),
    Evaluate("captions", of="caption", task="caption"),
    Finetune("probe", "probe", SHAPES, ("task.protocol=linear",)),
    Evaluate("shape_zero_shot", of="pretrain", task=SHAPES, options=("--zero-shot", "--prompt", "a {} .")),
    Evaluate("shape_probe", of="probe", task=SHAPES),
)
RECALLS = tuple(
    Column(f"zero_shot.{key}_r{rank}", f"{key.upper()} R@{rank}", unit="recall, %", chance=rank / 5)
    for key in ("ir", "tr")
    for rank in (1, 5, 10)
)
EXACT = "captions whose colours and shapes are all right"
DESCRIBED = (
    Column("captions.cider", "captions, CIDEr", unit="CIDEr"),
    Column("captions.scenes_exact", EXACT, unit="captions, %"),
    Column("captions.scenes_colors", "colours that are right", unit="colours, %"),
    Column("captions.scenes_shapes", "shapes that are right", unit="shapes, %"),
    Column("shape_zero_shot.accuracy", "one of four shapes, zero-shot", chance=25),
    Column("shape_probe.accuracy", "one of four shapes, linear probe", chance=25),
)


def _unimo2_row(name: str, *overrides: str) -> Row:
    describe = DESCRIBE if name == "full" else ()
    return Row(name, "unimo2_tiny", (Pretrain(), RETRIEVAL, *describe), overrides)


UNIMO2 = Study(
    name="unimo2",
    question="Does each part of grounded learning help UNIMO-2 to match images and texts of scenes?",
    paper="UNIMO-2, Tables 4 and 5",
    steps=(
        Steps("pretrain", 1500, "pre-training", minutes=6),
        Steps("caption", 1600, "fine-tuning of the full model on captions", minutes=4),
        Steps("probe", 600, "linear probe of the full model for shapes", minutes=2),
    ),
    rows=(
        _unimo2_row("full"),
        _unimo2_row("w/o GD", "model.grounding.enabled=false", "model.fusion.visibility=full"),
        _unimo2_row("1-to-1 map", "model.grounding.method=one_to_one"),
        _unimo2_row("w/o Grounded Transformer", "model.fusion.visibility=full"),
    ),
    tables=(
        Table(head=("zero-shot retrieval",), columns=RECALLS),
        Table(head=("full model",), columns=DESCRIBED, only_row="full"),
    ),
    claims=tuple(
        Claim(text, "full", worse, ("zero_shot.ir_r1", "zero_shot.tr_r1"))
        for text, worse in {
            "Table 4: the grounded dictionary helps": "w/o GD",
            "Tables 4 and 5: ahead of the 1-to-1 map": "1-to-1 map",
            "Table 4: the Grounded Transformer helps": "w/o Grounded Transformer",
        }.items()
    ),
    next_command="python tools/evaluate.py --task retrieval --zero-shot --model {row}/pretrain/model "
    "--split test data.scenes.captions_per_image=1",
)
