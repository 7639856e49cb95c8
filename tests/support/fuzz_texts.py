"""Files of texts, names and numbers beside corpora for tests/test_fuzz.py, sound ones and their readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import micro
from fuzz_readers import records, translations
from fuzz_sources import SENTENCES
from fuzz_sources import translations as make_translations
from picture_files import write_json, write_pictures

from ppdet_features.config import read_names
from unimo.augment.corpus import CaptionCorpus
from unimo.augment.scene_graph import SceneGraph
from unimo.augment.statistics import CorpusStatistics
from unimo.inference.labels import read_labels
from unimo.settings import CorpusConfig
from unimo.tasks.caption.tags import read_tags
from unimo.tasks.seq2seq.data import open_generation

STORY = " ".join(SENTENCES)


def _answer(number: int, text: str) -> dict[str, Any]:
    return {"turn_id": number, "input_text": text, "span_text": text, "span_start": 0, "span_end": len(text)}


def coqa(folder: Path) -> None:
    """Two stories with three questions each."""
    story = {
        "story": STORY,
        "id": "s1",
        "source": "cnn",
        "questions": [{"turn_id": number, "input_text": "what?"} for number in (1, 2, 3)],
        "answers": [_answer(number, "a dog") for number in (1, 2, 3)],
        "additional_answers": {"0": [_answer(number, "the dog") for number in (1, 2, 3)]},
    }
    write_json(folder / "coqa-train-v1.0.json", {"version": "1.0", "data": [story, story | {"id": "s2"}]})


def squad(folder: Path) -> None:
    """A passage with two questions."""
    asked = [
        {"id": str(at), "question": "what?", "answers": [{"text": "red", "answer_start": 2}]} for at in (1, 2)
    ]
    passages = [{"context": STORY, "qas": asked}]
    write_json(folder / "train-v1.1.json", {"data": [{"title": "a", "paragraphs": passages}]})


def visual_genome(folder: Path) -> None:
    """Three pictures with two regions each, one of them of COCO and held out."""
    box = {"width": 5, "height": 6, "x": 1, "y": 2}
    regions = [{"region_id": at, "phrase": text, **box} for at, text in enumerate(SENTENCES[:2])]
    write_json(folder / "region_descriptions.json", [{"id": at, "regions": regions} for at in (1, 2, 3)])
    numbers = ((None, "7"), (9, None), (None, None))
    entries = [{"image_id": at + 1, "coco_id": a, "flickr_id": b} for at, (a, b) in enumerate(numbers)]
    write_json(folder / "image_data.json", entries)
    write_json(folder / "dataset_coco.json", {"images": [{"cocoid": 9, "split": "val", "sentences": []}]})
    write_pictures(folder / "pictures", ["VG_100K/1.jpg", "VG_100K_2/2.jpg", "VG_100K/3.jpg"])


def visual_genome_qa(folder: Path) -> None:
    """Three pictures with two questions each."""
    asked = [{"qa_id": at, "question": text, "answer": "A dog."} for at, text in enumerate(SENTENCES[:2])]
    write_json(folder / "question_answers.json", [{"id": at, "qas": asked} for at in (1, 2, 3)])
    write_pictures(folder / "pictures", [f"VG_100K/{at}.jpg" for at in (1, 2, 3)])


def gqa(folder: Path) -> None:
    """Three pictures with a question each, and the choices of one."""
    facts = {
        "types": {"structural": "query", "semantic": "attr", "detailed": "color"},
        "groups": {"global": "color", "local": None},
        "entailed": ["02", "03"],
        "isBalanced": True,
    }
    asked = {
        f"0{at}": {"imageId": f"n{at}", "question": SENTENCES[at], "answer": "red", **facts}
        for at in range(3)
    }
    for split in ("train", "val"):
        write_json(folder / f"{split}_balanced_questions.json", asked)
    write_json(folder / "val_choices.json", {"01": {"valid": ["red", "blue"], "plausible": ["red"]}})
    write_pictures(folder / "pictures", [f"n{at}.jpg" for at in range(3)])


def web_captions(folder: Path) -> None:
    """SBU's and Conceptual Captions' lists of three addresses, with notes beside one picture."""
    urls = [f"http://x.org/{at}/a.jpg" for at in range(3)]
    write_json(folder / "sbu-captions-all.json", {"image_urls": urls, "captions": SENTENCES[:3]})
    rows = zip(SENTENCES[:3], urls, strict=True)
    (folder / "Train_GCC-training.tsv").write_text("".join(f"{text}\t{url}\n" for text, url in rows))
    write_pictures(folder / "pictures", [f"00000/00000000{at}.jpg" for at in range(3)])
    write_json(folder / "pictures/00000/000000001.json", {"url": urls[1], "status": "success"})


def pairs_of_lines(folder: Path) -> None:
    """Sources and targets."""
    (folder / "train.src").write_text("\n".join(SENTENCES) + "\n")
    (folder / "train.tgt").write_text("\n".join(reversed(SENTENCES)) + "\n")


def written_tsv(folder: Path) -> None:
    """A table with a header."""
    rows = [f"{text}\tthe {text}\tknown" for text in SENTENCES]
    (folder / "train.tsv").write_text("\n".join(["src\ttgt\tknowledge", *rows]) + "\n")


def written_lines(folder: Path) -> None:
    """Sources with one or several targets."""
    rows = [{"source": text, "target": ["a", "b"][: 1 + len(text) % 2]} for text in SENTENCES]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def generation(folder: Path) -> int:
    """Texts to write."""
    return records(
        open_generation(CorpusConfig(str(folder)), "train", micro.make_run("seq2seq")), "generation"
    )


def names(folder: Path) -> None:
    """Names of classes, tags of images."""
    (folder / "names.txt").write_text("dog,hound\ncat\nboat\n")
    (folder / "tags.txt").write_text("1.jpg;5 6;0 0;1 2\nval/2.jpg;7;0;3\n")


def read_all_names(folder: Path) -> int:
    """Names for zero-shot classification and for a detector, and the tags of captions."""
    read_labels(folder / "names.txt")
    read_names(folder / "names.txt")
    read_tags(folder / "tags.txt", 4, 10, 5)
    return 0


def _collect(folder: Path) -> None:
    corpus = CaptionCorpus(str(folder / "train.txt"), "train", "texts")
    found = CorpusStatistics(10)
    graph = SceneGraph((), (), ())
    found.collect(corpus, lambda text: graph, folder / "counts.npz", {"corpus": "here"}, lambda done: None)
    found.entries(1, 2, 0, folder / "entries.npz", {"corpus": "here"})


def statistics(folder: Path) -> None:
    """Counts of a corpus."""
    (folder / "train.txt").write_text("\n".join(SENTENCES * 3) + "\n")
    _collect(folder)


def go_on_counting(folder: Path) -> int:
    """Counts of a corpus that a job finds."""
    _collect(folder)
    return 0


def table_of_translations(folder: Path) -> None:
    """Translations with the table that a job made of them."""
    make_translations(folder)
    translations(folder)
