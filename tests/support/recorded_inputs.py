"""Small files that the cases of `recorded_jobs.py` read, made anew in the folder of each case.

Every function takes that folder and the folder of shared data (photographs with captions, plain texts).
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

TESTS = Path(__file__).resolve().parents[1]
SCENES_VOCABULARY = 67
"""Tokens of the built-in corpus `scenes`, which the random releases are made for."""
COLORS = ("red", "green", "blue", "yellow")


def draw(number: int, size: int = 64) -> Image.Image:
    """A picture of one or two shapes that differs for every number."""
    picture = Image.new("RGB", (size, size), (230, 230, 230 - number % 20))
    canvas = ImageDraw.Draw(picture)
    left, top = 4 + number * 7 % (size // 2), 4 + number * 11 % (size // 2)
    corners = (left, top, left + size // 4, top + size // 4)
    (canvas.ellipse if number % 2 else canvas.rectangle)(corners, fill=COLORS[number % 4])
    if number % 3:
        canvas.rectangle((size - 14, size - 14, size - 4, size - 4), fill=COLORS[(number + 1) % 4])
    return picture


def save(path: Path, number: int, size: int = 64) -> None:
    """A drawn picture as a file; its ending says which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(number, size).save(path)


def lines(path: Path, items: list[Any]) -> None:
    """A file of strings, or of anything else as JSON, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{i if isinstance(i, str) else json.dumps(i)}\n" for i in items))


def picture(work: Path, shared: Path) -> None:
    """`picture.png`."""
    save(work / "picture.png", 1)


def pictures(work: Path, shared: Path) -> None:
    """`pictures/`: 20 of three sizes, one of them damaged."""
    for number in range(20):
        save(work / f"pictures/{number:02d}.png", number, (64, 80, 48)[number % 3])
    (work / "pictures/11.png").write_bytes(b"damaged")


def photographs(work: Path, shared: Path) -> None:
    """`photographs.json`: 60 images of Flickr8k in Karpathy's format; the images stay where they are."""
    whole = json.loads((shared / "data/flickr8k_800/dataset_flickr8k.json").read_text())
    chosen: list[dict[str, Any]] = []
    for split, count in (("train", 40), ("val", 10), ("test", 10)):
        chosen += [image for image in whole["images"] if image["split"] == split][:count]
    (work / "photographs.json").write_text(json.dumps({**whole, "images": chosen}))


def captions(work: Path, shared: Path) -> None:
    """`captions.txt` of 200 lines and `few.txt` of 40 others."""
    source = (shared / "data/text/flickr8k_captions_unpaired.txt").read_text().splitlines()
    lines(work / "captions.txt", source[:200])
    lines(work / "few.txt", source[200:240])


def texts_with_ids(work: Path, shared: Path) -> None:
    """`pairs/`: drawn pictures with captions; `labels.jsonl`: what was found in some of them."""
    told = [f"a {COLORS[n % 4]} {'ball' if n % 2 else 'box'} lies on a table near a dog" for n in range(12)]
    for number in range(12):
        save(work / f"pairs/{number}.jpg", number)
    items = [{"image": f"{n}.jpg", "texts": [text, f"{text} and a cat"]} for n, text in enumerate(told)]
    lines(work / "pairs/train.jsonl", items)
    lines(work / "pairs/val.jsonl", items[:4])
    found = [
        {"image_id": f"{n}.jpg", "labels": ["dog", "table", ("ball" if n % 2 else "box")]} for n in range(9)
    ]
    lines(work / "labels.jsonl", found)


def vqa_files(work: Path, shared: Path) -> None:
    """`vqav2/` and `coco/`: a miniature of the official files of VQA v2."""
    numbers = {"train2014": range(1, 13), "val2014": range(21, 27), "test2015": range(31, 33)}
    for split in (*numbers, "test-dev2015"):
        place, questions, answers = split.replace("-dev", ""), [], []
        for image in numbers[place]:
            save(work / f"coco/{place}/COCO_{place}_{image:012d}.jpg", image)
            for turn, (best, given) in enumerate(
                [("Yes", ["Yes"] * 6 + ["yes"] * 4), ("two", ["two"] * 3 + ["2"] * 5 + ["a red one"] * 2)]
            ):
                asked = {"question_id": image * 1000 + turn, "image_id": image}
                questions.append({**asked, "question": f"is it {COLORS[(image + turn) % 4]} ?"})
                said = [{"answer": answer} for answer in given]
                answers.append({**asked, "multiple_choice_answer": best, "answers": said})
        lines(work / f"vqav2/v2_OpenEnded_mscoco_{split}_questions.json", [{"questions": questions}])
        if "test" not in split:
            lines(work / f"vqav2/v2_mscoco_{split}_annotations.json", [{"annotations": answers}])


def snli_files(work: Path, shared: Path) -> None:
    """`snli/` and `flickr30k/`: a miniature of SNLI-VE."""
    labels = ("entailment", "neutral", "contradiction", "-")
    for number in range(12):
        save(work / f"flickr30k/{number}.jpg", number)
    for split, count in (("train", 12), ("dev", 6), ("test", 4)):
        items = [
            {
                "Flickr30K_ID": str(n),
                "sentence1": "It lies there.",
                "sentence2": f"It is {c}.",
                "gold_label": label,
            }
            for n in range(count)
            for c, label in zip(COLORS, labels[n % 4 :] + labels[: n % 4], strict=True)
        ]
        lines(work / f"snli/snli_ve_{split}.jsonl", items)


def own_files(work: Path, shared: Path) -> None:
    """`own/`: pairs, questions and hypotheses about drawn pictures as jsonl without named splits."""
    for number in range(20):
        save(work / f"own/images/{number}.jpg", number)
    names = [f"images/{number}.jpg" for number in range(20)]
    lines(work / "own/pairs.jsonl", [{"image": name, "texts": [f"{name} a", f"{name} b"]} for name in names])
    asked = [{"image": n, "question": "what is it ?", "answers": ["red"] * 7 + ["blue"] * 3} for n in names]
    lines(work / "own/vqa.jsonl", asked)
    lines(
        work / "own/entailment.jsonl",
        [{"image": n, "text": "It is red.", "label": i % 3} for i, n in enumerate(names)],
    )


def tar_shards(work: Path, shared: Path) -> None:
    """`shards/`: two tar files of pairs to train on and one held out."""
    (work / "shards").mkdir()
    for shard, name in enumerate(("train-000000", "train-000001", "val")):
        with tarfile.open(work / f"shards/{name}.tar", "w") as file:
            for number in range(16 * shard, 16 * shard + 16):
                image = BytesIO()
                draw(number).save(image, "PNG")
                told = f"there is a {COLORS[number % 4]} {'circle' if number % 2 else 'square'} .".encode()
                for ending, content in (("png", image.getvalue()), ("txt", told)):
                    about = tarfile.TarInfo(f"{number:06d}.{ending}")
                    about.size = len(content)
                    file.addfile(about, BytesIO(content))


def image_tree(work: Path, shared: Path) -> None:
    """`tree/`: a folder for each class."""
    for split, count in (("train", 12), ("val", 4)):
        for place, name in enumerate(("red box", "green ball")):
            for number in range(count):
                save(work / f"tree/{split}/{name}/{number}.jpg", 4 * number + place)
    lines(work / "labels.txt", ["a green ball", "a red box"])


def glue_files(work: Path, shared: Path) -> None:
    """`SST-2/`: some sentences with labels."""
    for split, count in (("train", 120), ("dev", 24)):
        source = (shared / f"data/glue/SST-2/{split}.tsv").read_text().splitlines()[:count]
        lines(work / f"SST-2/{split}.tsv", ["sentence\tlabel", *source])


def writing_files(work: Path, shared: Path) -> None:
    """`squad/`, `coqa/`, `lines/`, `tsv/` and `jsonl/`: the same little texts in each format."""
    for stem in ("train", "dev"):
        asked = [{"id": str(n), "question": f"what is {n} ?", "answers": [{"text": "red"}]} for n in range(6)]
        story = {"context": "a red circle .", "qas": asked}
        lines(work / f"squad/{stem}-v1.1.json", [{"data": [{"paragraphs": [story]}]}])
        said = [{"input_text": "red", "turn_id": turn + 1} for turn in range(4)]
        told = {"id": "s", "source": "race", "story": "a red circle .", "questions": said, "answers": said}
        lines(work / f"coqa/coqa-{stem}-v1.0.json", [{"data": [told]}])
        lines(work / f"lines/{stem}.source", ["red circle", "blue", "red"] * 4)
        lines(work / f"lines/{stem}.target", ["red", "blue square", "red"] * 4)
        lines(work / f"tsv/{stem}.tsv", ["src\ttgt", *["red\tblue square"] * 8])
        lines(work / f"jsonl/{stem}.jsonl", [{"source": ["red", "blue"], "target": ["a", "a circle"]}] * 8)


def boxes(work: Path, shared: Path) -> None:
    """`boxes.json`: drawn pictures with boxes, classes and attributes, as COCO writes them."""
    images, found = [], []
    for number in range(16):
        save(work / f"boxed/{number}.png", number)
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        box = [4 + number * 7 % 32, 4 + number * 11 % 32, 16, 16]
        about = {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": box, "area": 256}
        found.append({**about, "iscrowd": 0, "attribute_ids": [number % 4]})
    classes = [{"id": 1, "name": "square"}, {"id": 2, "name": "circle"}]
    lines(work / "boxes.json", [{"images": images, "annotations": found, "categories": classes}])


def towers(work: Path, shared: Path) -> None:
    """`hf_*_tiny/`: towers in the files of others, which the tests have."""
    for folder in sorted(TESTS.rglob("hf_*_tiny")):
        if folder.is_dir():
            shutil.copytree(folder, work / folder.name)


def releases(work: Path, shared: Path) -> None:
    """`UNIMO-2/` and `unimo_base_en/`: small random models in the files of the releases."""
    for name, module in (("UNIMO-2", "released_folder"), ("unimo_base_en", "released_unimo")):
        tensors = helper(module).random_release(SCENES_VOCABULARY)
        helper("released_folder").write_folder(work / name, tensors)


def helper(name: str) -> Any:
    """A module of the tests, wherever in them it lies."""
    (path,) = TESTS.rglob(f"{name}.py")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    return importlib.import_module(name)
