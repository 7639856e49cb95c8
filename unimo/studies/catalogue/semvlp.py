"""SemVLP: modes of pre-training and of fine-tuning, and the layer above which images read texts."""

from __future__ import annotations

from unimo.studies.catalogue.scores import SCORES
from unimo.studies.study import Claim, Column, Evaluate, Finetune, Pretrain, Row, Steps, Study, Table

IN_SINGLE, IN_TWO = ("task.mode=single",), ("task.mode=two",)  # else that of pre-training
QUESTIONS_IN_TWO = (Finetune("vqa_two", "vqa", "vqa", IN_TWO), Evaluate("questions_two", "vqa_two", "vqa"))
IN_BOTH_MODES = (
    Finetune("vqa", "vqa", "vqa", IN_SINGLE),
    *SCORES,
    *QUESTIONS_IN_TWO,
    Finetune("gqa", "gqa", "gqa", IN_SINGLE),
    Evaluate("related", of="gqa", task="gqa"),
    Finetune("gqa_two", "gqa", "gqa", IN_TWO),
    Evaluate("related_two", of="gqa_two", task="gqa"),
    Finetune("nlvr2", "nlvr2", "nlvr2", IN_SINGLE),
    Evaluate("statements", of="nlvr2", task="nlvr2"),
    Finetune("nlvr2_two", "nlvr2", "nlvr2", IN_TWO),
    Evaluate("statements_two", of="nlvr2_two", task="nlvr2"),
)
ONE, TWO, BOTH = "single-stream", "two-stream", "both"
IN_ONE = ("questions.overall", "related.accuracy", "statements.accuracy")
BY_MODE = (*IN_ONE, *(key.replace(".", "_two.") for key in IN_ONE))


def _mode_row(name: str, mode: str) -> Row:
    return Row(name, "semvlp_tiny", (Pretrain(), *IN_BOTH_MODES), (f"task.modes={mode}",))


def _depth_row(start: int) -> Row:
    overrides = ("task.modes=two", f"model.cross.start={start}")
    return Row(f"two-stream, L_s={start}", "semvlp_tiny", (Pretrain(), *QUESTIONS_IN_TWO), overrides)


SEMVLP = Study(
    name="semvlp",
    question="Does pre-training in both modes help SemVLP, and from which layer should images read texts?",
    paper="SemVLP, Tables 4 and 5 and Fig. 3",
    steps=(
        Steps("pretrain", 500, "pre-training", minutes=3.6),
        Steps("vqa", 400, "fine-tuning on questions, in each mode", minutes=5.2),
        Steps("gqa", 400, "fine-tuning on related questions, in each mode", minutes=7),
        Steps("nlvr2", 200, "fine-tuning on statements, in each mode; 0: none", least=0, minutes=9),
    ),
    rows=(
        _mode_row(ONE, "single"),
        _mode_row(TWO, "two"),  # L_s = 2
        _mode_row(BOTH, "both"),
        *(_depth_row(start) for start in (0, 1, 3, 4)),
    ),
    default_rows=(ONE, TWO, BOTH),
    tables=(
        Table(
            head=("pre-training",),
            columns=(
                Column("questions.overall", "questions, single"),
                Column("questions_two.overall", "questions, two"),
                Column("questions_blank.overall", "images blanked", each_seed=False),
                Column("related.accuracy", "related questions, single"),
                Column("related_two.accuracy", "related questions, two"),
                Column("statements.accuracy", "statements, single", chance=50, each_seed=False),
                Column("statements_two.accuracy", "statements, two", chance=50, each_seed=False),
                Column("minutes", "minutes", unit="minutes of the row", each_seed=False),
            ),
        ),
    ),
    claims=(
        Claim("Table 4: both modes ahead of single-stream", BOTH, ONE, BY_MODE),
        Claim("Table 4: both modes ahead of two-stream", BOTH, TWO, BY_MODE),
        Claim("Fig. 3: the middle ahead of L_s=0", TWO, "two-stream, L_s=0", ("questions_two.overall",)),
        Claim("Fig. 3: the middle ahead of none", TWO, "two-stream, L_s=4", ("questions_two.overall",)),
    ),
    next_command="python tools/evaluate.py --task vqa --model {row}/vqa/model --split test",
)
