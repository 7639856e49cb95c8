"""VLMo: experts, tasks, stages and pools of hard negatives."""

from __future__ import annotations

from unimo.studies.catalogue.scores import RETRIEVAL, SCORES
from unimo.studies.study import Claim, Column, Evaluate, Finetune, Pretrain, Row, Steps, Study, Table

# Found for `scenes`, the same in every row: a patch is a quarter of a scene, and nothing is made small first.
SCENE_SIZE = (
    "model.vision.patch_size=32",
    "model.transformer.positions=absolute",
    "model.transformer.layer_scale=null",
)
PAIR_TASKS = (
    RETRIEVAL,
    Finetune("vqa", "vqa", "vqa"),
    *SCORES,
    Finetune("nlvr2", "nlvr2", "nlvr2"),
    Evaluate("statements", of="nlvr2", task="nlvr2"),
)
FULL = "Multiway with VL experts"
STANDARD, NO_PAIR_EXPERTS = "standard Transformer", "Multiway without VL experts"
IMAGES = Pretrain("images", "images", ("task.stage=vision",))
TEXTS = Pretrain("texts", "texts", ("task.stage=language",), after="images")
POOL = "train.batch_size=128"


def _vlmo_row(name: str, *overrides: str, stages: tuple[Pretrain, ...] = (Pretrain(),)) -> Row:
    return Row(name, "vlmo_tiny", (*stages, *PAIR_TASKS), (*SCENE_SIZE, *overrides))


BOTH_SCORES = ("questions.overall", "zero_shot.rmean", "statements.accuracy")
VLMO = Study(
    name="vlmo",
    question="Do experts, tasks, stages and a large pool of hard negatives help VLMo on scenes?",
    paper="VLMo, Tables 3, 5 and 6",
    steps=(
        Steps("pretrain", 500, "vision-language stage", minutes=8),
        Steps("vqa", 600, "fine-tuning on questions", minutes=4),
        Steps("nlvr2", 0, "fine-tuning on statements about two scenes; 0: none", least=0, minutes=5),
        Steps("images", 300, "vision stage", minutes=4),
        Steps("texts", 300, "language stage", minutes=4),
        Steps("pool", 250, "vision-language stage with batches of 128", minutes=16),
    ),
    rows=(
        _vlmo_row(STANDARD, "model.transformer.experts=shared"),
        _vlmo_row(NO_PAIR_EXPERTS, "model.transformer.pair_layers=0"),
        _vlmo_row(FULL),
        _vlmo_row("ITC", "model.objective.tasks=[itc]"),
        _vlmo_row("ITC + MLM", "model.objective.tasks=[itc, mlm]"),
        _vlmo_row("ITC + ITM", "model.objective.tasks=[itc, itm]"),
        _vlmo_row(
            "after images",
            stages=(IMAGES, Pretrain(after="images", overrides=("task.init_experts=image",))),
        ),
        _vlmo_row("after images and texts", stages=(IMAGES, TEXTS, Pretrain(after="texts"))),
        _vlmo_row(
            "8 of 128 candidates", POOL, "model.objective.candidates=8", stages=(Pretrain(steps="pool"),)
        ),
        _vlmo_row("128 of 128 candidates", POOL, stages=(Pretrain(steps="pool"),)),
    ),
    default_rows=(STANDARD, NO_PAIR_EXPERTS, FULL),
    tables=(
        Table(
            head=("pre-training",),
            columns=(
                Column("questions.overall", "questions"),
                Column("questions_blank.overall", "images blanked", each_seed=False),
                Column("zero_shot.rmean", "zero-shot retrieval, mean of R@1, 5, 10", unit="recall, %"),
                Column("statements.accuracy", "statements about two scenes", chance=50),
                Column("minutes", "minutes", unit="minutes of the row", each_seed=False),
            ),
        ),
    ),
    claims=(
        Claim("Table 5: Multiway ahead of a standard Transformer", FULL, STANDARD, BOTH_SCORES),
        Claim("Table 5: the experts for pairs help", FULL, NO_PAIR_EXPERTS, BOTH_SCORES),
        Claim("Table 5: all tasks ahead of ITC", FULL, "ITC", BOTH_SCORES),
        Claim("Table 5: ITM helps", FULL, "ITC + MLM", BOTH_SCORES),
        Claim("Table 5: MLM helps", FULL, "ITC + ITM", BOTH_SCORES),
        Claim("Section 4.6: stages ahead of none", "after images and texts", FULL, BOTH_SCORES),
        Claim("Table 3: the stage of texts helps", "after images and texts", "after images", BOTH_SCORES),
        Claim(
            "Table 6: more candidates help",
            "128 of 128 candidates",
            "8 of 128 candidates",
            BOTH_SCORES,
        ),
    ),
    next_command="python tools/evaluate.py --task retrieval --zero-shot --model {row}/pretrain/model "
    "--split test data.scenes.captions_per_image=1",
)
