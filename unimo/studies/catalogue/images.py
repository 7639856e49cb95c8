"""The three readings of classifying images alone, with and without pre-training."""

from __future__ import annotations

from unimo.studies.study import Claim, Column, Evaluate, Finetune, Pretrain, Row, Stage, Steps, Study, Table

TASK = "image_classification"
READINGS = {
    "finetune": "tower and classifier learn",
    "reference": "the tower learns",
    "linear": "the classifier learns",
}


# Vectors of two images have much in common, and nothing is spoilt by a large rate.
PROBE = ("optim.lr=0.1", "optim.weight_decay=0")


def _read(protocol: str) -> tuple[Stage, Stage]:
    steps, more = ("probe", PROBE) if protocol == "linear" else ("finetune", ())
    return (
        Finetune(protocol, steps, TASK, (f"task.protocol={protocol}", *more)),
        Evaluate(f"{protocol}_val", of=protocol, task=TASK),
    )


READ = tuple(stage for protocol in READINGS for stage in _read(protocol))

IMAGES = Study(
    name="images",
    question="How much of the shapes in scenes does the vision tower know, by the three readings of a probe?",
    paper="UNIMO-3, Table 4",
    steps=(
        Steps("pretrain", 1500, "pre-training on pairs", minutes=7.6),
        Steps("finetune", 600, "fine-tuning of the tower, with its classifier and without", minutes=6),
        Steps("probe", 2000, "training of the classifier alone", minutes=2),
    ),
    rows=(
        Row("unimo3_tiny", "unimo3_tiny", (Pretrain(), *READ), cells=("yes",)),
        Row("unimo3_tiny_scratch", "unimo3_tiny", READ, cells=("no",)),
    ),
    tables=(
        Table(
            head=("pre-trained",),
            columns=(
                *(
                    Column(f"{name}_val.accuracy", f"{name}: {what}", chance=25)
                    for name, what in READINGS.items()
                ),
                Column("finetune_val.majority", "most frequent class", each_seed=False),
                Column("training_minutes", "minutes", unit="minutes of training", each_seed=False),
            ),
        ),
    ),
    claims=tuple(
        Claim(f"{name}: pre-training helps", "unimo3_tiny", "unimo3_tiny_scratch", (f"{name}_val.accuracy",))
        for name in READINGS
    ),
    seeds=(0,),
    next_command=f"python tools/predict.py --task {TASK} --model {{row}}/finetune/model --image FILE",
)
