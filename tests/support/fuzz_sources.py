"""Small sound files of every kind, which tests/test_fuzz.py mutates."""

from __future__ import annotations

import functools
import io
import json
import pickle
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import micro
import numpy as np
import pyarrow as pa
import yaml
from picture_files import jpeg, write_json, write_pictures
from PIL import Image
from region_samples import write_store
from released_folder import encode
from safetensors.numpy import save_file

from ppdet_features.config import load_config
from unimo.augment.index import Entry, build_index
from unimo.augment.terms import terms_of
from unimo.config import CONFIG_ROOT, read_recipe
from unimo.data.prepare.writer import SCHEMAS
from unimo.data.regions.store import RegionStore
from unimo.data.regions.tsv import write_tsv
from unimo.data.tokenizers import SPECIAL_NAMES, build_word_tokenizer
from unimo.digests import DIGESTS
from unimo.models.unimo.augmented import open_augmentations
from unimo.weights.huggingface import convert_tower

ASSETS = Path(__file__).resolve().parent.parent / "assets"
Make = Callable[[Path], object]
SENTENCES = (
    "a red dog runs",
    "two cats on a small boat",
    "the caf\u00e9 is open",
    "a tree by the lake",
    "no one",
)
SHAPES: dict[str, dict[str, Any]] = {
    "pairs": {"texts": [SENTENCES[0], SENTENCES[1]]},
    "vqa": {"question": "what is it", "answers": {"dog": 1.0, "cat": 0.3}, "question_id": 7},
    "entailment": {"text": SENTENCES[3], "label": "neutral"},
    "texts": {"text": SENTENCES[2]},
    "images": {},
}
MODES = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "a.jpg": ("RGB", {"quality": 80}),
    "exif.jpg": ("RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
    "progressive.jpg": ("L", {"progressive": True}),
    "cmyk.jpg": ("CMYK", {}),
    "a.png": ("RGBA", {}),
    "palette.png": ("P", {"transparency": 3}),
    "wide.png": ("I;16", {}),
    "a.webp": ("RGB", {}),
    "a.gif": ("P", {}),
    "a.bmp": ("RGB", {}),
    "a.tiff": ("RGB", {"compression": "tiff_lzw"}),
    "float.tiff": ("F", {}),
    "a.ppm": ("RGB", {}),
}


def tar(form: str, kind: str) -> Make:
    """A shard with names longer than a header holds, and a folder."""

    def make(folder: Path) -> None:
        members: list[tuple[str, bytes]] = []
        for number in range(5):
            stem = f"{'long' * 30 * (number % 2 and form != 'ustar')}folder/{number:06}"
            members.append((f"{stem}.jpg", jpeg(number, 16)))
            if kind in ("pairs", "texts") and number < 2:
                members.append((f"{stem}.txt", SENTENCES[number].encode()))
            elif kind != "images":
                members.append((f"{stem}.json", json.dumps(SHAPES[kind]).encode()))
        with tarfile.open(folder / "train.tar", "w", format=MODES[form]) as file:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))

    return make


def arrow(kind: str, packed: str | None) -> Make:
    """A table of three images in two batches."""

    def make(folder: Path) -> None:
        rows = range(3)
        columns: dict[str, list[Any]] = {
            "image": [jpeg(row, 16) for row in rows],
            "caption": [[SENTENCES[row], SENTENCES[row + 1]] for row in rows],
            "image_id": [str(row) for row in rows],
            "split": ["train"] * 3,
        }
        if kind == "vqa":
            columns |= {"questions": columns["caption"], "answers": [[["dog"], ["cat", "dog"]]] * 3}
            columns |= {"answer_labels": [[[0], [1, 0]]] * 3, "answer_scores": [[[1.0], [0.6, 0.3]]] * 3}
            columns |= {"image_id": list(rows), "question_id": [[2 * row, 2 * row + 1] for row in rows]}
        if kind == "entailment":
            columns |= {
                "sentences": [[list(SENTENCES[:2]), list(SENTENCES[2:4])]] * 3,
                "labels": [[0, 2]] * 3,
            }
        schema = SCHEMAS["pairs" if kind in ("texts", "images") else kind]
        table = pa.table({name: columns[name] for name in schema.names}, schema)
        options = pa.ipc.IpcWriteOptions(compression=packed)
        with pa.ipc.new_file(str(folder / "train.arrow"), schema, options=options) as writer:
            writer.write_table(table, max_chunksize=2)

    return make


def store(folder: Path) -> None:
    """Two shards of regions."""
    write_store(folder, ["a/1.jpg", "a/2.jpg", "3.jpg"])


def regions_tsv(folder: Path) -> None:
    """The same regions in the format of UNIMO's release."""
    with_store = folder / "store"
    store(with_store)
    write_tsv(folder / "regions.tsv", RegionStore(with_store).images())
    shutil.rmtree(with_store)


def entries(start: int) -> Iterator[Entry]:
    """The 200 sentences of the index."""
    for at in range(start, 200):
        text = f"{SENTENCES[at % 5]} and {SENTENCES[at % 3]} {at % 7}"
        yield Entry(f"s{at}", f"i{at // 5}", text, terms_of(text), (f"n{at // 5}",))


def index(folder: Path) -> None:
    """An inverted index."""
    build_index(entries, folder, {"corpus": "here"})


def unfinished_index(folder: Path) -> None:
    """An index whose build was stopped before its last step."""
    index(folder)
    with sqlite3.connect(folder / "index.sqlite") as base:
        base.execute("DELETE FROM about WHERE key = 'finished'")
    (folder / "norms.f32").unlink()
    (folder / DIGESTS).unlink()


def extras(folder: Path) -> None:
    """The lines of rewriting and retrieval, with their index."""
    told = [{"text": SENTENCES[1], "via": "fr"}]
    lines = [
        {
            "id": f"a:{number}#0",
            "positives": told,
            "negatives": {
                level: [{"text": SENTENCES[2], "replaced": []}] for level in ("sentence", "phrase", "word")
            },
            "texts": told,
            "images": [{"image_id": f"i{number}", "score": 1.0}],
        }
        for number in range(5)
    ]
    (folder / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    open_augmentations(*[str(folder / "all.jsonl")] * 3)


def translations(folder: Path) -> None:
    """Translations of captions by their ids."""
    lines = [
        json.dumps({"id": f"a:{number}#0", "text": text, "via": "fr"})
        for number, text in enumerate(SENTENCES)
    ]
    (folder / "fr.jsonl").write_text("\n".join(lines) + "\n")


def glue(folder: Path) -> None:
    """SST-2 and STS-B."""
    rows = [f"{text}\t{number % 2}" for number, text in enumerate(SENTENCES)]
    (folder / "train.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    rows = [f"{number}\t{text}\tthe {text}\t{number}.5" for number, text in enumerate(SENTENCES)]
    (folder / "STS-B").mkdir()
    (folder / "STS-B" / "train.tsv").write_text(
        "\n".join(["index\tsentence1\tsentence2\tscore", *rows]) + "\n"
    )


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "layer.weight": rng.normal(size=(4, 6)).astype(np.float32),
        "layer.bias": rng.normal(size=6).astype(np.float16),
        "count": np.array([3], np.int64),
        "scale": np.array(2.0, np.float64),
    }


def weights(folder: Path) -> None:
    """Four tensors."""
    save_file(_arrays(), folder / "w.safetensors", {"format": "np"})


def pickled(name: str, protocol: int) -> Make:
    """The same tensors as Paddle writes them."""
    content = _arrays() | {"StructuredToParameterName@@": {"layer.weight": "linear_0.w_0"}}
    return lambda folder: (folder / name).write_bytes(pickle.dumps(content, protocol))


def detectron(folder: Path) -> None:
    """A part of a detector in Detectron2's names."""
    arrays = {"backbone.stem.conv1.weight": np.ones((4, 3, 7, 7), np.float32)}
    arrays |= {f"backbone.stem.conv1.norm.{part}": np.ones(4, np.float32) for part in ("weight", "bias")}
    arrays |= {"roi_heads.box_predictor.cls_score.weight": np.ones((5, 8), np.float32)}
    (folder / "d.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, 2))


def cifar(folder: Path) -> None:
    """CIFAR-10 with two images a file."""
    rng = np.random.default_rng(0)
    names = [f"class{number}".encode() for number in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 2))
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = {b"data": rng.integers(0, 255, (2, 3072), np.uint8), b"labels": [1, 9]}
        (folder / name).write_bytes(pickle.dumps(content, 2))


@functools.cache
def _model() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        saved = micro.saved("vqa", Path(folder))
        return {path.name: path.read_bytes() for path in saved.iterdir()}


def model(folder: Path) -> None:
    """A model directory."""
    for name, content in _model().items():
        (folder / name).write_bytes(content)


def hf_tower(folder: Path) -> None:
    """A tower of Hugging Face."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(ASSETS / "hf_vit_tiny" / name, folder / name)


def tower(folder: Path) -> None:
    """A converted tower."""
    source = ASSETS / "hf_vit_tiny"
    convert_tower("hf-vit", source / "model.safetensors", source / "config.json", folder)


def paddle_folder(folder: Path) -> None:
    """A file for each parameter, as in the releases."""
    for name, array in _arrays().items():
        (folder / name).write_bytes(encode(array.reshape(-1, 1) if array.ndim == 0 else array))


def tokenizer(folder: Path) -> None:
    """A word tokenizer."""
    build_word_tokenizer(" ".join(SENTENCES).split()).save(folder)


_MERGES = ("\u0120 a", "d o", "do g", "\u0120 r", "e d")
_PIECES = ("a", "d", "o", "g", "r", "e", "\u0120", "\u0120a", "do", "dog", "\u0120r", "ed", "c", "t")


def bpe(folder: Path) -> None:
    """RoBERTa's two files."""
    begin, pad, end, unknown, mask = SPECIAL_NAMES[0]
    names = (begin, pad, end, unknown, *_PIECES, mask)
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *_MERGES)) + "\n")


def released_bpe(folder: Path) -> None:
    """UNIMO's three files."""
    begin, pad, end, unknown, mask = SPECIAL_NAMES[0]
    (folder / "unimo_en.encoder.json").write_text(json.dumps({name: at for at, name in enumerate(_PIECES)}))
    (folder / "unimo_en.vocab.bpe").write_text("\n".join(("#version: 0.2", *_MERGES)) + "\n")
    entries = (begin, pad, end, unknown, *map(str, range(len(_PIECES))), mask)
    (folder / "unimo_en.vocab.txt").write_text("".join(f"{name}\t{at}\n" for at, name in enumerate(entries)))


def recipe(folder: Path) -> None:
    """A recipe over a base."""
    (folder / "base.yaml").write_text((CONFIG_ROOT / "_base_" / "adamw.yaml").read_text())
    values = read_recipe("unimo3_tiny", "vqa")
    sized = {"_base_": "base.yaml", **values, "sizes": {"tiny": {"train": {"max_steps": 5}}}}
    (folder / "vqa.yaml").write_text(yaml.safe_dump(sized, sort_keys=False))


def detector_config(folder: Path) -> None:
    """The config of the small detector."""
    source = ASSETS.parent.parent / "ppdet_features" / "configs" / "scenes_tiny.yaml"
    shutil.copy(source, folder)
    load_config(folder / source.name)


def lines(kind: str) -> Make:
    """A jsonl corpus with a picture for each line."""

    def make(folder: Path) -> None:
        names = [f"{number}.jpg" for number in range(4)]
        write_pictures(folder, names)
        rows = [json.dumps(SHAPES[kind] | ({} if kind == "texts" else {"image": name})) for name in names]
        (folder / "train.jsonl").write_text("\n".join(rows) + "\n")

    return make


def answers(folder: Path) -> None:
    """A VQA corpus with a list of its answers."""
    lines("vqa")(folder)
    write_json(folder / "answers.json", ["dog", "cat", "none"])


def karpathy(folder: Path) -> None:
    """Captions of COCO in Karpathy's form."""
    entries = [
        {
            "filename": f"{number}.jpg",
            "filepath": "train2014",
            "split": split,
            "sentences": [{"raw": SENTENCES[0]}, {"raw": SENTENCES[1]}],
        }
        for number, split in enumerate(("train", "restval", "val", "test"))
    ]
    write_pictures(folder / "pictures" / "train2014", [entry["filename"] for entry in entries])
    write_json(folder / "dataset_coco.json", {"images": entries, "dataset": "coco"})


def vqa(folder: Path) -> None:
    """Questions and annotations of VQA v2."""
    for split, first in (("train", 1), ("val", 5)):
        numbers = range(first, first + 3)
        write_pictures(
            folder / "pictures", [f"{split}2014/COCO_{split}2014_{number:012}.jpg" for number in numbers]
        )
        asked = [{"image_id": n, "question": "what is it", "question_id": 10 * n} for n in numbers]
        said = [{"question_id": 10 * n, "image_id": n, "answers": [{"answer": "dog"}] * 10} for n in numbers]
        for entry in said:
            entry["multiple_choice_answer"] = "dog"
        write_json(folder / f"v2_OpenEnded_mscoco_{split}2014_questions.json", {"questions": asked})
        write_json(folder / f"v2_mscoco_{split}2014_annotations.json", {"annotations": said})


def snli_ve(folder: Path) -> None:
    """SNLI-VE of two pictures a split."""
    for first, split in ((1, "train"), (3, "dev")):
        write_pictures(folder / "pictures", [f"{first}.jpg", f"{first + 1}.jpg"])
        rows = [
            {"Flickr30K_ID": str(number), "sentence1": "a", "sentence2": "b", "gold_label": label}
            for number, label in ((first, "neutral"), (first, "entailment"), (first + 1, "contradiction"))
        ]
        (folder / f"snli_ve_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def coco(folder: Path) -> None:
    """Annotated objects."""
    write_pictures(folder / "pictures", ["1.jpg", "2.jpg"])
    sizes = {"width": 40, "height": 40}
    box = {"bbox": [1.0, 2.0, 10.0, 12.0], "area": 120.0, "iscrowd": 0, "attribute_ids": [0, 1]}
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg", **sizes} for number in (1, 2)],
        "categories": [
            {"id": n, "name": name} for n, name in enumerate(("circle", "square", "triangle", "cross"))
        ],
        "annotations": [{"id": n, "image_id": 1 + n % 2, "category_id": n % 4, **box} for n in range(5)],
    }
    write_json(folder / "objects.json", content)


def picture(name: str) -> Make:
    """An encoded picture."""
    mode, options = PICTURES[name]
    grey = Image.linear_gradient("L").resize((48, 32))
    image = Image.fromarray(np.asarray(grey, np.uint16) * 200) if mode == "I;16" else grey.convert(mode)
    return lambda folder: image.save(folder / name, **options)
