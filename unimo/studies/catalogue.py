"""All studies: on `scenes`, does what a paper adds help, and how much?"""

from __future__ import annotations

from unimo.errors import ConfigError, nearest
from unimo.registry import list_models
from unimo.studies.study import Claim, Column, Evaluate, Finetune, Pretrain, Row, Steps, Study, Table

# UNIMO-3 against METER and BridgeTower, with and without pre-training, in the same time.

# The learning rate of the recipe spares pre-trained weights; from scratch there are none to spare.
SCRATCH = ("optim.lr=1e-3", "optim.lr_multipliers.heads=5")
SCORES = (
    Evaluate("questions_blank", of="vqa", task="vqa", options=("--blank-images",)),
    Evaluate("questions", of="vqa", task="vqa"),
)
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

# UNIMO-2 with and without the parts of grounded learning.

SHAPES = "image_classification"
# Every text is scored against every image: all four captions of a scene would take four times as long.
ONE_CAPTION = ("data.scenes.captions_per_image=1",)
RETRIEVAL = Evaluate("zero_shot", "pretrain", "retrieval", options=("--zero-shot",), overrides=ONE_CAPTION)
DESCRIBE = (
    Finetune("caption", "caption", "caption"),
    Evaluate("captions", of="caption", task="caption"),
    Finetune("probe", "probe", SHAPES, ("task.linear_probe=true",)),
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

# UNIMO with and without its corpora and augmentations: pairs, texts alone, images alone.

# Retrieval among 200 held-out scenes of one caption each: every pair is scored.
GALLERY = ("data.scenes.val_images=200", "data.scenes.captions_per_image=1")
# Scenes evaluated at the end of fine-tuning on retrieval; all 500 would be a million pairs.
FEW = ("data.scenes.val_images=25",)
# How alike two descriptions are; a few steps exhaust the other forms of the texts of `scenes`.
SIMILARITY = ("task.dataset=stsb", "train.select_metric=correlation")

# Without pairs nothing was compared, and the score is the one that the model started with.
PAIRS = ("data.path=scenes", *GALLERY)
ZERO_SHOT = Evaluate("zero_shot", "pretrain", "retrieval", options=("--zero-shot",), overrides=PAIRS)
TUNED = (
    Finetune("vqa", "vqa", "vqa"),
    Evaluate("questions", of="vqa", task="vqa"),
    Evaluate("questions_blank", of="vqa", task="vqa", options=("--blank-images",)),
    Finetune("retrieval", "retrieval", "retrieval", FEW),
    Evaluate("retrieved", of="retrieval", task="retrieval", overrides=GALLERY),
    Finetune("caption", "caption", "caption"),
    Evaluate("captions", of="caption", task="caption"),
    Finetune("text", "probe", "text_classification", SIMILARITY),
    Evaluate("texts", of="text", task="text_classification"),
    Finetune("image", "probe", "image_classification", ("task.linear_probe=true",)),
    Evaluate("images", of="image", task="image_classification"),
)
COLUMNS = (
    Column("questions.overall", "VQA"),
    Column("questions_blank.overall", "VQA, images blanked"),
    Column("zero_shot.rsum", "zero-shot retrieval, R@1+5+10, both", unit="sum of six recalls", chance=16),
    Column("retrieved.ir_r1", "retrieval, IR R@1", unit="recall, %", chance=0.5),
    Column("retrieved.tr_r1", "TR R@1", unit="recall, %", chance=0.5),
    Column("captions.cider", "caption CIDEr", unit="CIDEr"),
    Column("captions.scenes_exact", "captions all right", unit="captions, %"),
    Column("texts.correlation", "texts alone, correlation", unit="correlation x 100", chance=0),
    Column("images.accuracy", "images alone (probe)", chance=25),
    Column("minutes", "minutes", unit="minutes of the row"),
)


def _unimo_row(name: str, *overrides: str) -> Row:
    return Row(name, "unimo_tiny", (Pretrain(), ZERO_SHOT, *TUNED), overrides)


UNIMO = Study(
    name="unimo",
    question="Does each corpus and each augmentation of UNIMO's pre-training help on scenes?",
    paper="UNIMO, Tables 2 to 4; and, not in the paper, CMCL (Section 2.1) without either augmentation",
    steps=(
        Steps("pretrain", 1000, "pre-training", minutes=18),
        Steps("vqa", 1000, "fine-tuning on questions", minutes=5),
        Steps("retrieval", 400, "fine-tuning on retrieval; 0: zero-shot only", least=0, minutes=5),
        Steps("caption", 600, "fine-tuning on captions", minutes=5),
        Steps("probe", 300, "of texts alone, and of images alone", minutes=5),
    ),
    rows=(
        _unimo_row("full"),
        _unimo_row("w/o single-modal", "model.objective.contrast=itm", "data.texts=[]", "data.images=[]"),
        _unimo_row("w/o texts", "data.texts=[]"),
        _unimo_row("w/o pairs & images", "data.pairs=[]", "data.images=[]"),
        _unimo_row("CMCL w/o rewriting", "task.augment.rewrites="),
        _unimo_row("CMCL w/o retrieval", "task.augment.texts=", "task.augment.images="),
        Row("not pre-trained", "unimo_tiny", TUNED),
    ),
    tables=(Table(head=("pre-training",), columns=COLUMNS),),
    claims=(
        Claim(
            "Table 2: on texts alone ahead of matching on pairs alone",
            "full",
            "w/o single-modal",
            ("texts.correlation",),
        ),
        # Table 1 has no row w/o single-modal; section 4.2 calls UNITER, which is in it, similar.
        Claim(
            "Table 1: ahead of UNITER, which matches on pairs alone",
            "full",
            "w/o single-modal",
            ("retrieved.ir_r1", "retrieved.tr_r1", "questions.overall"),
        ),
        Claim(
            "Table 3: texts help with images",
            "full",
            "w/o texts",
            ("retrieved.ir_r1", "retrieved.tr_r1", "questions.overall", "captions.cider"),
        ),
        Claim("Table 4: images help with texts", "full", "w/o pairs & images", ("texts.correlation",)),
    ),
    next_command="python tools/evaluate.py --task vqa --model {row}/vqa/model --split test",
)

# VLMo: experts, tasks, stages and pools of hard negatives.

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

# SemVLP: modes of pre-training and of fine-tuning, and the layer above which images read texts.

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

STUDIES: dict[str, Study] = {study.name: study for study in (SCENES, UNIMO2, UNIMO, VLMO, SEMVLP)}


def find_study(name: str) -> Study:
    """Return the study of a name.

    Raises:
        ConfigError: the name is unknown; the nearest names are given.
    """
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}; {nearest(name, STUDIES)}")
    return STUDIES[name]
