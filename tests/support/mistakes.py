"""A folder of sound and unsound files, and a table of mistakes that users make with them and the tools."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from micro import saved, words
from mistakes_of_objects import MISTAKES_OF_OBJECTS, write_objects
from mistakes_of_pixels import MISTAKES_OF_PIXELS, write_pixels
from mistakes_of_stages import MISTAKES_OF_STAGES, STAGED
from PIL import Image

from unimo.weights.files import read_safetensors, write_safetensors

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = str(ROOT / "ppdet_features" / "configs" / "scenes_tiny.yaml")
HF = str(ROOT / "tests" / "assets" / "hf_roberta_tiny")
RUN = ["unimo3_tiny", *words()]
VQA = ["--task", "vqa", *words()]
ASK = ["--image", "p.png", "--question", "what is it ?"]
AUGMENT = ["--captions", "captions.jsonl", "--out", "aug.jsonl", "--work", "work"]
FEATURES = ["--detector", DETECTOR, "--weights", "weights.safetensors"]
LONG = "x" * 300
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}

Change = Callable[[Path], object]


def change_config(**sections: object) -> Change:
    """Replace sections of the config of a model directory."""

    def change(folder: Path) -> None:
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | sections))

    return change


def change_weights(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Replace all tensors of a model directory."""

    def changed(folder: Path) -> None:
        path = folder / "model.safetensors"
        write_safetensors(path, {name: change(value) for name, value in read_safetensors(path).items()})

    return changed


def change_tokenizer(**parts: object) -> Change:
    """Replace parts of the tokenizer of a model directory."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | parts))

    return change


DAMAGE: dict[str, Change] = {
    "whole_numbers": change_weights(lambda value: value.astype(np.int64)),
    "cut_weights": lambda folder: (folder / "model.safetensors").write_bytes(b"\x08" + bytes(11)),
    "no_weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no_processor": change_config(processor=None),
    "listed_processor": change_config(processor=[1]),
    "listed_model": change_config(model=[1]),
    "no_task": change_config(task=None),
    "numbered_task": change_config(task={"name": 5}),
    "no_metadata": change_config(metadata={}),
    "listed_metadata": change_config(metadata=[1]),
    "yaml_list": lambda folder: (folder / "config.yaml").write_text("- 1\n"),
    "null_words": change_tokenizer(model=None),
    "listed_words": change_tokenizer(model={"vocab": ["a"]}),
    "odd_added": change_tokenizer(added_tokens=[5]),
    "no_words": change_tokenizer(model={"type": "WordLevel", "vocab": {}, "unk_token": "u"}, added_tokens=[]),
    "text_ids": change_tokenizer(model={"type": "WordLevel", "vocab": {"a": "b"}, "unk_token": "<unk>"}),
}  # fmt: skip
"""Name of a copy of a model directory -> what is wrong with it."""


def write_world(folder: Path) -> None:
    """Write all files that the table names into a folder, which is the current one."""
    model = saved("vqa", folder / "tuned")
    saved("pretrain", folder / "pretrained")
    for name, damage in DAMAGE.items():
        copy = folder / name / "model"
        copy.mkdir(parents=True)
        for file in model.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        damage(copy)
    (folder / "pictures").mkdir()
    for place in (folder, folder / "pictures"):
        Image.new("RGB", (20, 10), "red").save(place / "p.png")
    files = {
        "file": "mine",
        "empty.png": "",
        "no_pixels.ppm": "P6 0 5 255\n",
        "base_number.yaml": "_base_: 5\n",
        "base_numbers.yaml": "_base_: [1, 2]\n",
        "base_itself.yaml": "_base_: base_itself.yaml\n",
        "model_list.yaml": "model: [1]\ntask: pretrain\n",
        "model_number.yaml": "model: 5\ntask: pretrain\n",
        "task_list.yaml": "model: unimo3_tiny\ntask: [pretrain]\n",
        "train_list.yaml": "model: unimo3_tiny\ntask: pretrain\ntrain: [1]\n",
        "tagged.yaml": "model: !!python/object:os.system {}\n",
        "tabs.yaml": "model:\n\tname: x\n",
        "sizes.yaml": "sizes: [a, b]\n",
        "captions.jsonl": '{"image": "p.png", "text": "a red circle"}\n' * 4,
        "french/captions.jsonl": '{"image": "../p.png", "text": "un chien court"}\n' * 8,
        "base64.json": json.dumps({"images": "none"}),
        "listed.json": "[1, 2]",
        "cut.json": '{"images": [',
        "odd.json": json.dumps({**VIT, "hidden_size": None}),
        "work/file": "mine",
        "glue/train.tsv": "\ufeff sentence\tlabel\na\t1\n",
        "glue/dev.tsv": "sentence\tlabel\na\t1\n",
        "labels.txt": "",
        "broken_index/index/index.sqlite": "no database at all" * 100,
        "broken_texts/translations.sqlite": "no database at all" * 100,
        "translations.jsonl": '{"id": "captions:1", "text": "a circle that is red"}\n',
        "vqa/v2_OpenEnded_mscoco_train2014_questions.json": json.dumps({"questions": {"a": 1}}),
        "vqa/v2_mscoco_train2014_annotations.json": json.dumps({"annotations": 5}),
        "detector.yaml": "RPNHead: 5\n",
        "names.yaml": "class_names: nowhere.txt\n",
        "staged/config.yaml": json.dumps(STAGED),
        "staged/model.safetensors": "",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    table = pa.table({"image": [b"x"], "caption": [["a dog"]], "image_id": ["1"]})
    with pa.ipc.new_stream(str(folder / "stream.arrow"), table.schema) as writer:
        writer.write_table(table)
    write_objects(folder)
    write_pixels(folder)
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")


MISTAKES: list[tuple[str, list[str], str]] = [
    # Settings that cannot be.
    *[
        ("pretrain", [*RUN, word], said)
        for word, said in (
            ("task.mlm_probability=2", "task.mlm_probability 2: expected 0 to 1; try 0.15"),
            ("task.mlm_probability=-0.1", "task.mlm_probability -0.1: expected 0 to 1"),
            ("data.max_bad_rate=.nan", "data.max_bad_rate nan: expected a finite number"),
            ("data.max_bad_rate=.inf", "data.max_bad_rate inf"),
            ("data.pairs=[{path: scenes, weight: .nan}]", "weight nan"),
            ("optim.lr=nan", "optim.lr: expected float, found 'nan'"),
            ("optim.lr=-1", "optim.lr -1: expected 0 or more; try 0.0"),
            ("optim.lr_multipliers={heads: -5}", "optim.lr_multipliers.heads -5"),
            ("optim.betas=[0.9, 1.5]", "optim.betas[1] 1.5: expected 0 to below 1"),
            ("optim.betas=[0.9]", "optim.betas [0.9]: expected two numbers"),
            ("optim.eps=0", "optim.eps 0: expected a number above 0"),
            ("optim.warmup=1e9", "optim.warmup=1e+09"),
            ("optim.clip_grad_norm=0", "optim.clip_grad_norm 0: expected a number above 0"),
            ("train.max_steps=-3", "train.max_steps -3: expected 0 or more"),
            ("train.max_steps=010", "train.max_steps: expected int, found '010'"),
            ("train.max_steps=1_000", "found '1_000'"),
            ("train.max_steps=12:30", "found '12:30'"),
            ("train.max_steps=yes", "found 'yes'"),
            ("train.max_steps=" + "9" * 5000, "train.max_steps: expected int"),
            ("train.save_every=-1", "train.save_every -1: expected 0 or more"),
            ("train.keep_checkpoints=0", "train.keep_checkpoints 0: expected 1 or more"),
            ("train.batch_size=0", "train.batch_size 0: expected 1 or more"),
            ("train.sharding_stage=true", "train.sharding_stage: True is not one of 0, 1, 2, 3"),
            ("train.precision=fp8", "is not one of fp32"),
            ("seed=-1", "config.seed -1: expected 0 to 4294967295; try 0"),
            ("seed=99999999999999999999", "config.seed"),
            ("model.text.num_heads=0", "model.text.num_heads 0: expected 1 to 1024"),
            ("model.text.num_heads=3", "does not divide into 3 heads"),
            ("model.text.hidden_size=1e12", "model.text.hidden_size 1000000000000: expected"),
            ("model.text.dropout=1", "model.text.dropout 1: expected 0 to below 1"),
            ("model.vision.patch_size=0", "model.vision.patch_size 0: expected 1"),
            ("data.num_workers=-1", "data.num_workers -1: expected 0 to 1024"),
            ("data.max_text_len=2", "data.max_text_len 2: expected 3 or more"),
            ("data.tokenizer=1.10", "expected str, found 1.1; put it in quotes"),
            ('data.root="a\\0b"', "has a NUL"),
            ("model=[1]", "model.name: expected a name such as unimo3_tiny, found [1]"),
            ("model.text=5", "model.text: expected a mapping, found 5"),
            ("data=5", "config.data: expected a mapping, found 5"),
            ("train.max_stepz=1", "nearest: max_steps"),
            ("train.max_steps", "is not of the form key=value"),
            ("x=[1", "is not valid YAML"),
            ("output_dir=file", "output_dir file is a file; expected a folder"),
            ("output_dir=file/below", "output_dir: cannot make the folder 'file/below'"),
            ("output_dir=" + LONG, "File name too long"),
            ("output_dir=/proc/mine", "cannot make the folder '/proc/mine'"),
            ("output_dir=/proc", "or write into it"),
            ("data.pairs=nowhere", "no data at"),
            ("data.pairs=stream.arrow", "is an Arrow stream, expected an Arrow file"),
            ("data.tokenizer=nowhere", "no tokenizer in nowhere"),
            ("init_from=nowhere", "no model directory at nowhere"),
            ("resume=nowhere", "nowhere"),
        )
    ],
    *[
        ("pretrain", ["unimo_tiny", "output_dir=regions", f"data.regions={grid}"], said)
        for grid, said in (
            ("grid:0:2", "data.regions='grid:0:2' 0: expected 1 to 16384"),
            ("grid:010:2", "expected int, found '010'"),
            ("grid:9999:9999", "grid: cells times pixels 99980001: expected 1 to 16384"),
        )
    ],
    # Recipes.
    ("pretrain", ["unimo3_bsae"], "nearest: unimo3_base"),
    ("pretrain", [], "the following arguments are required: recipe"),
    ("pretrain", ["nowhere.yaml"], "no config file nowhere.yaml"),
    ("pretrain", ["base_number.yaml"], "expected files under _base_, found 5"),
    ("pretrain", ["base_numbers.yaml"], "expected files under _base_, found [1, 2]"),
    ("pretrain", ["base_itself.yaml"], "include it again"),
    ("pretrain", ["model_list.yaml"], "expected a name such as unimo3_tiny, found [1]"),
    ("pretrain", ["model_number.yaml"], "expected a name such as unimo3_tiny, found 5"),
    ("pretrain", ["task_list.yaml"], "task.name: expected a name"),
    ("pretrain", ["train_list.yaml"], "config.train: expected a mapping, found [1]"),
    ("pretrain", ["tagged.yaml"], "is not valid YAML"),
    ("pretrain", ["tabs.yaml"], "is not valid YAML"),
    ("pretrain", ["sizes.yaml"], "expected a mapping of mappings under sizes"),
    ("finetune", ["--task", "vqa", "--model", "model_list.yaml"], "expected a name such as unimo3_tiny"),
    ("finetune", ["--task", "captoin"], "unknown task 'captoin'; nearest: caption"),
    ("finetune", [*VQA, "--init", "none", "task.min_answer_count=0"], "task.min_answer_count 0"),
    (
        "finetune",
        [*VQA, "--model", "semvlp_tiny", "--init", "none", "task.mode=both"],
        "'both' is not one of",
    ),
    ("finetune", [*VQA, "--init", "file"], "file is a file, expected a model directory"),
    # Model directories.
    *[
        ("predict", ["--model", name, *ASK], said)
        for name, said in {
            "whole_numbers": "of another type: ",
            "cut_weights": "truncated or not a safetensors file",
            "no_weights": "it has no model.safetensors",
            "no_processor": "has no saved processor",
            "listed_processor": "has no saved processor",
            "listed_model": "expected a section 'model', found [1]",
            "no_task": "section 'task' with a name is missing",
            "numbered_task": "expected a section 'task'",
            "no_metadata": "metadata.answers is missing",
            "listed_metadata": "expected a section 'metadata'",
            "yaml_list": "expected a mapping at the top, found list",
            "null_words": "expected a `model.vocab` mapping",
            "listed_words": "expected a `model.vocab` mapping",
            "odd_added": "expected `added_tokens` with `content` and `id`",
            "no_words": "no special tokens in its vocabulary",
            "text_ids": "is not a tokenizer.json",
        }.items()
    ],
    ("evaluate", ["--task", "vqa", "--model", "whole_numbers"], "of another type: "),
    (
        "evaluate",
        ["--model", "tuned", "--predictions", "file/below.json"],
        "--predictions file is a file; expected",
    ),
    ("evaluate", ["--model", "tuned", "--split", "+"], "expected names joined by +"),
    ("evaluate", ["--model", "tuned", "train.eval_batch_size=0"], "eval_batch_size 0: expected 1 or more"),
    ("finetune", [*VQA, "--init", "whole_numbers"], "of another type: "),
    # Questions.
    ("predict", ["--model", "tuned", *ASK, "--top-k", "0"], "--top-k 0: expected 1 or more"),
    ("predict", ["--model", "tuned", *ASK, "--top-k", "1_0"], "expected int, found '1_0'"),
    (
        "predict",
        ["--model", "tuned", *ASK, "--save", "file/below.png"],
        "--save file is a file; expected",
    ),
    ("predict", ["--model", "tuned", *ASK[2:], "--image", "empty.png"], "the file is empty"),
    ("predict", ["--model", "tuned", *ASK[2:], "--image", "no_pixels.ppm"], "no_pixels.ppm"),
    ("predict", ["--model", "tuned", *ASK[2:], "--image", "."], "Is a directory"),
    ("predict", ["--model", "tuned", "--image", "p.png", "--caption"], "takes --question"),
    ("predict", ["--model", "pretrained", "--image", "p.png", "--labels", ","], "label"),
    # Preparations.
    (
        "prepare_data",
        [],
        "required: karpathy|vqa|gqa|snli-ve|nlvr2|vg|vg-qa|answers|sbu|cc|ade20k|jsonl|scenes",
    ),
    ("prepare_data", ["coco"], "invalid choice: 'coco'"),
    *[
        ("prepare_data", ["karpathy", "--images", ".", "--out", "arrows", *more], said)
        for more, said in (
            (["--annotations", "cut.json"], "not valid JSON"),
            (["--annotations", "listed.json"], "listed.json"),
            (["--annotations", "base64.json"], "base64.json"),
            (["--annotations", "cut.json", "--max-missing-rate", "nan"], "expected float, found 'nan'"),
            (
                ["--annotations", "cut.json", "--max-missing-rate", "2"],
                "--max-missing-rate 2: expected",
            ),
            (
                ["--annotations", "cut.json", "--rows-per-file", "-1"],
                "--rows-per-file -1: expected",
            ),
        )
    ],
    ("prepare_data", ["vqa", "--annotations", "vqa", "--images", ".", "--out", "arrows"], "v2_"),
    ("prepare_data", ["gqa", "--annotations", ".", "--images", ".", "--out", "a"], "no train_balanced_quest"),
    ("prepare_data", ["vg-qa", "--annotations", ".", "--images", ".", "--out", "a"], "question_answers"),
    ("prepare_data", ["answers", "--corpora", "nowhere", "--out", "a"], "no data at"),
    ("prepare_data", ["vg", "--annotations", ".", "--images", ".", "--out", "arrows"], "region_descriptions"),
    ("prepare_data", ["sbu", "--annotations", "cut.json", "--images", ".", "--out", "a"], "not valid JSON"),
    ("prepare_data", ["cc", "--annotations", "file", "--images", ".", "--out", "a"], "train nor validation"),
    ("prepare_data", ["jsonl", "--input", "captions.jsonl", "--out", "file"], "file"),
    # Weights of others.
    ("convert_checkpoint", ["--from", "hf-bart", "--input", "x", "--out", "y"], "invalid choice"),
    *[
        ("convert_checkpoint", ["--from", "hf-roberta", "--config", f"{HF}/config.json", *more], said)
        for more, said in (
            (["--input", "file", "--out", "tower"], "truncated or not a safetensors file"),
            (["--input", "weights.safetensors", "--out", "tower"], "missing"),
            (["--input", f"{HF}/model.safetensors", "--out", "file"], "--out file is a file"),
            (["--input", "w.bin", "--out", "tower"], "cannot read weights w.bin: No such file"),
        )
    ],
    *[
        ("convert_checkpoint", ["--from", "hf-vit", "--input", "x", "--out", "y", "--config", config], said)
        for config, said in (("listed.json", "expected a JSON object"), ("odd.json", "config.json: hidden_"))
    ],
    # Augmentation.
    ("augment_corpus", ["rewrite", *AUGMENT, "--keep", "0"], "--keep 0: expected 1 or more"),
    ("augment_corpus", ["rewrite", *AUGMENT, "--seed", "-1"], "--seed -1: expected 0 to 4294967295"),
    ("augment_corpus", ["rewrite", *AUGMENT[:-1], "file"], "file is a file; expected a folder"),
    *[
        ("augment_corpus", ["rewrite", "--quiet", *AUGMENT[:-1], *work], said)
        for work, said in (
            (["broken_index"], "the index in broken_index/index is damaged"),
            (
                ["broken_texts", "--translator", "translations.jsonl"],
                "broken_texts/translations.sqlite cannot",
            ),
        )
    ],
    ("augment_corpus", ["rewrite", *AUGMENT, "--shard", "4/4"], "expected RANK/OF"),
    # Regions and their detector.
    ("extract_features", ["--images", ".", *FEATURES, "--out", "file"], "--out file is a file"),
    ("extract_features", ["--images", ".", *FEATURES, "--out", "r", "--batch-size", "0"], "--batch-size 0"),
    ("extract_features", ["--images", ".", *FEATURES, "--out", "r", "--max-bad-rate", "nan"], "found 'nan'"),
    ("extract_features", ["--images", "pictures", *FEATURES, "--out", "r"], "missing"),
    ("extract_features", ["to-tsv", "nowhere", "x.tsv"], "nowhere"),
    *[
        ("ppdet_features/train_detector", ["--scenes", "--out", "detector", *more], said)
        for more, said in (
            (["--config", "nowhere.yaml"], "cannot read config nowhere.yaml"),
            (["--config", "detector.yaml"], "RPNHead: expected a mapping, found 5"),
            (["--config", "names.yaml"], "nowhere.txt"),
            (["--config", DETECTOR, "Training.steps=-3"], "Training.steps -3: expected 0 or more"),
            (["--config", DETECTOR, "Training.learning_rate=nan"], "Training.learning_rate: expected float"),
            (["--config", DETECTOR, "BBoxAssigner.fg_fraction=2"], "fg_fraction 2: expected 0 to 1"),
            (["--config", DETECTOR, "--minutes", "-1"], "--minutes -1: expected 0 or more"),
        )
    ],
    (
        "ppdet_features/convert_weights",
        ["--weights", "x", "--config", DETECTOR, "--out", "file"],
        "is a file",
    ),
    # Figures, studies and speed.
    ("visualize", ["retrieval", "--model", "tuned", "--top", "0"], "--top 0: expected 1 or more"),
    ("visualize", ["grounded-tokens", "--model", "tuned", "--ids", "1,x"], "expected int, found 'x'"),
    ("visualize", ["retrieval", "--model", "tuned", "--out", "file"], "--out file is a file"),
    ("study", ["unimo4"], "no study 'unimo4'"),
    ("study", ["unimo", "--jobs", "0"], "--jobs 0: expected 1 or more"),
    ("study", ["unimo", "--seeds", "-1"], "--seeds -1: expected 0 to 4294967295"),
    ("benchmark", ["train", "--batch-size", "1"], "--batch-size 1: expected 2 or more"),
    ("benchmark", ["train", "--out", "file/below.json"], "--out file is a file; expected a folder"),
    ("quickstart", ["--output", "file"], "--output file is a file"),
    # Options of other programs, words that nothing knows, and folders that are not there.
    *[
        ("pretrain", [*RUN, *more], said)
        for more, said in (
            (["--max_steps", "20"], "no option --max_steps; write train.max_steps=20"),
            (["--lr=1e-4"], "no option --lr; write optim.lr=1e-4"),
            (["--epochs", "3"], "write train.max_steps=STEPS"),
            (["max_steps=20"], "unknown key config.max_steps; there is train.max_steps"),
            (["data.pairs=french", "output_dir=words"], "are unknown to the tokenizer, more than 30%"),
        )
    ],
    ("finetune", [*VQA, "--output_dir", "x"], "no option --output_dir; write output_dir=x"),
    ("evaluate", ["--eval_batch_size", "3"], "no option --eval_batch_size; write train.eval_batch_size=3"),
    *MISTAKES_OF_STAGES,
    *MISTAKES_OF_OBJECTS,
    *MISTAKES_OF_PIXELS,
]
"""Tool, its command line, and a part of its message."""
