"""UNIMO with and without its corpora and augmentations: pairs, texts alone, images alone."""

from __future__ import annotations

from unimo.studies.study import Claim, Column, Evaluate, Finetune, Pretrain, Row, Steps, Study, Table

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
    Finetune("image", "probe", "image_classification", ("task.protocol=linear",)),
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
