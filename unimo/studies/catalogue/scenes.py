"""UNIMO-3 against METER and BridgeTower, with and without pre-training, in the same time."""

from __future__ import annotations

from unimo.registry import list_models
from unimo.studies.catalogue.scores import SCORES
from unimo.studies.study import Claim, Column, Finetune, Pretrain, Row, Steps, Study, Table

# The learning rate of the recipe spares pre-trained weights; from scratch there are none to spare.
SCRATCH = ("optim.lr=1e-3", "optim.lr_multipliers.heads=5")
KINDS = ("color", "count", "existence", "neighbour", "place", "shape", "size", "what_is_at")


def _scenes_rows(model: str) -> tuple[Row, Row]:
    pretrained = (Pretrain(), Finetune("vqa", "finetune", "vqa"), *SCORES)
    scratch = (Finetune("vqa", "scratch", "vqa", SCRATCH), *SCORES)
    return (
        Row(model, model, pretrained, cells=(model, "yes")),
        Row(f"{model}_scratch", model, scratch, cells=(model, "no")),
    )


SCENES = Study(
    name="scenes",
    question="Do links between layers, or pre-training, help to answer questions about scenes?",
    paper="UNIMO-3, Table 1; METER and BridgeTower are settings of its network",
    steps=(
        Steps("pretrain", 1500, "pre-training", minutes=7.6),
        Steps("finetune", 1800, "fine-tuning of pre-trained models on questions", minutes=3.6),
        Steps("scratch", 4600, "fine-tuning without pre-training: as long as both trainings", minutes=3.6),
    ),
    rows=tuple(row for model in list_models() for row in _scenes_rows(model)),
    default_rows=("unimo3_tiny", "bridgetower_tiny", "meter_tiny", "unimo3_tiny_scratch"),
    tables=(
        Table(
            head=("model", "pre-trained"),
            columns=(
                Column("questions.overall", "overall"),
                Column("questions_blank.overall", "images blanked", each_seed=False),
                Column("training_minutes", "minutes", unit="minutes of training", each_seed=False),
                *(Column(f"questions.{kind}", kind, each_seed=False) for kind in KINDS),
            ),
        ),
    ),
    claims=(
        Claim("Table 1: ahead of BridgeTower", "unimo3_tiny", "bridgetower_tiny", ("questions.overall",)),
        Claim("Table 1: ahead of METER", "unimo3_tiny", "meter_tiny", ("questions.overall",)),
    ),
    next_command="python tools/evaluate.py --task vqa --model {row}/vqa/model --split test",
)
