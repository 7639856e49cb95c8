"""All cases of `recorder.py`: those of `recorded_cases.py`, runs on ranks and on files, and jobs."""

from __future__ import annotations

from recorded_cases import (
    ASK,
    FEW,
    LOOP,
    TOKENS,
    Case,
    Step,
    evaluate,
    finetune,
    of_finetuning_options,
    of_pretraining_options,
    of_recipes,
    one,
    predict,
    pretrain,
    training,
)

DETECTOR = "{checkout}/ppdet_features/configs/scenes_tiny.yaml"
STORE = ("files:regions",)
PAIRS_ALONE = "data.texts=[] data.images=[] data.augment.rewrites= data.augment.texts= data.augment.images="


def of_ranks() -> list[Case]:
    """Two ranks: tasks, sharded optimizers, rounds, evaluation."""
    cases = []
    for task, model, words in (
        ("vqa", "unimo3_tiny", ""),
        ("retrieval", "unimo3_tiny", ""),
        ("retrieval", "unimo2_tiny", ""),
        ("retrieval", "unimo_tiny", ""),
        ("caption", "unimo2_tiny", ""),
        ("seq2seq", "unimo_tiny", ""),
        ("text_classification", "unimo2_tiny", ""),
        ("image_classification", "unimo_tiny", ""),
        ("entailment", "unimo_tiny", "task.adversarial.steps=2"),
    ):
        train = finetune(task, f"--model {model} --init none {words}", ranks=2)
        alone = evaluate(task, name="evaluate_alone")
        cases.append(one(f"{task}/{model}/two_ranks", train, evaluate(task, ranks=2), alone))
    for model, name, words in (
        ("unimo3_tiny", "sharded_1", "train.sharding_stage=1"),
        ("unimo3_tiny", "sharded_2", "train.sharding_stage=2"),  # refused on a CPU
        ("unimo2_tiny", "sharded_1", "train.sharding_stage=1 data.pairs_only_epochs=0.1"),
        ("unimo2_tiny", "contrast", "model.objective.contrastive=true model.objective.itm_negatives=hard"),
        ("unimo_tiny", "sharded_1", "train.sharding_stage=1 train.batch_size=32"),
        ("unimo_tiny", "itm", "model.objective.contrast=itm train.batch_size=32"),
        ("unimo3_tiny", "hard", "model.objective.itm_negatives=hard"),
        ("unimo3_tiny", "rounds", "train.micro_batch_size=4 train.recompute=true"),
        ("unimo2_tiny", "rounds", "train.batch_size=32 train.micro_batch_size=8 data.pairs_only_epochs=0.1"),
        ("unimo_tiny", "rounds", "train.batch_size=64 train.micro_batch_size=16"),
    ):
        cases.append(one(f"pretrain/{model}/two_ranks_{name}", pretrain(f"{model} {words}", ranks=2)))
    return cases


def of_resuming() -> list[Case]:
    """A run that ends after five steps and goes on to ten."""
    cases = []
    short = "train.max_steps=5 train.save_every=3 optim.schedule=constant"
    longer = short.replace("max_steps=5", "max_steps=10")
    for model in ("unimo3_tiny", "unimo2_tiny", "unimo_tiny"):
        curriculum = "data.pairs_only_epochs=0.1 " if model != "unimo3_tiny" else ""
        half = pretrain(f"{model} {curriculum}{short}", name="half")
        other = pretrain(
            f"{model} {curriculum}{longer} resume=out/checkpoints/step_00000010", "other", name="other"
        )
        whole = pretrain(f"{model} {curriculum}{longer}", name="whole")
        cases.append(one(f"resume/{model}", half, whole, other))
    ranks = (
        pretrain(f"unimo3_tiny {short}", ranks=2, name="half"),
        pretrain(f"unimo3_tiny {longer}", name="whole"),
    )
    cases.append(one("resume/unimo3_tiny/ranks_then_one", *ranks))
    half = finetune("vqa", f"--model unimo3_tiny --init none {short}", name="half")
    cases.append(
        one("resume/vqa", half, finetune("vqa", f"--model unimo3_tiny --init none {longer}", name="whole"))
    )
    return cases


def of_regions() -> list[Case]:
    """The detector, the features that it finds, and training on them."""
    train = f"ppdet_features/train_detector.py --quiet --config {DETECTOR}"
    scenes, log = f"{train} --scenes --out detector", "Training.log_every=1"
    kept = (
        "log:detector/log.jsonl",
        "model:detector/model.safetensors",
        "files:detector/metrics.json",
        "json",
    )
    drawn = f"{train} --annotations boxes.json --images boxed --out detector"
    held_out = "--val-annotations boxes.json --val-images boxed"
    first = Step("train", f"{scenes} {log} Training.steps=10", kept)
    again = f"{train} --scenes --init detector/model.safetensors --out other {log} Training.steps=3"
    others = ("model:other/model.safetensors", "log:other/log.jsonl")
    weights = "--detector detector/config.yaml --weights detector/model.safetensors"
    extract = f"tools/extract_features.py --quiet {weights}"
    of_scenes = "--images scenes --kind pairs --split train+val --scenes-images 60 --images-per-shard 16"
    stored = Step("extract", f"{extract} {of_scenes} --out regions", STORE)
    on_regions = f"data.regions=regions data.scenes.train_images=60 {PAIRS_ALONE}"
    folder = f"{extract} --images pictures --images-per-shard 4 --batch-size 2 --max-bad-rate 0.1 --draw 2"
    from_tsv = "tools/extract_features.py from-tsv --quiet pictures.tsv back"
    half = Step("half", f"{scenes} {log} Training.steps=3", kept[:2])
    whole = Step("whole", f"{scenes} {log} Training.steps=6", kept[:2])
    related = (
        "tools/augment_corpus.py retrieve-images --quiet --captions few.txt --kind texts --collection regions"
    )
    return [
        one("detector/scenes", first),
        one(
            "detector/boxes",
            Step("train", f"{drawn} {held_out} {log} Training.steps=5 Training.batch_size=4", kept),
            inputs=("boxes",),
        ),
        one("detector/init", first, Step("again", again, others)),
        one("detector/resume", half, whole),
        one(
            "regions/scenes",
            Step("train", f"{scenes} {log} Training.steps=60", kept),
            stored,
            pretrain(f"unimo_tiny {on_regions}"),
            evaluate("pretrain"),
            finetune("vqa", f"--model unimo_tiny --init out {on_regions.split(' data.texts')[0]}", "tuned"),
            evaluate("vqa", model="tuned", name="evaluate_vqa"),
            Step("related", f"{related} --out related.jsonl --work work", ("files:related.jsonl", "json")),
            inputs=("captions",),
        ),
        one(
            "regions/pictures",
            first,
            Step("extract", f"{folder} --out regions", STORE),
            Step("two_ranks", f"{folder} --out ranks", ("files:ranks",), ranks=2),
            Step(
                "to_tsv",
                "tools/extract_features.py to-tsv --quiet regions pictures.tsv",
                ("files:pictures.tsv",),
            ),
            Step("from_tsv", from_tsv, ("files:back",)),
            Step(
                "draw",
                "tools/extract_features.py draw regions pictures/02.png drawn.png",
                ("files:drawn.png",),
            ),
            inputs=("pictures",),
        ),
    ]


def job(name: str, words: str, *kept: str, ranks: int = 1) -> Step:
    """A job that is kept by its files and by what it printed."""
    return Step(name, words, (*kept, "json"), ranks)


def of_augmentation() -> list[Case]:
    """Rewritten captions, related texts and images, and training on them."""
    tool = "tools/augment_corpus.py"
    rewrite = f"{tool} rewrite --quiet --captions captions.txt --out out.jsonl --work work --keep 20"
    texts = (
        f"{tool} retrieve-text --quiet --captions few.txt --corpus captions.txt --out out.jsonl --work work"
    )
    images = f"{tool} retrieve-images --quiet --captions pairs --out images.jsonl --work images"
    own_texts = (
        texts.replace("few.txt", "pairs")
        .replace("out.jsonl", "texts.jsonl")
        .replace("--work work", "--work texts")
    )
    own = "--captions pairs --out rewrites.jsonl --work rewrites --min-count 1 --keep 10"
    files = (
        "data.augment.rewrites=rewrites.jsonl data.augment.texts=texts.jsonl data.augment.images=images.jsonl"
    )
    run = f"unimo_tiny data.pairs=pairs data.texts=captions.txt data.images=[] {TOKENS} {files}"
    ranks = rewrite.replace("--keep 20", "--keep 5")
    return [
        one("augment/rewrite", job("rewrite", rewrite, "files:out.jsonl"), inputs=("captions",)),
        one(
            "augment/rewrite_ranks",
            job("rewrite", ranks, "files:out-0-of-2.jsonl", "files:out-1-of-2.jsonl", ranks=2),
            inputs=("captions",),
        ),
        one("augment/texts", job("texts", texts, "files:out.jsonl"), inputs=("captions",)),
        one(
            "augment/pairs",
            job("rewrites", f"{tool} rewrite --quiet {own}", "files:rewrites.jsonl"),
            job("texts", own_texts, "files:texts.jsonl"),
            job("images", f"{images} --collection labels.jsonl", "files:images.jsonl"),
            pretrain(f"{run} train.batch_size=8"),
            inputs=("texts_with_ids", "captions"),
        ),
        one("augment/objects", job("images", images, "files:images.jsonl"), inputs=("texts_with_ids",)),
    ]


def of_preparation() -> list[Case]:
    """Preparation of data sets, and training on what came out."""
    tool, photos = "tools/prepare_data.py", "{shared}/data/flickr8k_800/images"
    karpathy = (
        f"{tool} karpathy --annotations photographs.json --images {photos} --out data --rows-per-file 30"
    )
    vqa = f"{tool} vqa --annotations vqav2 --images coco --out data --rest-images 2 --min-count 2"
    snli = f"{tool} snli-ve --annotations snli --images flickr30k --out data"
    read = f"data.pairs=data {TOKENS}"
    return [
        one(
            "files/photographs",
            job("prepare", karpathy, "files:data"),
            pretrain(f"unimo3_tiny {read}"),
            pretrain(
                f"unimo3_tiny {read} data.false_images=dataset data.masking=span", "other", name="masked"
            ),
            pretrain(f"unimo_tiny {read} data.phrases=textblob {PAIRS_ALONE}", "unimo", name="unimo"),
            finetune("retrieval", f"--model unimo3_tiny --init none data.path=data {TOKENS}", "tuned"),
            evaluate("retrieval", "--split test", model="tuned"),
            inputs=("photographs",),
        ),
        one(
            "files/vqa",
            job("prepare", vqa, "files:data"),
            job("normalised", vqa.replace("--out data", "--out fixed --variant normalised"), "files:fixed"),
            finetune("vqa", f"--model unimo3_tiny --init none data.path=data {TOKENS}"),
            evaluate("vqa", "--split rest_val"),
            inputs=("vqa_files",),
        ),
        one(
            "files/snli_ve",
            job("prepare", snli, "files:data"),
            finetune("entailment", f"--model unimo2_tiny --init none data.path=data {TOKENS}"),
            evaluate("entailment", "--split test"),
            inputs=("snli_files",),
        ),
        one(
            "files/own",
            *(
                job(
                    kind, f"{tool} jsonl --input own/{kind}.jsonl --kind {kind} --out {kind}", f"files:{kind}"
                )
                for kind in ("pairs", "vqa", "entailment")
            ),
            inputs=("own_files",),
        ),
    ]


def of_files() -> list[Case]:
    """Training on files as they are."""
    prompt = "'data.pairs=[{path: tree, prompt: \"a photo of {}\"}]'"
    return [
        one(
            "files/tar",
            pretrain(
                "unimo2_tiny data.pairs=shards data.texts=captions.txt data.images=tree "
                "data.pairs_only_epochs=0"
            ),
            evaluate("pretrain"),
            inputs=("tar_shards", "captions", "image_tree"),
        ),
        one(
            "files/labels_as_pairs",
            pretrain(f"unimo2_tiny {prompt} data.texts=[] data.images=[] data.pairs_only_epochs=0 {TOKENS}"),
            evaluate(
                "image_classification",
                '--zero-shot data.path=tree --prompt "there is {}" --labels labels.txt',
            ),
            predict('--image picture.png --labels "a ball,a box"'),
            inputs=("image_tree", "picture"),
        ),
        one(
            "files/image_tree",
            finetune("image_classification", "--model unimo2_tiny --init none data.path=tree"),
            evaluate("image_classification", "data.path=tree"),
            inputs=("image_tree",),
        ),
        one(
            "files/sst2",
            finetune("text_classification", f"--model unimo_tiny --init none data.path=SST-2 {TOKENS}"),
            evaluate("text_classification"),
            predict(ASK["text_classification"]),
            inputs=("glue_files",),
        ),
    ]


def of_writing() -> list[Case]:
    """Text generation from the files of each data set."""
    cases = []
    dialog = "task.dialog=true model.role_types=3 model.turn_types=16 task.metrics=[coqa]"
    for kind, words in (
        ("squad", "task.pool_references=true task.metrics=[bleu,meteor,coco_rouge_l]"),
        ("coqa", dialog),
        ("lines", "task.metrics=[rouge,exact] task.beam.min_length=2"),
        ("tsv", "task.end_token=mask"),
        ("jsonl", "task.format=jsonl task.beam.block_trigrams=true"),
    ):
        batch = "train.batch_size=4 train.micro_batch_size=2"
        train = finetune("seq2seq", f"--model unimo_tiny --init none data.path={kind} {batch} {words}")
        cases.append(one(f"files/{kind}", train, evaluate("seq2seq"), inputs=("writing_files",)))
    return cases


def of_weights() -> list[Case]:
    """Weights of others, and models that start from them."""
    tool = "tools/convert_checkpoint.py"
    made = {
        kind: Step(
            kind,
            f"{tool} --from hf-{kind.replace('_', '-')} --input hf_{kind}_tiny/model.safetensors "
            f"--config hf_{kind}_tiny/config.json --out {kind}",
            (f"model:{kind}/model.safetensors", f"files:{kind}/config.yaml"),
        )
        for kind in ("roberta", "clip_vit", "vit")
    }
    unimo2 = f"{tool} --from unimo2-release --input UNIMO-2 --tokenizer scenes --out unimo2"
    unimo = f"{tool} --from unimo-release --input unimo_base_en --tokenizer scenes --out unimo"
    cases = [one("weights/towers", *made.values(), inputs=("towers",))]
    model = ("model:unimo2/model.safetensors",)
    cases.append(
        one(
            "weights/unimo2",
            Step("convert", unimo2, model),
            evaluate("retrieval", f"--zero-shot {FEW} data.path=scenes", model="unimo2"),
            training(
                "finetune",
                f"tools/finetune.py --task entailment --init unimo2 {LOOP} data.image_size=48 "
                "train.batch_size=4 data.max_text_len=20 data.scenes.train_images=40 " + FEW,
            ),
            inputs=("releases",),
        )
    )
    text = "data.max_text_len=32 data.regions=grid:2:2"
    for task, words in (
        ("pretrain", ""),
        ("retrieval", ""),
        ("entailment", ""),
        ("caption", "task.beam.max_length=20"),
        ("seq2seq", "task.max_target_len=16 task.beam.max_length=24"),
    ):
        convert = Step("convert", f"{unimo} --task {task} {text} {words}", ("model:unimo/model.safetensors",))
        measured = evaluate(
            task, "data.path=scenes data.pairs=scenes data.scenes.val_images=4", model="unimo"
        )
        cases.append(one(f"weights/unimo/{task}", convert, measured, inputs=("releases",)))
    return cases


def of_figures() -> list[Case]:
    """Figures of what models have learned."""
    draw = "tools/visualize.py"
    tokens = f"{draw} grounded-tokens --model out --tokens 4 --nearest 4 --out drawn train.eval_max_batches=2"
    words = f"{draw} word-embeddings --model out --words circle,red --nearest 5 --out words"
    found = f"{draw} retrieval --model out --queries 2 --out found {FEW}"
    return [
        one("figures/unimo2", pretrain("unimo2_tiny"), Step("tokens", tokens, ("files:drawn",))),
        one(
            "figures/unimo",
            pretrain("unimo_tiny"),
            Step("words", words, ("files:words",)),
            Step("retrieval", found, ("files:found",)),
        ),
    ]


CASES: list[Case] = [
    *of_recipes(),
    *of_ranks(),
    *of_resuming(),
    *of_regions(),
    *of_augmentation(),
    *of_preparation(),
    *of_files(),
    *of_writing(),
    *of_weights(),
    *of_pretraining_options(),
    *of_finetuning_options(),
    *of_figures(),
]
