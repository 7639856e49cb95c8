"""Cases of `recorder.py`: small runs of every command, and what is kept of each.

A case runs its steps one after the other in a folder of its own; paths are relative to that folder. The
words are those that the old code takes. Where a setting has moved since, `RENAMED` says so, in this one
place, and the same table then serves both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

RENAMED: dict[str, str] = {
    f"data.{name}": f"task.{name}"
    for name in (
        "augment.",
        "masking=",
        "mlm_probability=",
        "whole_word_masking=",
        "false_images=",
        "seq2seq_probability=",
        "fragment_share=",
        "region_mask_probability=",
        "phrases=",
        "view_transform=",
    )
}
"""Old beginning of a setting -> its new name. `recorder.py record --old-names` leaves it out."""

PAIRS = "data.scenes.train_images=200 data.scenes.val_images=16"
LOOP = "train.max_steps=10 train.log_every=1 train.save_every=0 train.device=cpu"
BATCH = "train.batch_size=16 train.eval_batch_size=16"
SMALL = f"{PAIRS} {LOOP} {BATCH}"
FEW = "data.scenes.val_images=8 data.scenes.captions_per_image=2"
FIRST, SECOND = "{path: scenes, weight: 0.7, name: a}", "{path: scenes, weight: 0.3, name: b}"
TOKENS = "data.tokenizer={shared}/data/tokenizer/unimo_en"


@dataclass(frozen=True)
class Step:
    """One command, and what is kept of it."""

    name: str
    words: str
    """Tool and arguments; `{checkout}` and `{shared}` are folders."""
    keep: tuple[str, ...]
    """`log:FILE`, `model:FILE`, `files:PATH` or `json` (what was printed); see `recorder.py`."""
    ranks: int = 1


@dataclass(frozen=True)
class Case:
    """Steps that share a folder."""

    name: str
    steps: tuple[Step, ...]
    inputs: tuple[str, ...] = ()
    """Functions of `recorded_inputs.py` that fill the folder first."""


def training(name: str, words: str, out: str = "out", ranks: int = 1, also: tuple[str, ...] = ()) -> Step:
    """A run: every line of its log, the tensors that it ends with, and its tokenizer."""
    model = f"{out}/model"
    kept = (f"log:{out}/metrics.jsonl", f"model:{model}/model.safetensors", f"files:{model}/tokenizer.json")
    return Step(name, f"{words} output_dir={out}", (*kept, *also), ranks)


def pretrain(words: str, out: str = "out", ranks: int = 1, name: str = "pretrain") -> Step:
    """A small pre-training."""
    model, _, rest = words.partition(" ")
    return training(name, f"tools/pretrain.py {model} {SMALL} {rest}", out, ranks)


def finetune(task: str, words: str = "", out: str = "out", ranks: int = 1, name: str = "finetune") -> Step:
    """A small fine-tuning; `words` win."""
    return training(name, f"tools/finetune.py --task {task} {SMALL} {of_task(task)} {words}", out, ranks)


def of_task(task: str) -> str:
    """Fewer held-out samples where evaluation compares or generates much."""
    return FEW if task in ("retrieval", "caption", "seq2seq") else ""


def evaluate(task: str, words: str = "", model: str = "out", ranks: int = 1, name: str = "evaluate") -> Step:
    """An evaluation: what it prints, and the file of predictions where there is one."""
    kept, said = ("json",), ""
    if task != "pretrain" and "--zero-shot" not in words:
        file = f"{name}_said.{'txt' if task == 'seq2seq' else 'json'}"
        kept, said = ("json", f"files:{file}"), f"--predictions {file}"
    return Step(name, f"tools/evaluate.py --task {task} --model {model} {said} {words}", kept, ranks)


def predict(words: str, model: str = "out", name: str = "predict") -> Step:
    """Answers as JSON."""
    return Step(name, f"tools/predict.py --model {model} --json {words}", ("json",))


ASK = {
    "vqa": '--image picture.png --question "how many objects are there ?" --question "what color is it ?"',
    "entailment": '--image picture.png --text "there is a red circle ." --text "there are two objects ."',
    "retrieval": '--image picture.png --text "there is a red circle ." --text "a blue cross"',
    "caption": "--image picture.png --caption --n-best 2",
    "seq2seq": '--generate "there is a small red circle .\tred" --n-best 2',
    "text_classification": '--text "there is a red circle ." --text "two blue shapes"',
    "image_classification": "--image picture.png",
}
BOTH = ("vqa", "entailment", "retrieval")
ALONE = ("caption", "image_classification", "text_classification")
TASKS = {
    "unimo3_tiny": BOTH,
    "meter_tiny": BOTH,
    "bridgetower_tiny": BOTH,
    "unimo2_tiny": (*BOTH, *ALONE),
    "unimo_tiny": (*BOTH, *ALONE, "seq2seq"),
}
PRETRAINED = {
    "unimo3_tiny": "",
    "unimo3_tiny_d": "",
    "meter_tiny": "",
    "bridgetower_tiny": "",
    "unimo2_tiny": "data.pairs_only_epochs=0.1",  # texts and images alone come in after 5 steps
    "unimo_tiny": "",
}


def of_recipes() -> list[Case]:
    """Every tiny recipe as it stands."""
    cases = []
    for model, words in PRETRAINED.items():
        steps = [pretrain(f"{model} {words}"), evaluate("pretrain")]
        if model in ("unimo2_tiny", "unimo_tiny"):
            steps.append(evaluate("retrieval", f"--zero-shot {FEW}", name="zero_shot_retrieval"))
            steps.append(evaluate("image_classification", "--zero-shot", name="zero_shot_classes"))
        steps.append(predict('--image picture.png --labels "circle,square,red cross" --prompt "a {} ."'))
        cases.append(Case(f"pretrain/{model}", tuple(steps), ("picture",)))
        if model == "unimo_tiny":  # one sample in seven is a text, and each rank needs one
            words += " train.batch_size=32"
        cases.append(Case(f"pretrain/{model}/two_ranks", (pretrain(f"{model} {words}", ranks=2),)))
    for model, tasks in TASKS.items():
        for task in tasks:
            steps = [finetune(task, f"--model {model} --init none"), evaluate(task), predict(ASK[task])]
            cases.append(Case(f"{task}/{model}", tuple(steps), ("picture",)))
    return cases


def one(name: str, *steps: Step, inputs: tuple[str, ...] = ()) -> Case:
    """A case of some steps."""
    return Case(name, steps, inputs)


def of_pretraining_options() -> list[Case]:
    """Settings of pre-training that the tiny recipes leave alone."""
    options = {
        "unimo3_tiny": {
            "span": "data.masking=span",
            "whole_words": "data.whole_word_masking=true",
            "span_whole_words": "data.masking=span data.whole_word_masking=true data.mlm_probability=0.15",
            "dataset_negatives": "data.false_images=dataset",
            "hard": "model.objective.itm_negatives=hard",
            "rounds": "train.micro_batch_size=4",
            "recompute": "train.recompute=true",
            "cosine": "optim.schedule=cosine optim.warmup=3 optim.clip_grad_norm=null",
            "piecewise": "optim.schedule=piecewise optim.milestones=[[0.5,0.1],[0.8,0.01]]",
            "randaug": "data.train_transform=clip_randaug",
            "dropout": "model.text.dropout=0.1 model.fusion.attention_dropout=0.1",
            "seed": "seed=3 data.scenes.seed=5 data.num_workers=0",
            "best": "train.eval_every=4 train.select_metric=mlm_loss train.save_every=3",
            "two_corpora": f"'data.pairs=[{FIRST}, {SECOND}]'",
        },
        "meter_tiny": {"dataset_negatives": "data.false_images=dataset"},
        "unimo2_tiny": {
            "pairs_only": "data.texts=[] data.images=[] data.pairs_only_epochs=0",
            "at_once": "data.pairs_only_epochs=0",
            "texts": "data.pairs_only_epochs=0 data.images=[] data.masking=token",
            "one_to_one": "data.pairs_only_epochs=0 model.grounding.method=one_to_one",
            "no_dictionary": "data.pairs_only_epochs=0 model.grounding.enabled=false",
            "full": "data.pairs_only_epochs=0 model.fusion.visibility=full",
            "hard_contrast": "model.objective.itm_negatives=hard model.objective.contrastive=true",
            "projected": "model.grounding.project=true model.fusion.itm_feature=product",
            "summed": "model.grounding.reduction=sum model.grounding.mask_padding=false",
            "vit": "data.pairs_only_epochs=0 data.train_transform=vit data.view_transform=vit_views",
            "dataset_negatives": "data.pairs_only_epochs=0.1 data.false_images=dataset",
            "rounds": "data.pairs_only_epochs=0.1 train.micro_batch_size=8",
        },
        "unimo_tiny": {
            "phrases": "data.phrases=textblob",
            "grid": "data.regions=grid data.max_regions=20 data.region_mask_probability=0.3",
            "no_augmentation": "data.augment.rewrites= data.augment.texts= data.augment.images=",
            "rewrites_only": "data.augment.texts= data.augment.images= data.augment.negatives=4",
            "related": "data.augment.related_images=2 data.augment.related_texts=2 data.augment.positives=2",
            "itm": "model.objective.contrast=itm data.texts=[] data.images=[]",
            "without_pairs": "data.pairs=[] data.images=[]",
            "masked_only": "data.seq2seq_probability=0 data.masking=token",
            "fragments_only": "data.seq2seq_probability=1 data.fragment_share=0.4",
            "summed": "model.objective.regression_reduction=sum",
            "curriculum": "data.pairs_only_epochs=0.1",
            "rounds": "train.batch_size=32 train.micro_batch_size=16",
            "temperature": "model.objective.temperature=0.5 model.objective.region_regression=false",
        },
    }
    return [
        one(f"pretrain/{model}/{name}", pretrain(f"{model} {words}"))
        for model, of_model in options.items()
        for name, words in of_model.items()
    ]


def of_finetuning_options() -> list[Case]:
    """Settings of the tasks, starts from a pre-trained model, and evaluation without seeing."""
    scratch = {model: f"--model {model} --init none" for model in TASKS}
    adversarial = "task.adversarial.steps=2"
    two = ("retrieval", "entailment")
    options = {
        "vqa/unimo3_tiny/rounds": ("vqa", "unimo3_tiny", "train.micro_batch_size=4 task.min_answer_count=2"),
        "vqa/unimo2_tiny/best": ("vqa", "unimo2_tiny", "train.eval_every=5 train.select_metric=overall"),
        "entailment/unimo_tiny/adversarial": ("entailment", "unimo_tiny", adversarial),
        "entailment/unimo_tiny/adversarial_paper": (
            "entailment",
            "unimo_tiny",
            "task.adversarial.steps=3 task.adversarial.projection=paper task.head=mlp",
        ),
        "entailment/unimo3_tiny/linear": ("entailment", "unimo3_tiny", "task.head=linear"),
        "caption/unimo_tiny/adversarial": ("caption", "unimo_tiny", adversarial),
        "caption/unimo2_tiny/java": ("caption", "unimo2_tiny", "task.java=true task.beam.max_length=12"),
        "caption/unimo2_tiny/beam": (
            "caption",
            "unimo2_tiny",
            "task.beam.size=5 task.beam.length_penalty=0.6 task.beam.block_trigrams=true "
            "task.beam.renormalise=true task.label_smoothing=0.2 model.fusion.caption_sees_image=true",
        ),
        "retrieval/unimo2_tiny/circle": ("retrieval", "unimo2_tiny", "task.loss=circle task.negatives=6"),
        "retrieval/unimo_tiny/itc_itm": ("retrieval", "unimo_tiny", "task.loss=itc_itm"),
        "retrieval/unimo3_tiny/exhaustive": (
            "retrieval",
            "unimo3_tiny",
            "task.exhaustive=true data.train_transform=blip_randaug_wc data.eval_transform=blip",
        ),
        "retrieval/unimo3_tiny/candidates": ("retrieval", "unimo3_tiny", "task.candidates=4"),
        "image_classification/unimo2_tiny/probe": (
            "image_classification",
            "unimo2_tiny",
            "task.protocol=linear data.train_transform=vit_crop",
        ),
        "text_classification/unimo2_tiny/dropout": (
            "text_classification",
            "unimo2_tiny",
            "task.head_dropout=0.3 model.text.dropout=0.1",
        ),
        "seq2seq/unimo_tiny/dialog": (
            "seq2seq",
            "unimo_tiny",
            "task.dialog=true model.role_types=3 model.turn_types=16 task.metrics=[coqa]",
        ),
        "seq2seq/unimo_tiny/mask_end": (
            "seq2seq",
            "unimo_tiny",
            "task.end_token=mask task.metrics=[bleu,rouge,coco_rouge_l,exact] task.beam.size=2 "
            "task.pool_references=true",
        ),
    }
    cases = [
        one(name, finetune(task, f"{scratch[model]} {words}"), evaluate(task))
        for name, (task, model, words) in options.items()
    ]
    for model, tasks in {"unimo3_tiny": BOTH, "unimo2_tiny": TASKS["unimo2_tiny"]}.items():
        cases.append(after_pretraining(model, tasks))
    cases.append(after_pretraining("unimo_tiny", ("vqa", "retrieval", "caption", "seq2seq")))
    cases.append(after_pretraining("meter_tiny", two))
    blank = evaluate("vqa", "--blank-images --split test data.scenes.val_images=4")
    cases.append(one("vqa/unimo3_tiny/blank", finetune("vqa", scratch["unimo3_tiny"]), blank))
    return cases


def after_pretraining(model: str, tasks: tuple[str, ...]) -> Case:
    """Tasks that start from one pre-trained model, found by its name or given."""
    steps = [pretrain(model, out="output/before")]
    for number, task in enumerate(tasks):
        start = "--init output/before" if number else f"--model {model}"
        steps.append(finetune(task, start, out=f"output/{task}", name=f"finetune_{task}"))
        steps.append(evaluate(task, model=f"output/{task}", name=f"evaluate_{task}"))
    return Case(f"after_pretraining/{model}", tuple(steps))
